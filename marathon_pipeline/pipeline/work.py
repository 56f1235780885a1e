"""What a worker does: one stage's work on one video. Only ids and outcomes come in and go out."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from marathon_pipeline.annotators.protocol import Written
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.journal import Answers, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, Filtered, Unfinished, UserError, defect
from marathon_pipeline.records import (
    Clip,
    ClipCaption,
    Event,
    Outcome,
    Record,
    Source,
    Status,
    Video,
    content_hash,
    only,
)
from marathon_pipeline.stages.stage import Given, Replacement, Stage, is_served, of_part

T = TypeVar("T")


@dataclass(frozen=True)
class Order:
    """What a worker is to do: which parts of a stage's work on an owner, and the fingerprint to stamp each with."""

    owner: str
    source_id: str
    wanted: dict[str, str]
    attempts: dict[str, int]
    redo: bool
    all_tasks: bool  # no other part of the stage's work on the owner is done
    source: Source | None  # for `download`, which reads no table
    rounds: dict[str, tuple[int, int]] = field(default_factory=dict)  # of asking served models, see `Answers`
    replace: dict[str, Replacement] = field(default_factory=dict)  # parts of which only these rows are done again
    asking: int = 1  # processes that ask servers now, with the one that gets this

    def done(self, stamp: Mapping[str, Outcome]) -> dict[str, Outcome]:
        """What a file holds of it already: what is done again carries the number of its round."""
        return {
            part: outcome
            for part, outcome in stamp.items()
            if self.wanted.get(part) == outcome.fingerprint
            and (not self.redo or outcome.rounds == self.rounds.get(part, (0, 0)) != (0, 0))
        }


class Caller:
    """An actor that works on many videos at once, because it mostly waits for servers."""

    def __init__(self, stages: dict[str, Stage], dataset: Dataset) -> None:
        self._stages, self._dataset = stages, dataset

    async def carry_out(self, stage: str, order: Order) -> list[Outcome]:
        return await carry_out(self._stages[stage], self._dataset, order)

    async def stop(self) -> None:
        """Ask nothing more."""
        for stage in self._stages.values():
            if stage.annotator is not None:
                stage.annotator.stop()

    async def close(self) -> list[Written]:
        """All has ended. What was written down to be asked elsewhere."""
        annotators = {id(stage.annotator): stage.annotator for stage in self._stages.values() if stage.annotator}
        written = [await annotator.close() for annotator in annotators.values()]
        return [each for each in written if each is not None]


async def carry_out(stage: Stage, dataset: Dataset, order: Order) -> list[Outcome]:
    """Do the work and write its tables, whole. Nothing is raised for a bad video.

    Every part ends in an outcome, but for those that have to wait for a later run.
    """
    if stage.annotator is not None:
        stage.annotator.share(order.asking)
    journal = Journal(dataset.storage, stage.name, order.owner)
    try:
        done, rows = await _beside(dataset.storage, partial(_opened, stage, dataset, order, journal))
    except (Failed, UserError) as error:  # a UserError: this machine's keys for the store are no good
        failure = error if isinstance(error, Failed) else Failed("storage", str(error), transient=True)
        return [_outcome(stage, order, part, 0.0, failure) for part in order.wanted]
    todo = [part for part in order.wanted if part not in done]
    if not todo:
        return list(done.values())
    try:
        if isinstance(rows, Exception):
            raise rows
        if is_served(stage):
            results = await asyncio.gather(*(_run_part(stage, rows, order, part, journal) for part in todo))
        else:  # nothing is waited for: one by one, each is told its own time
            results = [await _run_part(stage, rows, order, part, journal) for part in todo]
        ended = [result for result in results if result is not None]
        last = journal if len(ended) == len(todo) else None
        await _beside(dataset.storage, partial(_close, stage, dataset, order, ended, last))
    except Exception as error:
        of_all = _failure(error)
        return [*done.values(), *(_outcome(stage, order, part, 0.0, of_all) for part in todo)]
    return [*done.values(), *(outcome for outcome, _ in ended)]


async def _beside(storage: Storage, work: Callable[[], T]) -> T:
    """In a thread, where a store takes its time over it. A local disk takes less than threads that wait for each other
    take from a process that asks a hundred questions a second."""
    return work() if storage.root is not None else await asyncio.to_thread(work)


def _opened(
    stage: Stage, dataset: Dataset, order: Order, journal: Journal
) -> tuple[dict[str, Outcome], dict[type[Record], Sequence[Record]] | Exception]:
    """What is done of it, and what the rest is made from, or why that cannot be read."""
    done = order.done(dataset.tables.stamp(stage.writes[-1], order.owner, order.wanted))
    if done.keys() == order.wanted.keys():
        return done, {}
    try:
        if is_served(stage):
            journal.load()
        return done, _read(stage, dataset, order)
    except Exception as error:
        return done, error


