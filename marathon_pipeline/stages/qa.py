"""Write a video's QA pairs, task by task."""

from typing import get_args

from marathon_pipeline.annotators.protocol import Annotator
from marathon_pipeline.errors import Failed, Filtered
from marathon_pipeline.records import ClipCaption, Event, Format, QAPair, Summary
from marathon_pipeline.stages.stage import Given, together
from marathon_pipeline.taxonomy import Taxonomy


class WriteQA:
    name, version = "qa", 1
    reads, writes = (ClipCaption, Event, Summary), (QAPair,)

    def __init__(self, annotator: Annotator, taxonomy: Taxonomy, tasks: tuple[str, ...]) -> None:
        self.annotator, self._taxonomy, self.parts = annotator, taxonomy, tasks

    def settings(self, part: str) -> object:
        return [self.annotator.name, self._taxonomy.task_rules(part)]

    async def run(self, given: Given, part: str) -> list[QAPair]:
        """A format that the video cannot be asked in is left out; where both are, the task is filtered or failed."""
        task, writer = self._taxonomy.tasks[part], self.annotator.for_work(given.answers)
        captions, events, summary = given.all(ClipCaption), given.all(Event), given.one(Summary)
        formats: list[Format] = [f for f in get_args(Format) if getattr(task.per_video, f)]
        written, refusals = await together(
            [writer.write_qa(task, format, captions, events, summary) for format in formats], (Filtered, Failed)
        )
        failures = [refusal for refusal in refusals if isinstance(refusal, Failed)]
        if passing := [failure for failure in failures if failure.transient]:
            raise passing[0]
        if not written and refusals:
            raise (*failures, *refusals)[0]
        for failure in failures:
            given.answers.lose(failure.reason)
        return [pair for pairs in written for pair in pairs]
