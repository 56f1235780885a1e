"""Split a video into events, and caption each with its neighbours in view."""

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.annotators.protocol import Annotator
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import ClipCaption, Event
from marathon_pipeline.stages.stage import Given, together
from marathon_pipeline.taxonomy import CaptionTemplate


class EventSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    min_events: int = 3  # a video in which less happens carries no long-range questions (VideoMarathon, section 3)


class CaptionEvents:
    name, version = "caption_events", 1
    reads, writes, parts = (ClipCaption,), (Event,), ("",)

    def __init__(self, annotator: Annotator, templates: tuple[CaptionTemplate, ...], settings: EventSettings) -> None:
        self.annotator, self._templates, self._settings = annotator, templates, settings

    def settings(self, part: str) -> object:
        templates = [template.rendered_rules() for template in self._templates]
        return [self.annotator.name, templates, self._settings.model_dump()]

    async def run(self, given: Given, part: str) -> list[Event]:
        captions, writer = given.all(ClipCaption), self.annotator.for_work(given.answers)
        events = await writer.split_events(captions[0].video_id, captions)
        if len(events) < self._settings.min_events:
            raise Filtered("few_events", f"{len(events)} events, the job asks for {self._settings.min_events}")
        own = {event.event_id: [c for c in captions if c.clip_id in event.clip_ids] for event in events}
        around = [None, *events, None]
        captioned, _ = await together(
            [
                writer.caption_event(event, before, after, own[event.event_id])
                for before, event, after in zip(around, events, around[2:], strict=False)
            ]
        )
        return captioned
