"""Write the global caption of a video from its events."""

from marathon_pipeline.annotators.protocol import Annotator
from marathon_pipeline.records import Event, Summary
from marathon_pipeline.stages.stage import Given
from marathon_pipeline.taxonomy import CaptionTemplate


class Summarize:
    name, version = "summarize", 1
    reads, writes, parts = (Event,), (Summary,), ("",)

    def __init__(self, annotator: Annotator, template: CaptionTemplate) -> None:
        self.annotator, self._template = annotator, template

    def settings(self, part: str) -> object:
        return [self.annotator.name, self._template.rendered_rules()]

    async def run(self, given: Given, part: str) -> list[Summary]:
        return [await self.annotator.for_work(given.answers).summarize(given.all(Event))]
