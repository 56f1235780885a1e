"""Where a run stands: what its display shows, and what its lease tells to whoever asks for it from elsewhere."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from pydantic import BaseModel, ValidationError

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.lease import Lease, holder_of
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.pipeline.stage_list import STAGE_NAMES
from marathon_pipeline.pipeline.watcher import Load, Watcher
from marathon_pipeline.records import Outcome
from marathon_pipeline.sources.governor import Paused

_RATE_SECONDS = 3600.0  # that the rate is taken over: videos of a run end in fits
_SAMPLE_SECONDS = 10.0
_LAST_RUN = "last_run"  # in the note of a command that is no run


class StageStanding(BaseModel):
    """What a run did in one stage, and what it has to do there now; counted as `StageStatus` is."""

    ok: int = 0
    filtered: int = 0
    failed: int = 0
    reasons: dict[str, int] = {}  # of what is not ok
    video_seconds: float = 0.0  # worked on
    in_flight: int = 0  # pieces of work, and so are those that wait: a video's tasks are one
    waiting: int = 0  # could begin now


class Standing(BaseModel):
    run: str = ""  # its name: that of its log
    user: str = ""
    submission: str = ""  # the id of Ray's job that it is, where it was submitted as one
    doing: str = "begins"  # `stages`, then `release`; at the end `done`, `stopped` or `broke off`
    expected: int = 0  # videos that it is to bring to their end, with sources whose videos are not known yet
    finished: int = 0
    began: float = 0.0  # in seconds since 1970
    videos_an_hour: float = 0.0  # of the last hour
    stages: dict[str, StageStanding] = {}
    downloads: int = 0
    downloaded_bytes: int = 0
    paused: list[Paused] = []
    stopping: str = ""  # why nothing more is begun

    @property
    def seconds_left(self) -> float | None:
        """At the rate of the last hour; None where nothing ended in it."""
        left = self.expected - self.finished
        return left / self.videos_an_hour * 3600 if self.videos_an_hour else None


class Account(Watcher):
    """Keeps the account of a run while it goes."""

    def __init__(self, standing: Standing | None = None) -> None:
        self.standing = standing or Standing(began=time.time())
        self._ends: deque[tuple[float, int]] = deque()  # when, and how many videos had come to their end by then

    def expect(self, videos: int) -> None:
        self.standing.expected += videos

    def finished(self) -> None:
        self.standing.finished += 1

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            stage = self._stage(outcome.stage)
            setattr(stage, outcome.status, getattr(stage, outcome.status) + 1)
            stage.video_seconds += outcome.video_seconds
            if outcome.status != "ok":
                stage.reasons[outcome.reason] = stage.reasons.get(outcome.reason, 0) + 1

    def loaded(self, load: Load) -> None:
        for name in {*self.standing.stages, *load.in_flight, *load.waiting}:
            stage = self._stage(name)
            stage.in_flight, stage.waiting = load.in_flight.get(name, 0), load.waiting.get(name, 0)
        self.standing.downloads, self.standing.downloaded_bytes = load.downloads, load.downloaded_bytes
        self.standing.paused = list(load.paused)
        now = time.monotonic()
        if not self._ends or now - self._ends[-1][0] > _SAMPLE_SECONDS:
            self._ends.append((now, self.standing.finished))
            if now - self._ends[0][0] > _RATE_SECONDS:
                self._ends.popleft()
        began, finished = self._ends[0]
        if now > began:
            self.standing.videos_an_hour = round((self.standing.finished - finished) / (now - began) * 3600, 3)

    def stopping(self, why: str) -> None:
        self.standing.stopping = why

    def _stage(self, name: str) -> StageStanding:
        if name not in self.standing.stages:
            known = {*self.standing.stages, name}
            self.standing.stages = {
                each: self.standing.stages.get(each, StageStanding()) for each in STAGE_NAMES if each in known
            }
        return self.standing.stages[name]


class RunStatus(BaseModel):
    """Who works on a dataset, or ran on it last, where and since when. `standing`: of a run alone."""

    state: Literal["alive", "dead", "released"]
    host: str
    process: int
    since: str
    heard: float  # when it last wrote that it is alive, in seconds since 1970
    standing: Standing | None


def run_status(storage: Storage) -> RunStatus | None:
    """None where nobody ever worked on it. One small object is read, however large the dataset is."""
    holder = holder_of(storage)
    if holder is None:
        return None
    try:
        if _LAST_RUN in holder.note and holder.state != "alive":
            return RunStatus.model_validate(holder.note[_LAST_RUN])
        standing = Standing.model_validate(holder.note) if holder.note.keys() - {_LAST_RUN} else None
    except ValidationError:  # of another version
        standing = None
    return RunStatus(
        state=holder.state,
        host=holder.host,
        process=holder.pid,
        since=holder.since,
        heard=holder.heard,
        standing=standing,
    )


@contextmanager
def held(dataset: Dataset) -> Iterator[Lease]:
    """Hold a dataset for a command that is no run: what the last run told of itself stays on record."""
    last = run_status(dataset.storage)
    with dataset.lease() as lease:
        if last is not None and last.standing is not None:
            lease.tell({_LAST_RUN: last.model_dump(mode="json")}, at_once=True)
        yield lease
