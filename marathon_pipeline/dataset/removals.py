"""The removal list: what was purged, and must not come back under whatever name.

Each entry is an object of its own under `removals/`, so that one can be added at any time, also while a run holds the
lease. Who holds that carries it out. An entry outlives the rows and shall not tell what was in them: it holds keyed
hashes only, by a random key of this dataset, so that nobody without the key can try out ids or URLs either.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Source, Video

KEY, FOLDER = "removals.key", "removals"
CHANNEL_FIELDS = ("channel", "channel_id", "channel_url", "uploader", "uploader_id", "uploader_url")  # of yt-dlp
Kind = Literal["id", "url", "content", "channel"]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]  # keyed hashes of all that it goes by; the first one is the entry's own name


class _PlainEntry(BaseModel):
    """As entries were written before there was a key."""

    source_id: str
    url: str = ""  # sha256 of the canonical URL
    contents: tuple[str, ...] = ()


class Removals:
    """Raises UserError where there are entries, and their key is gone or no key."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        self._key, self._kept = _key_of(self._storage)
        self._seen: set[str] = set()
        self._hashes: set[str] = set()
        self.entries: frozenset[str] = frozenset()  # never changed, but replaced: who keeps it sees what came since
        self._plain: dict[str, tuple[str, ...]] = {}  # the keys of old entries, and what they hold

    def refresh(self) -> bool:
        """Read what was added since; whether there was anything."""
        new = [key for key in self._storage.keys(FOLDER) if key not in self._seen]
        if new and not self._kept and self._storage.exists(KEY):
            self._forget()  # hashed by a key that was made up for as long as there was none
            return self.refresh()
        entries = set()
        for key, data in zip(new, self._storage.read_all(new), strict=True):
            name = key.rpartition("/")[2].removesuffix(".json")
            keyed = re.fullmatch("[0-9a-f]{64}", name) is not None
            if keyed and not self._kept:
                raise UserError(
                    f"{self._storage.url}/{KEY} is gone, and without it nobody can tell what was purged; put it back "
                    "from a copy of the dataset"
                )
            names = _names_in(data, (name,)) if keyed else self._hashed_plain(key, name, data)
            entries.add(names[0])
            self._hashes.update(names)
        self.entries |= entries
        self._seen.update(new)
        return bool(new)

    def hash(self, kind: Kind, value: str) -> str:
        """The keyed hash of a name: HMAC-SHA256, in hex."""
        inner = hashlib.sha256(value.encode()).hexdigest() if kind == "url" else value
        return self._mac(kind, inner)

    def holds(self, kind: Kind, value: str) -> bool:
        return bool(self._hashes and value) and self.hash(kind, value) in self._hashes

    def takes(self, source: Source) -> bool:
        """Whether a source was purged: by its id, URL or channel, or by its content where that is known."""
        if not self._hashes:
            return False
        known: tuple[tuple[Kind, str], ...] = (
            ("id", source.source_id),
            ("url", source.url),
            ("content", source.sha256),
        )
        return any(self.holds(kind, value) for kind, value in known) or any(
            self.holds("channel", channel) for channel in channels_of(source)
        )

    def entry(self, source_id: str) -> str:
        """The name of a source's own entry, whether it is there or not."""
        return self.hash("id", source_id)

    def add(
        self,
        source_id: str,
        *,
        ids: Iterable[str] = (),
        url: str = "",
        contents: Iterable[str] = (),
    ) -> str:
        """Put a source on the list, with whatever else it goes by. Returns the entry's name."""
        self._keep_key()
        also: list[tuple[Kind, str]] = [("id", each) for each in sorted(set(ids) - {source_id})]
        also += [("url", url), *(("content", sha256) for sha256 in sorted(set(contents)))]
        names = (self.entry(source_id), *(self.hash(kind, value) for kind, value in also if value))
        return self._write(names)

    def add_channel(self, channel: str) -> str:
        """Keep a channel's videos out, also those that are not known yet."""
        self._keep_key()
        return self._write((self.hash("channel", channel_key(channel)),))

    def migrate(self) -> None:
        """Write old entries, which hold ids, as keyed ones."""
        if self._plain:
            self._keep_key()
        for key, names in self._plain.items():
            self._write(names)
            self._storage.remove(key)
        self._plain = {}

    def _write(self, names: tuple[str, ...]) -> str:
        key = f"{FOLDER}/{names[0]}.json"
        if key in self._seen:  # what it goes by is added to what is known
            names = tuple(dict.fromkeys([*names, *_names_in(self._storage.read(key), ())]))
        self._storage.write(key, _Entry(names=names).model_dump_json().encode())
        self._seen.add(key)
        self.entries |= {names[0]}
        self._hashes.update(names)
        return names[0]

    def _keep_key(self) -> None:
        if self._kept:
            return
        self._storage.create_private(KEY, f"{self._key.hex()}\n".encode())
        key, self._kept = _key_of(self._storage)
        if key != self._key:  # somebody else was first
            self._forget()
            self.refresh()

    def _hashed_plain(self, key: str, name: str, data: bytes) -> tuple[str, ...]:
        try:
            entry = _PlainEntry.model_validate(json.loads(data))
        except (ValueError, ValidationError):
            entry = _PlainEntry(source_id=name)  # damaged: its name alone still counts
        names = [self._mac("id", entry.source_id), *([self._mac("url", entry.url)] if entry.url else [])]
        names += [self._mac("content", sha256) for sha256 in entry.contents if sha256]
        self._plain[key] = tuple(names)
        return self._plain[key]

    def _mac(self, kind: Kind, value: str) -> str:
        return hmac.digest(self._key, f"{kind} {value}".encode(), "sha256").hex()


def channel_key(name: str) -> str:
    """A channel's name in whatever case and with whatever spaces it is written."""
    return " ".join(name.split()).casefold()


def channels_of(source: Source, videos: Iterable[Video] = ()) -> Iterator[str]:
    """What the channel or the uploader of a source is called in its metadata, and by the site that its videos are from:
    by `channel_key`, and as it stands there, which is how lists of earlier versions have it."""
    metadata = json.loads(source.metadata)
    said = [metadata.get(field) for field in CHANNEL_FIELDS]
    for name in (*said, *(channel for video in videos for channel in video.channels)):
        if isinstance(name, str) and name.strip():
            yield from {channel_key(name), name}


def _key_of(storage: Storage) -> tuple[bytes, bool]:
    """The key, and whether it is the one that is kept: else it is made up, and nothing was hashed by it before."""
    try:
        text = storage.read(KEY).strip()
    except FileNotFoundError:
        return secrets.token_bytes(32), False
    if not re.fullmatch(rb"[0-9a-f]{64}", text):
        raise UserError(f"{storage.url}/{KEY} is damaged; put it back from a copy of the dataset")
    return bytes.fromhex(text.decode()), True


def _names_in(data: bytes, damaged: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return _Entry.model_validate_json(data).names or damaged
    except ValidationError:
        return damaged
