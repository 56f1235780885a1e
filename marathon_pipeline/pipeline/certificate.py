"""The papers of a purge: the order, which lasts until it is carried out, and the certificate, which stays."""

import re
from collections.abc import Iterable
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from marathon_pipeline.dataset.storage import PARTS_DAYS, Storage
from marathon_pipeline.errors import UserError

ORDERS, CERTIFICATES = "purging", "certificates"
OUTSIDE = (
    "pilots made from the dataset, which are datasets of their own: marathon purge PILOT --removals BASE",
    "exports of releases that lie outside the dataset",
    "features and other caches that a trainer made of the media",
    "batch files outside the dataset, and copies of requests that a provider of models keeps",
    "published or mirrored copies of releases, and models that were trained on them",
    "reviews and reports that were exported or sent on",
    "parts of downloads that broke off, in other machines' temporary folders where the dataset is in an object store: "
    f"the next download on each removes those that nothing was written to for {PARTS_DAYS} days",
    "backups and earlier versions that the storage itself keeps, and the local files that a manifest names",
)

Fate = Literal["scrubbed", "removed"]  # scrubbed: of what it says of a source


class _Paper(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Target(_Paper):
    """A source that is to go, and what it goes by, in clear."""

    source_id: str
    videos: tuple[str, ...]
    url: str
    path: str
    contents: tuple[str, ...]
    files: int


class Removed(_Paper):
    sources: int
    videos: int
    files: dict[str, int]  # by folder, those that are one source's or video's
    rows: dict[str, int]  # by table
    ledger: int  # lines
    bytes: int


class Order(_Paper):
    """`hashes`: of its frames that no other video has, of its questions, and of requests to served models.

    `others`: files that are nobody's by their name and said something of it, and what they came to.
    """

    number: int
    entries: tuple[str, ...]  # of the removal list
    targets: tuple[Target, ...]
    frames: tuple[str, ...]
    questions: tuple[str, ...]
    requests: tuple[str, ...]
    found: Removed
    others: dict[str, Fate] = {}

    @property
    def key(self) -> str:
        return f"{ORDERS}/{self.number:06d}.json"

    @property
    def certificate(self) -> str:
        return f"{CERTIFICATES}/{self.number:06d}.json"

    @property
    def source_ids(self) -> frozenset[str]:
        return frozenset(target.source_id for target in self.targets)


class Searched(_Paper):
    """Where was looked afterwards, and for how many names of each kind. `pictures`: files looked at by name alone."""

    files: dict[str, int]  # by folder
    pictures: int
    ids: int
    urls: int
    contents: int
    frames: int
    questions: int
    unread: dict[str, int] = {}  # files that cannot be opened, or not to their end: by key, or by folder


class Certificate(_Paper):
    """What was removed, and that nothing was found afterwards. It names sources by the keyed hashes of the list.

    Where there was nothing to remove, nothing was searched, and so nothing is said of what would have been found.
    """

    number: int
    entries: tuple[str, ...]
    sources: tuple[str, ...]
    removed: Removed
    others: dict[Fate, dict[str, int]] = {}  # files that are nobody's by their name: by key, or by folder
    releases: dict[str, str]  # withdrawn ones, and what took their places
    media: dict[str, str]
    searched: Searched | None
    found: int | None
    outside: tuple[str, ...] = OUTSIDE


P = TypeVar("P", bound=_Paper)


def open_orders(storage: Storage) -> list[Order]:
    """Raises UserError for a damaged one."""
    return _papers(storage, ORDERS, Order)


def certified(storage: Storage) -> set[str]:
    """The entries of the removal list that have a certificate. Raises UserError for a damaged one."""
    return {entry for certificate in _papers(storage, CERTIFICATES, Certificate) for entry in certificate.entries}


def _papers(storage: Storage, folder: str, kind: type[P]) -> list[P]:
    papers = []
    keys = storage.keys(folder)
    for key, data in zip(keys, storage.read_all(keys), strict=True):
        try:
            papers.append(kind.model_validate_json(data))
        except ValidationError:
            raise UserError(
                f"{storage.url}/{key} is damaged; put it back from a copy of the dataset, or remove it and purge "
                "again, which writes a new one"
            ) from None
    return papers


def next_number(storage: Storage) -> int:
    keys: Iterable[str] = [*storage.keys(ORDERS), *storage.keys(CERTIFICATES)]
    return max((int(found[1]) for key in keys if (found := re.search(r"/(\d+)\.json$", key))), default=0) + 1
