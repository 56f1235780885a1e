"""Write the six-field caption of every clip."""

import asyncio

from marathon_pipeline.annotators.protocol import Annotator
from marathon_pipeline.records import Clip, ClipCaption, Signals
from marathon_pipeline.stages.stage import Given
from marathon_pipeline.taxonomy import CaptionTemplate


class CaptionClips:
    name, version = "caption_clips", 1
    reads, writes, parts = (Clip, Signals), (ClipCaption,), ("",)

    def __init__(self, annotator: Annotator, template: CaptionTemplate) -> None:
        self._annotator, self._template = annotator, template

    def settings(self, part: str) -> object:
        return [self._annotator.name, self._template.rendered_rules()]

    def run(self, given: Given, part: str) -> list[ClipCaption]:
        return asyncio.run(self._caption(given.all(Clip), given.all(Signals)))

    async def _caption(self, clips: list[Clip], signals: list[Signals]) -> list[ClipCaption]:
        def seen_in(clip: Clip) -> list[Signals]:
            return [second for second in signals if clip.start <= second.second < clip.end]

        return await asyncio.gather(*(self._annotator.caption_clip(clip, seen_in(clip)) for clip in clips))
