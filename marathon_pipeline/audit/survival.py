"""Whether what the captions of clips say survives into those of events, and that into the global caption: a heuristic.

It compares content words, by their stems, and pairs of them that stand side by side. What several clips say weighs as
often as they say it: what a narrative has to keep counts, and a detail that it may drop hardly does.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from marathon_pipeline.audit.texts import PerWord, Texts, hash_of
from marathon_pipeline.wording import stem, words

LOW_IN_EVENTS, LOW_IN_SUMMARY = 0.3, 0.2  # of what is said: a video that keeps less has lost it

FIELDS = ("object", "action", "summary")  # of a clip's caption: what there is and what it does
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


def kept(
    clips: Mapping[str, frozenset[int]], events: Sequence[tuple[frozenset[int], Sequence[str]]], summary: frozenset[int]
) -> Kept:
    """How much of a video's clip captions its events keep, and of the events' captions its global one.

    clips: what is `named` by each, by its id. events: what is named by each, and its clips.
    """
    by_events = [(clips[clip_id], told) for told, clip_ids in events for clip_id in clip_ids if clip_id in clips]
    return Kept(_share(by_events), _share([(told, summary) for told, _ in events]))


def _share(both: Sequence[tuple[frozenset[int], frozenset[int]]]) -> float:
    """both: what is said, and where it is looked for."""
    said = sum(len(one) for one, _ in both)
    return sum(len(one & other) for one, other in both) / said if said else 1.0


def named(texts: Texts, together: int) -> list[frozenset[int]]:
    """The content words of texts, and the pairs of them that stand side by side: `yellow circl`; as hashes.

    together: how many texts, one after another, are one.
    """
    import numpy as np

    stems = _stems.of(texts.numbers)
    pairs = (stems[:-1] << np.uint64(32)) | stems[1:]
    pairs = np.where((stems[:-1] > 0) & (stems[1:] > 0), pairs, np.uint64(0)).tolist()
    alone = stems.tolist()
    ends = texts.places[::together].tolist()
    return [frozenset(alone[begin:end]).union(pairs[begin:end]) - _NOTHING for begin, end in pairwise(ends)]


def _hash_of_stem(word: str) -> int:
    """32 bits, that of a small word 0."""
    return 0 if word in _SMALL or len(word) < 3 else hash_of(stem(word)) >> 32 or 1


_stems = PerWord(_hash_of_stem, "Q")
_NOTHING = frozenset({0})
