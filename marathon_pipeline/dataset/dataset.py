"""A dataset: a folder or object-store URL that holds all that one build has produced."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from marathon_pipeline.dataset import parquet
from marathon_pipeline.dataset.lease import Lease
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.dataset.removals import Removals
from marathon_pipeline.dataset.reviews import Reviews
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Source

FORMAT_VERSION = 1
_HEAD = "dataset.json"
_SOURCES = "sources.parquet"
_BESIDE = ("extract_features",)  # for training: a video is finished without it


class NoDataset(UserError):
    """There is no dataset where one was looked for."""


@dataclass(frozen=True)
class Finished:
    video_id: str
    source_id: str
    tasks: tuple[str, ...]  # those whose QA of this video is verified
    seconds: float  # decoded length
    events: int


class Dataset:
    """Opens a dataset. Raises NoDataset where there is none (unless `create`), UserError for another format."""

    _removals: Removals | None = None

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.storage = Storage(url)
        self.url = self.storage.url
        absent = f"{url}: no dataset there (no {_HEAD}); give the folder or URL that a run wrote"
        if not create and self.storage.root is not None and not self.storage.root.is_dir():
            raise NoDataset(absent)
        try:
            head = json.loads(self.storage.read(_HEAD))
        except FileNotFoundError:
            if not create:
                raise NoDataset(absent) from None
            head = {"format": FORMAT_VERSION}
            self.storage.write(_HEAD, json.dumps(head).encode())
        except ValueError:
            mend = f'write {{"format": {FORMAT_VERSION}}} into it to go on'
            raise UserError(f"{url}/{_HEAD} is damaged; {mend}") from None
        if head.get("format") != FORMAT_VERSION:
            raise UserError(
                f"{url}: format {head.get('format')}, this version reads format {FORMAT_VERSION}; "
                "use the version of marathon that wrote it, or begin a new dataset"
            )
        self.tables = Tables(self.storage)

    def __reduce__(self) -> tuple[object, ...]:
        if self.storage.root is not None:
            return Dataset, (self.url,)  # which raises on a node that does not see the folder
        return _in_worker, (self.storage,)

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.storage)

    def lease(self) -> Lease:
        return Lease(self.storage)

    def sources(self) -> dict[str, Source]:
        """Every source that was ever put into the dataset, by id, in the order of the ids."""
        try:
            rows = parquet.decode(Source, self.storage.read(_SOURCES))
        except FileNotFoundError:
            return {}
        except parquet.Damaged as error:
            raise UserError(
                f"{self.url}/{_SOURCES} is damaged ({error}); remove it and run the job again, "
                "with every --input that it was ever given"
            ) from None
        return {source.source_id: source for source in rows}

    def write_sources(self, sources: Iterable[Source]) -> None:
        rows = sorted(sources, key=lambda source: source.source_id)
        self.storage.write(_SOURCES, parquet.encode(Source, rows))

    def removals(self) -> Removals:
        """What was purged and must not come back, as it stands now: only what is new is read, all of it the first time.

        One object for all who ask; who has to hear of what is new by `refresh` needs one of their own.
        """
        if self._removals is None:
            self._removals = Removals(self.storage)
        else:
            self._removals.refresh()
        return self._removals

    def reviews(self) -> Reviews:
        """What people judged of the QA pairs, as it stands now. Raises UserError where a judgement is damaged."""
        return Reviews(self.storage)

    def finished(self) -> Iterator[Finished]:
        """The videos that went through every stage, in the order of their ids: what a release and an audit speak of.

        Without those that somebody asked to take down, and that are not gone yet.
        """
        removals = self.removals()
        sources = self.sources() if removals.entries else {}
        downloads: dict[str, str] = {}
        ended: set[str] = set()
        tasks: dict[str, list[str]] = {}
        seconds: dict[str, float] = {}
        events: dict[str, int] = {}
        for video_id, stage, part, status in self.ledger.rows("video_id", "stage", "part", "status"):
            if stage == "verify" and status == "ok":
                tasks.setdefault(video_id, []).append(part)
            elif not part and status != "ok" and stage not in _BESIDE:
                ended.add(video_id)
        for source_id, videos in self.ledger.rows("video_id", "videos", stages=["download"]):
            downloads.update(dict.fromkeys(videos, source_id))
        seconds.update(self.ledger.rows("video_id", "video_seconds", stages=["segment"]))
        events.update(self.ledger.rows("video_id", "items", stages=["caption_events"]))
        for video_id in sorted(tasks):
            source_id = downloads.get(video_id)
            if source_id is not None and video_id not in ended and source_id not in ended:
                if removals.takes(sources.get(source_id, Source(source_id=source_id))):
                    continue
                own = tuple(sorted(tasks[video_id]))
                yield Finished(video_id, source_id, own, seconds.get(video_id, 0.0), events.get(video_id, 0))


def _in_worker(storage: Storage) -> Dataset:
    """Nothing is asked: a store that fails while Ray unpacks it would be taken for the death of the worker."""
    dataset = Dataset.__new__(Dataset)
    dataset.storage, dataset.url, dataset.tables = storage, storage.url, Tables(storage)
    return dataset


def media_key(kind: str, owner: str, suffix: str) -> str:
    """Where a file of a video lies: `proxies/<2 hex>/<video_id>.mp4`, `originals/<2 hex>/<source_id>.<ext>`."""
    return f"{kind}/{hashlib.sha256(owner.encode()).hexdigest()[:2]}/{owner}{suffix}"


def originals(storage: Storage) -> dict[str, str]:
    """The keys of all downloaded sources that are kept, by source: of many in few requests."""
    return {key.rpartition("/")[2].partition(".")[0]: key for key in storage.keys("originals")}


def original_key(storage: Storage, source_id: str) -> str | None:
    """The key of a downloaded source, whatever its extension; None where it is not kept."""
    stem = media_key("originals", source_id, ".")
    return next((key for key in storage.keys(stem.rpartition("/")[0]) if key.startswith(stem)), None)