def _read(stage: Stage, dataset: Dataset, order: Order) -> dict[type[Record], Sequence[Record]]:
    def rows(record: type[Record]) -> Sequence[Record]:
        if record is Source:
            return [order.source] if order.source else []
        if record is Video:
            return [v for v in dataset.tables.read_written(Video, order.source_id) if v.video_id == order.owner]
        return dataset.tables.read_written(record, order.owner)

    return {record: rows(record) for record in (*stage.reads, *(stage.writes if order.replace else ()))}


async def _run_part(
    stage: Stage, given: Mapping[type[Record], Sequence[Record]], order: Order, part: str, journal: Journal
) -> tuple[Outcome, Sequence[Record]] | None:
    """None where it has to wait for a later run."""
    began = time.monotonic()
    answers = Answers(journal, part, order.rounds.get(part, (0, 0)))
    rows: Sequence[Record] = ()
    failure: Failed | Filtered | None = None
    try:
        rows = await stage.run(Given(of_part(given, part), answers, order.replace.get(part)), part)
    except Unfinished:
        return None
    except Exception as error:
        failure = _failure(error)
    outcome = _outcome(stage, order, part, time.monotonic() - began, failure)
    outcome = outcome.model_copy(
        update={
            "lost": dict(answers.lost),
            "tallies": dict(answers.tallies),
            "judge": answers.judge,
            "probed": answers.probed,
            "usage": journal.usage(part),
            "began": round(answers.began, 3),
        }
    )
    if failure is not None:
        return outcome, ()
    return outcome.model_copy(update=_told(stage, rows)), rows


def _told(stage: Stage, rows: Sequence[Record]) -> dict[str, object]:
    """What an outcome says of the rows; they are gone through once, since packed ones are read back each time."""
    items, seconds, videos = 0, 0.0, list[str]()

    def passing() -> Iterator[Record]:
        nonlocal items, seconds
        for row in rows:
            items += isinstance(row, stage.writes[-1])
            if isinstance(row, Video):
                videos.append(row.video_id)
            elif isinstance(row, Clip | ClipCaption | Event):
                seconds = max(seconds, row.end)
            yield row

    content = content_hash(passing())
    return {"content": content, "items": items, "videos": tuple(videos), "video_seconds": seconds}


def _outcome(stage: Stage, order: Order, part: str, seconds: float, error: Failed | Filtered | None = None) -> Outcome:
    status: Status = "ok" if error is None else "filtered" if isinstance(error, Filtered) else "failed"
    return Outcome(
        video_id=order.owner,
        stage=stage.name,
        part=part,
        status=status,
        reason="" if error is None else error.rule if isinstance(error, Filtered) else error.reason,
        message="" if error is None else error.message,
        transient=isinstance(error, Failed) and error.transient,
        host=socket.gethostname() if status == "failed" else "",
        attempts=order.attempts.get(part, 0) + 1,
        retry_after=error.retry_after if isinstance(error, Failed) else 0.0,
        seconds=round(seconds, 3),
        fingerprint=order.wanted[part],
        rounds=order.rounds.get(part, (0, 0)),
        tries=order.replace[part].tries if part in order.replace else 0,
    )


def _failure(error: Exception) -> Failed | Filtered:
    if isinstance(error, Failed | Filtered):
        return error
    if isinstance(error, UserError):
        return Failed("bad_input", str(error))
    if isinstance(error, OSError) and error.errno == 28:
        return Failed("disk_full", "no space left on the device", transient=True)
    return Failed("defect", defect(error))


def _close(
    stage: Stage,
    dataset: Dataset,
    order: Order,
    ended: list[tuple[Outcome, Sequence[Record]]],
    journal: Journal | None,
) -> None:
    """journal: where its last word is said."""
    _write(stage, dataset, order, ended)
    if journal is not None:
        journal.join()


def _write(
    stage: Stage,
    dataset: Dataset,
    order: Order,
    ended: list[tuple[Outcome, Sequence[Record]]],
) -> None:
    """Write what ended well; a stage that works by task keeps the rows of the other tasks in the file."""
    redone = {outcome.part for outcome, _ in ended}
    by_task = stage.parts != ("",)
    if not by_task and all(outcome.status != "ok" for outcome, _ in ended):
        return
    stamp = {outcome.part: outcome for outcome, _ in ended if outcome.status != "failed"}
    for record in stage.writes:
        rows = (row for _, own in ended for row in only(own, record))
        if not by_task:
            dataset.tables.write(record, order.owner, rows, stamp)
            continue
        written = list(rows)
        try:
            dataset.tables.write_tasks(record, order.owner, redone, written, stamp)
        except Failed as failure:  # where every task in a damaged file is done anew, nothing is lost
            if not order.all_tasks or failure.reason != "table_damaged":
                raise
            dataset.tables.remove(record, order.owner)
            dataset.tables.write_tasks(record, order.owner, redone, written, stamp)
