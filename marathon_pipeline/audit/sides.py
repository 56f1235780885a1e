"""What is compared: the QA of a dataset that may be released, or that of a release."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.rows import OF_PEOPLE, Pairs, Verdicts
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError, one_line
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import Format, QAPair, Record, Span, Verdict
from marathon_pipeline.release.release_file import Release, release_in
from marathon_pipeline.release.withdrawn import refuse_withdrawn

Kind = Literal["dataset", "release"]

Parts = Mapping[str, frozenset[str]]  # tasks, by video

_BATCH = 1_000  # rows of a release held at once


class Version(Record):
    """A QA pair as one side has it."""

    qa_id: str
    video_id: str
    task: str
    format: Format
    question: str
    options: tuple[str, ...]
    answer: str
    letter: str
    evidence: tuple[Span, ...]
    clip_ids: tuple[str, ...]
    annotator: str
    template_version: int


class Cost(Record):
    """Of writing QA and of its verdicts. `tokens`: of prompts and answers; `seconds`: of work, waiting included."""

    requests: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Side(Protocol):
    """`videos`, `tasks`: those that it could hold QA of."""

    name: str
    kind: Kind
    videos: frozenset[str]
    tasks: frozenset[str]

    def pairs(self, tasks: Collection[str], videos: Collection[str], but: Parts) -> Iterator[tuple[Version, bool]]:
        """Its QA, in no order, and whether each may be released. but: tasks of videos that are left out."""

    def parts(self) -> dict[str, tuple[str, int]]:
        """By task: how many pairs there are, behind a fingerprint that says all of them; a dataset has none."""

    def cost(self, tasks: Collection[str], videos: Collection[str]) -> dict[str, Cost]:
        """By task, what its QA and the verdicts have cost; nothing where that is not on record."""


class DatasetSide:
    """`gates`: what decides, beside people, which pairs may be released."""

    kind: Kind = "dataset"

    def __init__(self, dataset: Dataset, gates: Gates) -> None:
        self._dataset, self._gates = dataset, in_force(gates, dataset.ledger)
        self._reviews = dataset.reviews()
        self._finished = {video.video_id: video for video in dataset.finished()}
        self.name = _last(dataset.url)
        self.videos = frozenset(self._finished)
        self.tasks = frozenset(task for video in self._finished.values() for task in video.tasks)

    def pairs(self, tasks: Collection[str], videos: Collection[str], but: Parts) -> Iterator[tuple[Version, bool]]:
        read = self._dataset.tables.read_some
        for video_id, finished in self._finished.items():
            wanted = frozenset(finished.tasks).intersection(tasks) - but.get(video_id, frozenset())
            if not wanted or video_id not in videos:
                continue
            verdicts = {verdict.qa_id: verdict for verdict in read(Verdict, video_id, "task", wanted)}
            by_people = self._reviews.rejected(video_id)
            for pair in read(QAPair, video_id, "task", wanted):
                yield _version(pair), not self._gates.rejects(pair, verdicts.get(pair.qa_id), by_people)

    def alike(self, other: "DatasetSide", tasks: Collection[str], videos: Collection[str]) -> dict[str, frozenset[str]]:
        """By video the tasks of which both hold the same pairs and verdicts and release the same, by their ledgers."""
        found: dict[str, frozenset[str]] = {}
        known: dict[frozenset[str], frozenset[str]] = {}  # each once: most videos are alike in all
        if self._gates != other._gates:
            return found
        for video_id in sorted(self.videos.intersection(other.videos, videos)):
            if self._reviews.rejected(video_id) == other._reviews.rejected(video_id):
                both = frozenset(self._finished[video_id].tasks).intersection(other._finished[video_id].tasks, tasks)
                ours, theirs = (side._dataset.ledger.contents(video_id) for side in (self, other))
                same = frozenset(task for task in both if all(
                    (rows := ours.get((stage, task))) and rows == theirs.get((stage, task))
                    for stage in ("qa", "verify")
                ))  # fmt: skip
                if same:
                    found[video_id] = known.setdefault(same, same)
        return found

    def tally(self, parts: Parts) -> Iterator[tuple[str, bool]]:
        """Of each pair of some tasks of videos its task, and whether it may be released."""
        for video_id, tasks in parts.items():
            video = replace(self._finished[video_id], tasks=tuple(tasks))
            verdicts = Verdicts(self._dataset.tables, video, self._gates, more=())
            pairs = Pairs(self._dataset.tables, video, OF_PEOPLE)
            of_gates, rejected = verdicts.reasons(), self._reviews.rejected(video_id)
            rows = [verdicts.rows.get(qa_id) for qa_id in pairs.ids]
            of_people = [judged in rejected for judged in pairs.judged()] if rejected else [False] * len(pairs)
            for task, row, gone in zip(pairs.tasks, rows, of_people, strict=True):
                yield task, row is not None and not of_gates[row] and not gone

    def parts(self) -> dict[str, tuple[str, int]]:
        return {}

    def cost(self, tasks: Collection[str], videos: Collection[str]) -> dict[str, Cost]:
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        wanted = self._dataset.ledger.rows("part", "video_id", "seconds", "usage", stages=["qa", "verify"])
        for part, video_id, seconds, usages in wanted:
            if part in tasks and video_id in videos:
                own = found[part]
                own["milliseconds"] += round(1000 * seconds)
                for usage in usages:
                    own["requests"] += usage["requests"]
                    own["tokens"] += usage["prompt_tokens"] + usage["completion_tokens"]
        return {
            task: Cost(requests=own["requests"], tokens=own["tokens"], seconds=own["milliseconds"] / 1000)
            for task, own in found.items()
        }


class ReleaseSide:
    """Opens a release by its folder or URL. Raises UserError where it is damaged."""

    kind: Kind = "release"

    def __init__(self, storage: Storage, release: Release) -> None:
        self._storage, self._release = storage, release
        self.name = one_line(release.name)
        self.tasks = frozenset(release.tasks)
        self.videos = frozenset(str(row["video_id"]) for row in self._rows("videos.parquet", ["video_id"]))

    def pairs(self, tasks: Collection[str], videos: Collection[str], but: Parts) -> Iterator[tuple[Version, bool]]:
        for path in sorted(self._release.files):
            room, _, rest = path.partition("/")
            if room == "qa" and rest.partition("/")[0] in tasks and path.endswith(".parquet"):
                for row in self._rows(path, list(Version.model_fields)):
                    video_id, task = str(row["video_id"]), str(row["task"])
                    if video_id in videos and task in tasks and task not in but.get(video_id, ()):
                        yield self._version(path, row), True

    def parts(self) -> dict[str, tuple[str, int]]:
        return {task: (self._release.parts[f"qa/{task}"], held.qa) for task, held in self._release.tasks.items()}

    def cost(self, tasks: Collection[str], videos: Collection[str]) -> dict[str, Cost]:
        return {}

    def _rows(self, path: str, columns: list[str]) -> "Iterator[dict[str, object]]":
        try:
            with self._storage.local_file(path) as local, pq.ParquetFile(local, pre_buffer=False) as file:
                for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
                    yield from batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(path, str(error).strip().partition("\n")[0][:200]) from None

    def _version(self, path: str, row: dict[str, object]) -> Version:
        try:
            return Version.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            raise self._damaged(path, f"{first['loc'][0]}: {first['msg']}") from None

    def _damaged(self, path: str, why: str) -> UserError:
        return UserError(f"{self._storage.url}/{path} cannot be read ({why}); fetch the release again")


def open_release(url: str) -> ReleaseSide | None:
    """The release in a folder or at a URL; None where there is none. Raises UserError where it was withdrawn."""
    storage = Storage(url)
    if storage.root is not None and not storage.root.is_dir():
        return None
    refuse_withdrawn(storage)
    release = release_in(storage)
    return ReleaseSide(storage, release) if release else None


def _version(pair: QAPair) -> Version:
    own = pair.model_dump(include=set(Version.model_fields))
    return Version(annotator=pair.binding.annotator, template_version=pair.binding.template_version, **own)


def _last(url: str) -> str:
    """What a person calls it: the last part of where it lies."""
    return url.rstrip("/").rpartition("/")[2]
