"""yt-dlp as a library: safe options, one video a URL, and a typed reason for whatever goes wrong."""

import contextlib
import errno
import io
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from yt_dlp import YoutubeDL
from yt_dlp.networking.common import Request, Response
from yt_dlp.networking.exceptions import (
    CertificateVerifyError,
    HTTPError,
    NoSupportingHandlers,
    TransportError,
    UnsupportedRequest,
)
from yt_dlp.utils import GeoRestrictedError, UnsupportedError, UserNotLive, YoutubeDLError

from marathon_pipeline.dataset.removals import CHANNEL_FIELDS
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.sources.addresses import only_public_but
from marathon_pipeline.sources.cookies import cookies_of
from marathon_pipeline.sources.identity import SourceError, canonical_url
from marathon_pipeline.sources.settings import DownloadSettings, LimitSettings, Progress
from marathon_pipeline.sources.validators import Validators

_TOO_MANY = 429
_TRANSIENT_STATUS = frozenset({408, 425, 429})
_MAX_PAGE_BYTES = 64 * 2**20

# What sites say in words only: (reason, transient, pattern); the first that fits.
_SAID = [
    (reason, transient, re.compile(pattern, re.IGNORECASE))
    for reason, transient, pattern in (
        ("bot_check", True, r"not a bot|captcha|unusual traffic|ip( address)? is (likely )?(being )?blocked"),
        ("rate_limited", True, r"rate.?limited|try again later"),
        ("age_restricted", False, r"confirm your age|age.?restricted|inappropriate for some users"),
        ("geo_blocked", False, r"in your (country|region|location)|geo.?restrict"),
        (
            "private",
            False,
            r"\bprivate\b|members.only|join this channel|requires payment|log ?in|sign in|registered users",
        ),
        ("live", False, r"live event|live ?stream|premieres? (in|will)|is not currently live"),
        ("drm", False, r"\bDRM\b"),
        (
            "removed",
            False,
            r"removed|no longer available|terminated|been deleted|does not exist|video (is )?unavailable",
        ),
        ("unsupported_url", False, r"no connection adapters"),
        ("unsupported_stream", False, r"ffmpeg exited"),  # encrypted, or of a protocol that is not allowed
        ("no_video_found", False, r"no video|unsupported url|format is not available|did not get any data"),
        ("disk_full", True, r"no space left|quota exceeded"),
        ("timeout", True, r"timed? ?out"),
        ("connection", True, r"more expected|connection|unable to download|reset by peer|content too short|fragment"),
    )
]


