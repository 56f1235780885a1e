"""What writes text about a video: a served model, or the offline annotator in `measured`."""

from collections.abc import Sequence
from typing import Protocol

from marathon_pipeline.records import Clip, ClipCaption, Event, Format, QAPair, Signals, Summary
from marathon_pipeline.taxonomy import Task


class Annotator(Protocol):
    """Writes captions, events, the summary and QA. Every method returns validated records that carry their binding.

    Each may raise Filtered (the material does not carry what is asked) or Failed (the annotator could not do its work).
    """

    @property
    def name(self) -> str:
        """Goes into every binding, such as `measured/1`."""
        ...

    async def caption_clip(self, clip: Clip, signals: Sequence[Signals]) -> ClipCaption:
        """The six fields for one window. `signals`: the window's seconds, in order."""
        ...

    async def split_events(self, video_id: str, captions: Sequence[ClipCaption]) -> list[Event]:
        """Consecutive events with titles and times, in order; their captions are still empty."""
        ...

    async def caption_event(
        self, event: Event, before: Event | None, after: Event | None, captions: Sequence[ClipCaption]
    ) -> Event:
        """`event` with its caption. `before`, `after`: its neighbours, context only; `captions`: those of its clips."""
        ...

    async def summarize(self, events: Sequence[Event]) -> Summary:
        """One narrative of the whole video, without times."""
        ...

    async def write_qa(
        self, task: Task, format: Format, captions: Sequence[ClipCaption], events: Sequence[Event], summary: Summary
    ) -> list[QAPair]:
        """At most as many pairs as the task wants per video in this format."""
        ...
