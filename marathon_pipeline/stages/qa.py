"""Write a video's QA pairs, task by task."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import get_args

from marathon_pipeline.annotators.protocol import Annotator, Described
from marathon_pipeline.errors import Failed, Filtered, Unfinished
from marathon_pipeline.records import ClipCaption, Event, Format, QAPair, Summary
from marathon_pipeline.stages.stage import Given, Replacement, together
from marathon_pipeline.taxonomy import PerVideo, Task, Taxonomy


class WriteQA:
    name, version = "qa", 2  # what served models write is held against `wording.problems`
    reads, writes = (ClipCaption, Event, Summary), (QAPair,)

    def __init__(self, annotator: Annotator, taxonomy: Taxonomy, tasks: tuple[str, ...]) -> None:
        self.annotator, self._taxonomy, self.parts = annotator, taxonomy, tasks

    def settings(self, part: str) -> object:
        return [self.annotator.name, self._taxonomy.task_rules(part)]

    async def run(self, given: Given, part: str) -> list[QAPair]:
        """A format that the video cannot be asked in is left out; where both are, the task is filtered or failed."""
        task = self._taxonomy.tasks[part]
        if given.replacement is not None:
            return await self._replaced(given, task, given.replacement)
        written, refusals = await self._written(given, task)
        if passing := [refusal for refusal in refusals if _passes(refusal)]:
            raise passing[0]
        if not written and refusals:
            raise sorted(refusals, key=lambda refusal: isinstance(refusal, Filtered))[0]
        _lose(given, refusals)
        return written

    async def _replaced(self, given: Given, task: Task, replacement: Replacement) -> list[QAPair]:
        """The pairs that stand, with a new one in the place of each rejected one for which the writer has another.

        What goes wrong costs nothing that stands: it waits for a later run, or the rejected ones stay.
        """
        standing = given.all(QAPair)
        wanted = Counter(pair.format for pair in standing if pair.qa_id in replacement.rejected)
        fewer = task.model_copy(update={"per_video": PerVideo(open=wanted["open"], choice=wanted["choice"])})
        written, refusals = await self._written(given, fewer, standing)
        if any(_passes(refusal) for refusal in refusals):
            raise Unfinished
        _lose(given, refusals)
        others = {format: iter([pair for pair in written if pair.format == format]) for format in wanted}

        def in_place_of(pair: QAPair) -> QAPair:
            other = next(others[pair.format], None) if pair.qa_id in replacement.rejected else None
            if other is None:
                return pair
            return other.model_copy(update={"tries": replacement.tries, "instead_of": (*pair.instead_of, pair.qa_id)})

        return [in_place_of(pair) for pair in standing]

    async def _written(
        self, given: Given, task: Task, standing: Sequence[QAPair] = ()
    ) -> tuple[list[QAPair], list[Exception]]:
        """What is written of a task besides what stands, and why nothing is in a format."""
        writer = self.annotator.for_work(given.answers)
        video = Described(given.all(ClipCaption), given.all(Event), given.one(Summary))
        known = {format: [pair.question for pair in standing if pair.format == format] for format in get_args(Format)}
        written, refusals = await together(
            [
                writer.write_qa(task, format, video, known[format])
                for format in get_args(Format)
                if getattr(task.per_video, format)
            ],
            (Filtered, Failed),
        )
        return [pair for pairs in written for pair in pairs], refusals


def _passes(refusal: Exception) -> bool:
    return isinstance(refusal, Failed) and refusal.transient


def _lose(given: Given, refusals: Iterable[Exception]) -> None:
    for refusal in refusals:
        if isinstance(refusal, Failed):
            given.answers.lose(refusal.reason)
