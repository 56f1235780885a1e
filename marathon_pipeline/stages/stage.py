"""What a stage is: it reads some tables, writes others, and works on one video at a time."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from marathon_pipeline.annotators.protocol import Annotator
from marathon_pipeline.dataset.journal import Answers
from marathon_pipeline.errors import Unfinished
from marathon_pipeline.records import Record

R = TypeVar("R", bound=Record)
T = TypeVar("T")
E = TypeVar("E", bound=Exception)


@dataclass(frozen=True)
class Replacement:
    """Rows of a part that others are to be written for, by their ids, and which try at that it is, from 1."""

    rejected: frozenset[str]
    tries: int


class Given:
    """The rows that a stage reads, by their class, and what served models answered before.

    With a `replacement` also the rows that it wrote: all but the rejected ones are to stay as they are.
    """

    def __init__(
        self,
        rows: Mapping[type[Record], Sequence[Any]],
        answers: Answers,
        replacement: Replacement | None = None,
    ) -> None:
        self._rows, self.answers, self.replacement = rows, answers, replacement

    def all(self, record: type[R]) -> list[R]:
        return list(self._rows[record])

    def one(self, record: type[R]) -> R:
        (row,) = self._rows[record]
        return row  # type: ignore[no-any-return]


def of_part(rows: Mapping[type[Record], Sequence[Any]], part: str) -> Mapping[type[Record], Sequence[Any]]:
    """Rows without those of other tasks."""
    if not part:
        return rows
    return {record: [row for row in own if getattr(row, "task", part) == part] for record, own in rows.items()}


async def together(
    work: Sequence[Coroutine[Any, Any, T]], allowed: type[E] | tuple[type[E], ...] = ()
) -> tuple[list[T], list[E]]:
    """Do all of it, each to its end, and return what came of it and the errors of the allowed kind, in order.

    Any other error is raised once all has ended, as what servers still answer is kept; `Unfinished` where no other is.
    """
    ended = await asyncio.gather(*work, return_exceptions=True)
    errors = [each for each in ended if isinstance(each, BaseException) and not isinstance(each, allowed)]
    if errors:
        raise sorted(errors, key=lambda error: isinstance(error, Unfinished))[0]
    return (
        [each for each in ended if not isinstance(each, BaseException)],
        [each for each in ended if isinstance(each, allowed)],
    )


class Stage(Protocol):
    """One step of the pipeline.

    A stage that reads `Source` works on a source, every other one on a video. `writes`: its tables, the one that proves
    the work last. `parts`: what it does separately, in `qa` and `verify` a task each; else one nameless part.
    `settings`: all besides the rows read that decides what it writes for a part; it goes into the fingerprint.
    `version` changes whenever the same input gives other rows. `annotator`: who writes, where somebody does.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def reads(self) -> tuple[type[Record], ...]: ...
    @property
    def writes(self) -> tuple[type[Record], ...]: ...
    @property
    def annotator(self) -> Annotator | None: ...
    @property
    def parts(self) -> tuple[str, ...]: ...

    def settings(self, part: str) -> object: ...

    async def run(self, given: Given, part: str) -> Sequence[Record]:
        """Raises Filtered(rule), Failed(reason, transient), or Unfinished."""
        ...


def uses_gpu(stage: Stage) -> bool:
    """Whether it is faster on a GPU; it works without one."""
    return getattr(stage, "uses_gpu", False)


def is_served(stage: Stage) -> bool:
    """Whether it only waits for servers."""
    return stage.annotator is not None and stage.annotator.served
