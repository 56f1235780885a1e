"""Whether what the captions of clips say survives into those of events, and that into the global caption: a heuristic.

It compares content words, by their stems, and pairs of them that stand side by side. What several clips say weighs as
often as they say it: what a narrative has to keep counts, and a detail that it may drop hardly does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from marathon_pipeline.records import ClipCaption, Event
from marathon_pipeline.wording import stem, words

LOW_IN_EVENTS, LOW_IN_SUMMARY = 0.3, 0.2  # of what is said: a video that keeps less has lost it

_FIELDS = ("object", "action", "summary")  # of a clip's caption: what there is and what it does
_SMALL = frozenset(
    words("""
    a an and are as at be been being but by can could did do does each for from had has have he her here his how i if in
    into is it its just may more most no not of off on onto or other our out over she so some such than that the their
    them then there these they this those through to too under up very was we were what when where which while who will
    with would you
    after again also before during finally first last later meanwhile next now once still throughout
    appear appears clip frame frames image scene seen shown shows video view visible
    """)
)


class Kept(NamedTuple):
    """Shares, 0 to 1; 1 where nothing was said."""

    by_events: float
    by_summary: float

    @property
    def low(self) -> bool:
        return self.by_events < LOW_IN_EVENTS or self.by_summary < LOW_IN_SUMMARY


def kept(captions: Mapping[str, ClipCaption], events: Sequence[Event], summary: str) -> Kept:
    """How much of a video's clip captions (by id) its events keep, and of the events' captions its global one."""
    said, found = Counter[bool](), Counter[bool]()
    told = [_named(event.title, event.caption) for event in events]
    for event, own in zip(events, told, strict=True):
        clips = (captions[clip_id] for clip_id in event.clip_ids if clip_id in captions)
        for clip in clips:
            said.update(word in own for word in _named(*(getattr(clip, field) for field in _FIELDS)))
    whole = _named(summary)
    for own in told:
        found.update(word in whole for word in own)
    return Kept(_share(said), _share(found))


def _share(counts: Counter[bool]) -> float:
    return counts[True] / counts.total() if counts else 1.0


def _named(*texts: str) -> set[str]:
    """The content words of texts, and the pairs of them that stand side by side: `yellow circl`."""
    found = set()
    for text in texts:
        stems = ["" if word in _SMALL or len(word) < 3 else stem(word) for word in words(text)]
        found.update(stems)
        found.update(f"{one} {other}" for one, other in pairwise(stems) if one and other)
    return found - {""}
