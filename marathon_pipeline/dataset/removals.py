"""The removal list: what was purged, and must not come back under whatever name.

Each entry is an object of its own under `removals/`, so that one can be added at any time, also while a run holds the
lease. Who holds that carries it out.
"""

import hashlib
import json

from pydantic import BaseModel, ConfigDict, ValidationError

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.records import Source


class Removal(BaseModel):
    """What of a source is remembered: hashes, since the list outlives the rows and shall not tell what was in them."""

    model_config = ConfigDict(frozen=True)

    source_id: str
    url: str = ""  # sha256 of the canonical URL
    contents: tuple[str, ...] = ()  # sha256 of the file; none where it never was here

    @staticmethod
    def of(source: Source, contents: tuple[str, ...]) -> "Removal":
        known = {*contents, source.sha256} - {""}
        return Removal(source_id=source.source_id, url=hash_of_url(source.url), contents=tuple(sorted(known)))


def hash_of_url(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest() if canonical else ""


class Removals:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._seen: set[str] = set()
        self.ids: set[str] = set()
        self.urls: dict[str, str] = {}  # to ids
        self.contents: set[str] = set()
        self.refresh()

    def refresh(self) -> bool:
        """Read what was added since; whether there was anything."""
        new = [key for key in self._storage.keys("removals") if key not in self._seen]
        for key in new:
            self._seen.add(key)
            source_id = key.rpartition("/")[2].removesuffix(".json")
            try:
                self._note(Removal.model_validate(json.loads(self._storage.read(key))))
            except (ValueError, ValidationError):
                self._note(Removal(source_id=source_id))  # damaged: its name alone still counts
        return bool(new)

    def add(self, removal: Removal) -> None:
        key = f"removals/{removal.source_id}.json"
        self._storage.write(key, removal.model_dump_json().encode())
        self._note(removal)

    def takes(self, source: Source) -> bool:
        """Whether a source was purged: by its id, its URL, or its content where that is known."""
        return source.source_id in self.ids or hash_of_url(source.url) in self.urls or source.sha256 in self.contents

    def _note(self, removal: Removal) -> None:
        self.ids.add(removal.source_id)
        self.contents |= set(removal.contents) - {""}
        if removal.url:
            self.urls[removal.url] = removal.source_id
