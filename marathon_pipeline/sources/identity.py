"""Which video a URL or a file is: canonical URLs, source ids, content.

A source id becomes a file name and a WebDataset key: letters, digits, `_` and `-`, at most 100 characters, no leading
`-` and no leading `__`.
"""

import hashlib
import re
import stat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

from marathon_pipeline.records import Source

MAX_ID_LENGTH = 100

_YOUTUBE_WATCH = "https://www.youtube.com/watch?v="
_YOUTUBE_HOSTS = {f"{prefix}youtube.com" for prefix in ("", "www.", "m.", "music.")} | {"www.youtube-nocookie.com"}
_YOUTUBE_PATH = re.compile(r"/(?:shorts|embed|live|v|e)/([A-Za-z0-9_-]{11})/?")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_TRACKING = re.compile(r"utm_.*|fbclid|gclid|dclid|msclkid|yclid|igshid|mc_[ce]id", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_STORES = ("s3", "gs")
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})|%")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_OUTSIDE_IDS = re.compile(r"[^A-Za-z0-9_-]")


class SourceError(ValueError):
    """What cannot name a source: the problem, and how its writer mends it."""

    def __init__(self, problem: str, mend: str) -> None:
        super().__init__(problem, mend)
        self.problem, self.mend = problem, mend

    def __str__(self) -> str:
        return f"{self.problem} ({self.mend})"


def canonical_url(url: str) -> str:
    """The one spelling of a URL: it is what is fetched, shown and hashed. Idempotent; raises SourceError.

    Scheme and host are in lower case; default ports, fragments and tracking parameters are gone; parameters are sorted
    by name, escapes normal (RFC 3986, section 6.2.2). Every spelling of a YouTube video becomes its watch page.
    """
    text = url.strip()
    if re.search(r"[\x00-\x1f\x7f\\]", text):
        raise SourceError("url holds a control character or a backslash", "write the URL without it")
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").rstrip("."), parts.port
        host = host if host.isascii() else host.encode("idna").decode()
        path, query = _normal_escapes(parts.path) or "/", _normal_escapes(parts.query)
    except ValueError as error:  # UnicodeError is one too
        raise SourceError(f"url {_shown(text)} is not a URL: {error}", "correct it, or delete the row") from None
    if scheme == "file":
        raise SourceError("url is a file:// URL", "name a local file by `path` instead of `url`")
    if scheme not in (*_DEFAULT_PORTS, *_STORES):
        mend = "start it with https:// or s3://, or use `path`"
        raise SourceError(f"url {_shown(text)} is neither http nor https, nor in an object store", mend)
    if parts.username is not None or parts.password is not None:
        raise SourceError("url holds a user name or password", "delete what stands before the @: URLs are published")
    if not _HOST.fullmatch(host):
        raise SourceError(f"url {_shown(text)} has no valid host", "correct it, or delete the row")
    if scheme in _STORES:  # a key is what it is: nothing in it is an escape or a parameter
        key = text.partition("://")[2].partition("/")[2]
        if not key or port is not None:
            raise SourceError(f"url {_shown(text)} names no object", f"write {scheme}://BUCKET/KEY")
        return f"{scheme}://{host}/{key}"
    if video := _youtube_id(host, path, query):
        return _YOUTUBE_WATCH + video
    host = f"[{host}]" if ":" in host else host
    port_text = "" if port is None or port == _DEFAULT_PORTS[scheme] else f":{port}"
    named = [(piece.partition("=")[0], piece) for piece in query.split("&") if piece]
    kept = [piece for name, piece in sorted(named, key=lambda pair: pair[0]) if not _TRACKING.fullmatch(name)]
    return f"{scheme}://{host}{port_text}{path}" + ("?" + "&".join(kept) if kept else "")


def is_in_store(url: str) -> bool:
    """Whether a URL names an object of a store, such as `s3://bucket/key`."""
    return url.startswith(tuple(f"{scheme}://" for scheme in _STORES))


def source_id_of_url(url: str) -> str:
    """`yt_<video>` for a YouTube video, else `u_<16 hex digits of the canonical URL's sha256>`. Raises SourceError."""
    canonical = canonical_url(url)
    if canonical.startswith(_YOUTUBE_WATCH):
        video = canonical.removeprefix(_YOUTUBE_WATCH)
        if _YOUTUBE_ID.fullmatch(video):
            return f"yt_{video}"
    return f"u_{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


def source_id_of_name(name: str, data_source: str = "") -> str:
    """A row's own id, prefixed by its collection unless it already is: `P01` of `ego4d` is `ego4d_P01`.

    Raises SourceError where it cannot be a file name and a WebDataset key.
    """
    prefix = f"{data_source}_" if data_source else ""
    source_id = name if name.startswith(prefix) else prefix + name
    what = f"id {_shown(source_id)}"
    if outside := _OUTSIDE_IDS.search(source_id):
        proposal = _OUTSIDE_IDS.sub("_", source_id).lstrip("_-")[:MAX_ID_LENGTH]
        mend = "use letters, digits, _ and - only" + (f", such as {proposal}" if proposal else "")
        raise SourceError(f"{what} holds {outside[0]!r}", mend)
    if not name or source_id.startswith(("-", "__")):
        raise SourceError(f"{what} is empty or starts with - or __", "start it with a letter, or give `data_source`")
    if len(source_id) > MAX_ID_LENGTH:
        raise SourceError(f"{what} has {len(source_id)} characters", f"use at most {MAX_ID_LENGTH}")
    return source_id


class Content(NamedTuple):
    """What a local file held when it was read; `bytes` and `mtime_ns` tell cheaply whether it still does."""

    sha256: str
    bytes: int
    mtime_ns: int

    @property
    def source_id(self) -> str:
        return f"f_{self.sha256[:16]}"


def content_of(path: Path, known: Source | None = None) -> Content:
    """Hash a local file, or take `known`'s hash where path, size and mtime are still the same. Raises SourceError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SourceError(f"{path} is not a regular file", "name a video file")
        if known and (known.path, known.bytes, known.mtime_ns) == (str(path), status.st_size, status.st_mtime_ns):
            return Content(known.sha256, known.bytes, known.mtime_ns)
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist", "correct the path, or delete the row") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", "make it readable, or delete the row") from None
    return Content(sha256, status.st_size, status.st_mtime_ns)


def _youtube_id(host: str, path: str, query: str) -> str:
    if host == "youtu.be":
        candidate = path.strip("/")
    elif host not in _YOUTUBE_HOSTS:
        return ""
    elif path.rstrip("/") == "/watch":
        candidate = parse_qs(query).get("v", [""])[0]
    else:
        named = _YOUTUBE_PATH.fullmatch(path)
        candidate = named[1] if named else ""
    return candidate if _YOUTUBE_ID.fullmatch(candidate) else ""


def _normal_escapes(text: str) -> str:
    def normal(escape: re.Match[str]) -> str:
        if escape[1] is None:
            return "%25"
        character = chr(int(escape[1], 16))
        return character if _UNRESERVED.fullmatch(character) else escape[0].upper()

    return quote(_ESCAPE.sub(normal, text), safe="%/:?@!$&'()*+,;=[]~")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")
