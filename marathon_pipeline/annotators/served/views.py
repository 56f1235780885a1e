"""How much of a long video one prompt shows.

What fits a model's context is shown whole. What does not is shown in several views: each gives an equal run of clips
in full and tells what lies before and behind it by the captions of its events. The tasks of a topic take turns at them.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from marathon_pipeline.errors import Failed
from marathon_pipeline.records import ClipCaption, Event


class View(NamedTuple):
    seconds: float  # length of the whole video
    captions: Sequence[ClipCaption]  # in full
    before: Sequence[Event]  # in short
    after: Sequence[Event]


def views(
    captions: Sequence[ClipCaption], events: Sequence[Event], tell: Callable[[View], str], most: int
) -> list[tuple[View, str]]:
    """As few views as bring each one's text to at most `most` characters. Raises Failed `context` where none do."""
    ((whole, text),) = ((view, tell(view)) for view in _cut(captions, events, 1))
    if len(text) <= most:
        return [(whole, text)]
    for count in range(max(2, len(text) // max(1, most)), len(captions) + 1):  # together they are no shorter
        told = ((view, tell(view)) for view in _cut(captions, events, count))
        fitting = list(takewhile(lambda each: len(each[1]) <= most, told))
        if len(fitting) == count:
            return fitting
    raise Failed("context", f"context_tokens is too small for the events of {captions[0].video_id} in short")


def _cut(captions: Sequence[ClipCaption], events: Sequence[Event], count: int) -> Iterator[View]:
    seconds = max(caption.end for caption in captions)
    for index in range(count):
        shown = captions[len(captions) * index // count : len(captions) * (index + 1) // count]
        yield View(
            seconds,
            shown,
            [event for event in events if event.start < shown[0].start],
            [event for event in events if event.end > shown[-1].end],
        )
