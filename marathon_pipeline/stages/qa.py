"""Write a video's QA pairs, task by task."""

import asyncio
from typing import get_args

from marathon_pipeline.annotators.protocol import Annotator
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import ClipCaption, Event, Format, QAPair, Summary
from marathon_pipeline.stages.stage import Given
from marathon_pipeline.taxonomy import Taxonomy


class WriteQA:
    name, version = "qa", 1
    reads, writes = (ClipCaption, Event, Summary), (QAPair,)

    def __init__(self, annotator: Annotator, taxonomy: Taxonomy, tasks: tuple[str, ...]) -> None:
        self._annotator, self._taxonomy, self.parts = annotator, taxonomy, tasks

    def settings(self, part: str) -> object:
        return [self._annotator.name, self._taxonomy.task_rules(part)]

    def run(self, given: Given, part: str) -> list[QAPair]:
        return asyncio.run(self._write(given, part))

    async def _write(self, given: Given, part: str) -> list[QAPair]:
        """A format that the video cannot be asked in is left out; both, and the task is filtered."""
        task = self._taxonomy.tasks[part]
        captions, events, summary = given.all(ClipCaption), given.all(Event), given.one(Summary)
        pairs: list[QAPair] = []
        refusals: list[Filtered] = []
        formats: list[Format] = [f for f in get_args(Format) if getattr(task.per_video, f)]
        for format in formats:
            try:
                pairs += await self._annotator.write_qa(task, format, captions, events, summary)
            except Filtered as refusal:
                refusals.append(refusal)
        if not pairs and refusals:
            raise refusals[0]
        return pairs