class _OneVideo(YoutubeDL):  # type: ignore[misc]
    """One video a URL, over http and https only; what a server refuses for now is asked for again, and no more often
    than the settings say, whichever part of yt-dlp asks."""

    def __init__(
        self,
        options: dict[str, Any],
        folder: Path,
        settings: DownloadSettings,
        asked: Callable[[], None],
        stays: Callable[[str], None],
    ) -> None:
        self._settings, self._validators, self._asked, self._stays = settings, Validators(folder), asked, stays
        self._refused: dict[str, list[HTTPError]] = {}
        self.given_up: HTTPError | None = None  # the last that a request ended in though it may pass
        super().__init__(options)

    def urlopen(self, req: Request | str) -> Response:
        request = Request(req) if isinstance(req, str) else req
        if not _is_web(request.url):
            raise Failed("unsupported_url", f"{request.url[:200]} is neither http nor https")
        self._stays(request.url)
        self._validators.ask(request)
        refused = self._refused.setdefault(request.url, [])
        while True:
            if len(refused) > self._settings.retries:
                self.given_up = refused[-1]
                raise self.given_up
            self._asked()
            try:
                response = super().urlopen(request)
            except NoSupportingHandlers as error:  # each took what was refused to it for a fault of its own
                raise next((each for each in error.unexpected_errors if isinstance(each, Failed)), error) from None
            except HTTPError as error:
                self._stays(error.response.url)
                if error.status == _TOO_MANY:  # yt-dlp would swallow it; who paces the downloads has to hear of it
                    raise failure_of(error) from None
                if not _for_now(error.status):
                    raise
                refused.append(error)
                said = _said(error)
                wait = 2.0 ** (len(refused) - 1) if said is None else said
                if wait > self._settings.max_wait_seconds:
                    refused += [error] * self._settings.retries
                elif len(refused) <= self._settings.retries:
                    time.sleep(wait)
            else:
                self._stays(response.url)
                if _opted_out(response.headers.get("X-Robots-Tag", "")):
                    raise Failed("opted_out", "the server says that it is not for training (X-Robots-Tag: noai)")
                self._validators.keep(request, response)
                return _with_small_pages(response)

    def process_ie_result(self, ie_result: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if ie_result.get("_type") in ("playlist", "multi_video"):
            raise Failed("playlist", "the URL names several videos: list each of them in the manifest")
        if ie_result.get("_type") in ("url", "url_transparent"):
            self._stays(ie_result["url"])
        if ie_result.get("is_live") or ie_result.get("live_status") in ("is_live", "is_upcoming"):
            raise Failed("live", "the URL is a live stream")
        return super().process_ie_result(ie_result, *args, **kwargs)

    def dl(self, name: str, info: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        for each in info.get("requested_formats") or [info]:
            url = str(each.get("url", ""))
            if url and not _is_web(url):  # yt-dlp would leave it to another program, such as rtmpdump
                raise Failed("unsupported_stream", f"{url[:200]} is neither http nor https")
        return super().dl(name, info, *args, **kwargs)


def _is_web(url: str) -> bool:
    return urlsplit(url).scheme in ("http", "https")


def _stays(limits: LimitSettings, own: str, url: str) -> None:
    """Raises Failed where a URL belongs to another site that the job names: a download has leave to ask its own."""
    with contextlib.suppress(SourceError):  # a bare id, say
        url = canonical_url(url)
    if limits.site_of(url) in limits.named.keys() - {own}:
        raise Failed("elsewhere", f"it leads to {url[:200]}: list the video by its address there")


class _Silent:
    def debug(self, message: str) -> None: ...
    def info(self, message: str) -> None: ...
    def warning(self, message: str) -> None: ...
    def error(self, message: str) -> None: ...


def download(
    url: str,
    folder: Path,
    settings: DownloadSettings,
    progress: Progress | None,
    asked: Callable[[], None],
    told: Callable[[Iterable[str]], None],
) -> Path:
    """Download the one video that a URL names into `folder`, resuming what is there. Raises Failed.

    told: called with all that its site calls the channel that it is of.
    """

    def watch(state: dict[str, Any]) -> None:
        done = state.get("downloaded_bytes") or 0
        total = state.get("total_bytes") or state.get("total_bytes_estimate")
        if max(done, state.get("total_bytes") or 0) > settings.max_bytes:
            raise Failed("too_large", f"more than max_bytes, {settings.max_bytes:,}")
        if progress:
            progress(int(done), int(total) if total else None)

    stays = partial(_stays, settings.limits, settings.limits.site_of(url))
    downloader: _OneVideo | None = None
    try:
        options = _options(folder, settings) | {"progress_hooks": [watch]}
        with (
            only_public_but(url, named=lambda host: stays(f"https://{host}/")),
            _at_most(settings.max_seconds),
            _OneVideo(options, folder, settings, asked, stays) as downloader,
        ):
            info = downloader.extract_info(url) or {}
    except _TooSlow:
        raise Failed("too_slow", f"not there after {settings.max_seconds:g} s", transient=True) from None
    except (YoutubeDLError, OSError, ValueError, HTTPException) as error:
        failure, given_up = failure_of(error), downloader.given_up if downloader else None
        if failure.reason == "extractor" and given_up:  # yt-dlp went on, and found nothing in what was left
            failure = failure_of(given_up)
        raise failure from None
    if not info.get("requested_downloads"):
        raise Failed("no_video_found", "yt-dlp found nothing to download")
    told(str(info[name]) for name in CHANNEL_FIELDS if info.get(name))
    return Path(info["requested_downloads"][0]["filepath"])


class _TooSlow(BaseException):
    """No `Exception`: yt-dlp catches those in many places, and goes on."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Ends what takes longer, whatever it waits for: a server that drips is never silent for long enough to time out.

    By an alarm, which only a process's main thread can set; a worker's work runs there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _with_small_pages(response: Response) -> Response:
    """A page is read in one go, a video in blocks: an endless page would fill the memory."""
    read = response.read

    def bounded(amount: int | None = None) -> bytes:
        data: bytes = read(_MAX_PAGE_BYTES + 1 if amount is None or amount < 0 else amount)
        if amount is None and len(data) > _MAX_PAGE_BYTES:
            raise Failed("too_large", f"a page of more than {_MAX_PAGE_BYTES:,} bytes")
        return data

    response.read = bounded
    return response


def _opted_out(robots: str) -> bool:
    """Whether a page's or a file's X-Robots-Tag asks that no model is trained on it, as img2dataset reads it."""
    return any(each.rpartition(":")[2].strip().lower() in ("noai", "noimageai") for each in robots.split(","))


def _for_now(status: int) -> bool:
    return status in _TRANSIENT_STATUS or status >= 500


def _said(error: HTTPError) -> float | None:
    """How long a server asks to be left alone, in seconds (RFC 9110, 10.2.3); None where it does not say."""
    said = error.response.headers.get("Retry-After", "") if error.response else ""
    if said.isdecimal():
        return float(said[:9])
    with contextlib.suppress(ValueError, TypeError, OverflowError):  # a date, or nonsense
        date = parsedate_to_datetime(said)
        return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time())
    return None


def _options(folder: Path, settings: DownloadSettings) -> dict[str, Any]:
    return {
        "paths": {"home": str(folder)},
        "outtmpl": "video.%(ext)s",  # never a name that a site chose
        "format": "bv*+ba/b" if settings.audio else "bv*/b",
        "format_sort": [f"res:{settings.max_height}", "vcodec:h264"],
        "noplaylist": True,
        "retries": settings.retries,
        "fragment_retries": settings.retries,
        "extractor_retries": settings.retries,
        "skip_unavailable_fragments": False,  # a video with holes would pass as whole
        "socket_timeout": settings.timeout_seconds,
        "cookiefile": _cookies(settings.cookies) if settings.cookies else None,
        "geo_bypass": False,  # a made-up `X-Forwarded-For` for sites that serve one country
        "cachedir": False,
        "updatetime": False,
        "fixup": "never",
        "ffmpeg_location": ffmpeg_binary(),
        "external_downloader": {"m3u8": "native"},
        # a hostile playlist names local files and addresses of this network: an ffmpeg fetches nothing, and merges
        "external_downloader_args": {"ffmpeg_i": ["-protocol_whitelist", "pipe"]},
        "postprocessor_args": {"merger+ffmpeg_i": ["-protocol_whitelist", "file,pipe"]},
        "enable_file_urls": False,
        "logger": _Silent(),
        "quiet": True,
        "noprogress": True,
        "color": "no_color",
    }


def _cookies(path: Path) -> io.StringIO:
    """A copy: yt-dlp writes its cookies back to the file that it is given, and many workers share this one."""
    try:
        return io.StringIO(cookies_of(path))
    except UserError as error:  # it was fine when the run began
        raise Failed("cookies", str(error), transient=True) from None


def failure_of(error: BaseException) -> Failed:
    """The typed reason for an error that yt-dlp raised; `http_<status>` where a server answered with one."""
    kept = re.sub(r"^ERROR: |; please report this issue on.*|\(caused by .*", "", str(error), flags=re.DOTALL)
    message = " ".join(kept.split())[:300] or type(error).__name__
    for cause in _causes(error):
        match cause:
            case Failed():
                return cause
            case HTTPError():
                wait = _said(cause) or 0.0
                return Failed(f"http_{cause.status}", message, transient=_for_now(cause.status), retry_after=wait)
            case GeoRestrictedError():
                return Failed("geo_blocked", message)
            case UserNotLive():
                return Failed("live", message)
            case UnsupportedError():
                return Failed("no_video_found", message)
            case UnsupportedRequest() | NoSupportingHandlers():
                return Failed("unsupported_url", message)
            case CertificateVerifyError():
                return Failed("certificate", message)
            case OSError() if cause.errno in (errno.ENOSPC, errno.EDQUOT):
                return Failed("disk_full", message, transient=True)
    if any(isinstance(cause, TransportError) for cause in _causes(error)):
        return Failed("timeout" if "timed out" in message else "connection", message, transient=True)
    said = re.sub(r"^\[[^]]*\] [^ ]+: ", "", message)  # without the extractor and the video's id
    for reason, transient, pattern in _SAID:
        if pattern.search(said):
            return Failed(reason, message, transient=transient)
    return Failed("extractor", message)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it says it came from, outermost first."""
    seen: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop(0)
        if isinstance(cause, BaseException) and not any(cause is other for other in seen):
            seen.append(cause)
            yield cause
            waiting += [
                (getattr(cause, "exc_info", None) or (None, None))[1],
                getattr(cause, "cause", None),
                cause.__cause__,
            ]
