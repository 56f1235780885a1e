"""The offline annotator: it writes from measured facts alone, and needs no model, no network and no GPU."""

from collections.abc import Sequence

from marathon_pipeline.annotators.measured import captions as writing
from marathon_pipeline.annotators.measured import events as telling
from marathon_pipeline.annotators.measured.facts import observe
from marathon_pipeline.annotators.measured.qa import write
from marathon_pipeline.annotators.measured.qa.material import Material
from marathon_pipeline.annotators.measured.story import happenings
from marathon_pipeline.annotators.measured.timeline import Timeline
from marathon_pipeline.annotators.protocol import Described, Pictures
from marathon_pipeline.dataset.journal import Answers
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import (
    Binding,
    Clip,
    ClipCaption,
    Event,
    Format,
    QAPair,
    Record,
    Signals,
    Span,
    Summary,
    digest,
)
from marathon_pipeline.taxonomy import Task


class Measured:
    """An `Annotator`, and its own `Writer`. Its methods never wait; the same input gives the same records."""

    name = "measured/5"  # the number changes with what is written
    served = False

    def __init__(self) -> None:
        self._last: tuple[tuple[Record, ...], Material, str] | None = None

    def check(self) -> None:
        """It needs nothing."""

    def share(self, processes: int) -> None:
        """It asks nobody."""

    def stop(self) -> None:
        """It waits for nobody."""

    async def close(self) -> None:
        """It holds nothing open."""

    def for_work(self, answers: Answers) -> "Measured":
        return self

    async def caption_clip(
        self, clip: Clip, signals: Sequence[Signals], pictures: Pictures | None = None
    ) -> ClipCaption:
        """Raises Filtered(`no_signals`) where the window holds no measured second."""
        if not signals:
            raise Filtered("no_signals", f"nothing was measured in {clip.clip_id}")
        binding = self._binding(clip, *signals, frames=digest(list(clip.frame_hashes)))
        bare = ClipCaption(
            video_id=clip.video_id, clip_id=clip.clip_id, start=clip.start, end=clip.end,
            temporality="", spatiality="", object="", action="", scene="", summary="",
            facts=observe(clip, signals), binding=binding,
        )  # fmt: skip
        return bare.model_copy(update=writing.fields(Timeline.of([bare])))

    async def split_events(self, video_id: str, captions: Sequence[ClipCaption]) -> list[Event]:
        """Raises Filtered(`no_captions`)."""
        if not captions:
            raise Filtered("no_captions", f"nothing is told of {video_id}")
        timeline, binding = Timeline.of(captions), self._binding(*captions)
        story = happenings(timeline)
        return [
            Event(
                video_id=video_id,
                event_id=f"event_{index:03d}",
                start=span.start,
                end=span.end,
                title=telling.title(timeline, story, span),
                caption="",
                clip_ids=timeline.clip_ids([span]),
                binding=binding,
            )
            for index, span in enumerate(telling.spans(timeline))
        ]

    async def caption_event(
        self, event: Event, before: Event | None, after: Event | None, captions: Sequence[ClipCaption]
    ) -> Event:
        text = telling.caption(Timeline.of(captions), Span(start=event.start, end=event.end))
        return event.model_copy(update={"caption": text, "binding": self._binding(event, *captions)})

    async def summarize(self, events: Sequence[Event]) -> Summary:
        text = telling.summary([event.caption for event in events])
        return Summary(video_id=events[0].video_id, text=text, binding=self._binding(*events))

    async def write_qa(self, task: Task, format: Format, video: Described, known: Sequence[str] = ()) -> list[QAPair]:
        """Raises Filtered where the facts do not carry the task; its rule says what they lack."""
        material, request = self._material(video)
        binding = Binding(
            annotator=self.name,
            template_version=task.version,
            request=digest([request, task.task, format, task.version, task.per_video.model_dump()]),
        )
        return write(material, task, format, binding)

    def _material(self, video: Described) -> tuple[Material, str]:
        """What all tasks of a video are written from, and its hash; made once for the calls that follow one another."""
        if self._last is None or not video.is_of(self._last[0]):
            material = Material(Timeline.of(video.captions), tuple(video.events), video.summary)
            self._last = video.rows, material, self._binding(*video.rows).request
        return self._last[1:]

    def _binding(self, *rows: Record, frames: str = "") -> Binding:
        """`request`: over what the rows say, not over how they came to be."""
        said = [row.model_dump(mode="json", exclude=set(row.unhashed)) for row in rows]
        return Binding(annotator=self.name, template_version=1, request=digest([self.name, said]), frames=frames)
