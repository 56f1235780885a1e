"""A video's QA pairs and verdicts by columns: of millions of pairs the objects take ten times as long to make."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from marathon_pipeline.dataset.dataset import Finished
from marathon_pipeline.dataset.reviews import Judged
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.gates import NUMBERS, Gates
from marathon_pipeline.records import Format, QAPair, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

OF_PEOPLE = ("letter", "evidence", "instead_of")  # what of a pair, beside its id, is bound to what people say of it
_OF_VERDICT = ("qa_id", "task", "problems", "judged", "unjudged")
_NOT_MEASURED = {name: 0 for name in NUMBERS if Verdict.model_fields[name].is_required()}


class Verdicts:
    """Of the tasks of a finished video. Raises Failed, as the tables do."""

    def __init__(self, tables: Tables, video: Finished, gates: Gates, more: Sequence[str] = NUMBERS) -> None:
        """gates: that decide. more: numbers that are asked for besides."""
        self._tables, self._video_id, self._gates = tables, video.video_id, gates
        names = dict.fromkeys((*_OF_VERDICT, *gates.items.bounds, *more))
        self._columns = tables.columns(Verdict, video.video_id, tuple(names))
        tasks = self._columns["task"].to_pylist()
        ids = self._columns["qa_id"].to_pylist()
        self.rows = {
            qa_id: row for row, (qa_id, task) in enumerate(zip(ids, tasks, strict=True)) if task in video.tasks
        }

    def numbers(self, name: str) -> "NDArray[np.float64]":
        """A number of all verdicts; NaN where it was not measured."""
        import numpy as np

        return np.asarray(self._columns[name].to_numpy(zero_copy_only=False), np.float64)

    def measured(self, name: str) -> list[Any]:
        return list(self._columns[name].to_pylist())

    def said(self, *names: str) -> bool:
        """Whether any verdict says something there."""
        return any(
            pc.any(pc.not_equal(column, "")).as_py() if name == "unjudged" else column.null_count < len(column)
            for name in names
            for column in (self._columns[name],)
        )

    def reasons(self) -> list[tuple[str, ...]]:
        """Why the gates reject each pair."""
        outside = pc.list_value_length(self._columns["problems"]).to_numpy(zero_copy_only=False) > 0
        if self.said("judged", "unjudged"):
            outside |= True
        for name, bound in self._gates.items.bounds.items():
            values = self.numbers(name)
            if bound.least is not None:
                outside |= values < bound.least
            if bound.most is not None:
                outside |= values > bound.most
        doubted = outside.nonzero()[0].tolist()
        found: list[tuple[str, ...]] = [()] * len(outside)
        if doubted:
            columns = ([column[row].as_py() for row in doubted] for column in self._columns.values())
            for row, own in zip(doubted, zip(*columns, strict=True), strict=True):
                known = dict(zip(self._columns, own, strict=True))
                found[row] = self._gates.reasons(Verdict(**_NOT_MEASURED | known, video_id=self._video_id))
        return found


class Pairs:
    """The QA pairs of the tasks of a finished video. Raises Failed, as the tables do."""

    def __init__(self, tables: Tables, video: Finished, names: Sequence[str]) -> None:
        """names: of columns, beside ids, tasks and formats; a part of the binding by itself, `binding.annotator`."""
        self._columns = tables.columns(QAPair, video.video_id, ("qa_id", "task", "format", *names))
        tasks = self._columns["task"].to_pylist()
        if not set(video.tasks).issuperset(tasks):
            kept = [task in video.tasks for task in tasks]
            self._columns = {name: column.filter(kept) for name, column in self._columns.items()}

    def __len__(self) -> int:
        return len(self._columns["qa_id"])

    def column(self, name: str) -> list[Any]:
        return list(self._columns[name].to_pylist())

    @cached_property
    def ids(self) -> list[str]:
        return self.column("qa_id")

    @cached_property
    def tasks(self) -> list[str]:
        return self.column("task")

    @cached_property
    def formats(self) -> list[Format]:
        return self.column("format")

    @cached_property
    def replaced(self) -> list[bool]:
        """Whether each pair was written in the place of a rejected one."""
        return [tries > 0 for tries in self.column("tries")]

    def evidence(self) -> list[list[tuple[float, float]]]:
        """Starts and ends of each pair's."""
        spans = self._columns["evidence"]
        parts = (pc.struct_field(spans.flatten(), name).to_pylist() for name in ("start", "end"))
        rest = iter(zip(*parts, strict=True))
        return [[next(rest) for _ in range(size)] for size in pc.list_value_length(spans).to_pylist()]

    def judged(self) -> list[Judged]:
        """What people judged, where they did, of each pair."""
        every = zip(self.tasks, self.ids, self.column("letter"), self.evidence(), strict=True)
        return [Judged.by(task, qa_id, letter, evidence) for task, qa_id, letter, evidence in every]
