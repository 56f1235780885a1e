"""What a stage is: it reads some tables, writes others, and works on one video at a time."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from marathon_pipeline.records import Record

R = TypeVar("R", bound=Record)


class Given:
    """The rows that a stage reads, by their class."""

    def __init__(self, rows: Mapping[type[Record], Sequence[Any]]) -> None:
        self._rows = rows

    def all(self, record: type[R]) -> list[R]:
        return list(self._rows[record])

    def one(self, record: type[R]) -> R:
        (row,) = self._rows[record]
        return row  # type: ignore[no-any-return]

    def of_part(self, part: str) -> "Given":
        """The same without the rows of other tasks."""
        if not part:
            return self
        return Given({c: [row for row in rows if getattr(row, "task", part) == part] for c, rows in self._rows.items()})


class Stage(Protocol):
    """One step of the pipeline.

    A stage that reads `Source` works on a source, every other one on a video. `writes`: its tables, the one that proves
    the work last. `parts`: what it does separately, in `qa` and `verify` a task each; else one nameless part.
    `settings`: all besides the rows read that decides what it writes for a part; it goes into the fingerprint.
    `version` changes whenever the same input gives other rows.
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
    def parts(self) -> tuple[str, ...]: ...

    def settings(self, part: str) -> object: ...

    def run(self, given: Given, part: str) -> Sequence[Record]:
        """Raises Filtered(rule) or Failed(reason, transient)."""
        ...
