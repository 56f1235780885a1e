"""Split a video into events, and caption each with its neighbours in view."""

import asyncio

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.annotators.protocol import Annotator
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import ClipCaption, Event
from marathon_pipeline.stages.stage import Given
from marathon_pipeline.taxonomy import CaptionTemplate


class EventSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    min_events: int = 3  # a video in which less happens carries no long-range questions (VideoMarathon, section 3)


class CaptionEvents:
    name, version = "caption_events", 1
    reads, writes, parts = (ClipCaption,), (Event,), ("",)

    def __init__(self, annotator: Annotator, templates: tuple[CaptionTemplate, ...], settings: EventSettings) -> None:
        self._annotator, self._templates, self._settings = annotator, templates, settings

    def settings(self, part: str) -> object:
        templates = [template.rendered_rules() for template in self._templates]
        return [self._annotator.name, templates, self._settings.model_dump()]

    def run(self, given: Given, part: str) -> list[Event]:
        return asyncio.run(self._caption(given.all(ClipCaption)))

    async def _caption(self, captions: list[ClipCaption]) -> list[Event]:
        events = await self._annotator.split_events(captions[0].video_id, captions)
        if len(events) < self._settings.min_events:
            raise Filtered("few_events", f"{len(events)} events, the job asks for {self._settings.min_events}")
        own = {event.event_id: [c for c in captions if c.clip_id in event.clip_ids] for event in events}
        around = [None, *events, None]
        return await asyncio.gather(
            *(
                self._annotator.caption_event(event, before, after, own[event.event_id])
                for before, event, after in zip(around, events, around[2:], strict=False)
            )
        )
