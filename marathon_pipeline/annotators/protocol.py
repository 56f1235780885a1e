"""What writes text about a video: a served model, or the offline annotator in `measured`."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from marathon_pipeline.dataset.journal import Answers
from marathon_pipeline.records import (
    Binding,
    Clip,
    ClipCaption,
    Event,
    Format,
    Judged,
    QAPair,
    Record,
    Signals,
    Summary,
)
from marathon_pipeline.taxonomy import Task

# JPEGs of the proxy: for whole seconds of a video, in ascending order, at most so many pixels high.
Pictures = Callable[[Sequence[int], int], Awaitable[Sequence[bytes]]]


class Written(NamedTuple):
    """Requests that were not sent but written into files. `files`: their paths, in order."""

    model: str
    requests: int
    files: tuple[str, ...]


class Described(NamedTuple):
    """A video in words: all that its QA is written from."""

    captions: Sequence[ClipCaption]
    events: Sequence[Event]
    summary: Summary

    @property
    def rows(self) -> tuple[Record, ...]:
        return (*self.captions, *self.events, self.summary)

    def is_of(self, rows: Sequence[Record]) -> bool:
        """Whether its rows are these very objects: to compare what they say would cost as much as to write from it."""
        own = self.rows
        return len(rows) == len(own) and all(one is other for one, other in zip(rows, own, strict=True))


class Annotator(Protocol):
    """Who writes. One serves all the work of a process."""

    @property
    def name(self) -> str:
        """Of all that decides what it writes, besides the templates: it goes into the fingerprints."""
        ...

    @property
    def served(self) -> bool:
        """Whether it only waits for servers, and takes no CPU of its own to speak of."""
        ...

    def check(self) -> None:
        """Raises UserError where it cannot do its work."""
        ...

    def share(self, processes: int) -> None:
        """So many processes ask now, this one among them: each sends its part of what a server is to be sent."""
        ...

    def stop(self) -> None:
        """Ask nothing more; what is asked may still be answered. Its work then ends in `Unfinished`."""
        ...

    async def close(self) -> "Written | None":
        """All its work has ended. What it wrote down to be asked elsewhere, where it did."""
        ...

    def for_work(self, answers: Answers) -> "Writer":
        """The same for one part of a stage's work on one video, with what was answered for it before."""
        ...


class Writer(Protocol):
    """Writes captions, events, the summary and QA. Every method returns validated records that carry their binding.

    Each may raise Filtered (the material does not carry what is asked) or Failed (the annotator could not do its work).
    """

    async def caption_clip(self, clip: Clip, signals: Sequence[Signals], pictures: Pictures) -> ClipCaption:
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

    async def write_qa(self, task: Task, format: Format, video: Described, known: Sequence[str] = ()) -> list[QAPair]:
        """At most as many pairs as the task wants per video in this format; none asks a `known` question."""
        ...


class Judge(Protocol):
    """Answers questions, and weighs answers, from text alone. `unit`: what is asked, unique within a part of the work.

    Each may raise Failed.
    """

    async def choose(self, unit: str, pair: QAPair, captions: Sequence[ClipCaption]) -> tuple[int | None, Binding]:
        """Which of the four options is right by the captions; None where they do not tell. No captions: a guess."""
        ...

    async def weigh(self, unit: str, pair: QAPair, captions: Sequence[ClipCaption]) -> tuple[Judged, Binding]:
        """What an open-ended pair's answer is worth by the captions."""
        ...


class JudgingAnnotator(Annotator, Protocol):
    """An annotator that can judge too."""

    def judge_for(self, answers: Answers) -> Judge:
        """As `for_work`."""
        ...
