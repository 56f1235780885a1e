"""Write the six-field caption of every clip."""

import asyncio
from bisect import bisect_left
from collections.abc import Sequence
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.annotators.protocol import Annotator
from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.media.frames import jpegs
from marathon_pipeline.records import Clip, ClipCaption, Signals
from marathon_pipeline.stages.stage import Given, together
from marathon_pipeline.taxonomy import CaptionTemplate

_second = attrgetter("second")
_OF_THE_MODEL = ("refused", "bad_answer")  # what else is wrong, such as a request that is rejected, concerns all clips


class CaptionSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    # Of a video's clips, without a caption since the model refuses or answers badly: 0 loses it all by one refusal.
    max_lost: float = Field(0.1, ge=0, le=1)


class CaptionClips:
    name, version = "caption_clips", 1
    reads, writes, parts = (Clip, Signals), (ClipCaption,), ("",)

    def __init__(
        self, annotator: Annotator, template: CaptionTemplate, settings: CaptionSettings, storage: Storage
    ) -> None:
        self.annotator, self._template, self._settings, self._storage = annotator, template, settings, storage

    def settings(self, part: str) -> object:
        return [self.annotator.name, self._template.rendered_rules(), self._settings.model_dump()]

    async def run(self, given: Given, part: str) -> list[ClipCaption]:
        clips, signals = given.all(Clip), given.all(Signals)
        writer = self.annotator.for_work(given.answers)
        key = media_key("proxies", clips[0].video_id, ".mp4")
        fetched: asyncio.Task[Path] | None = None  # one copy for all clips, once the first of them is to be seen

        async def pictures(seconds: Sequence[int], height: int) -> list[bytes]:
            nonlocal fetched
            if fetched is None:
                fetched = asyncio.create_task(asyncio.to_thread(held.enter_context, self._storage.local_file(key)))
            return await asyncio.to_thread(jpegs, await asyncio.shield(fetched), seconds, height)

        def seen_in(clip: Clip) -> list[Signals]:
            first, behind = (bisect_left(signals, edge, key=_second) for edge in (clip.start, clip.end))
            return signals[first:behind]

        with ExitStack() as held:
            captions, failures = await together(
                [writer.caption_clip(clip, seen_in(clip), pictures) for clip in clips], Failed
            )
        passing = [failure for failure in failures if failure.transient]
        others = [failure for failure in failures if failure.reason not in _OF_THE_MODEL]
        if passing or others or not captions or len(failures) > self._settings.max_lost * len(clips):
            raise (passing or others or failures)[0]
        for failure in failures:
            given.answers.lose(failure.reason)
        return captions
