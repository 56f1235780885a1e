"""Near duplicates: QA pairs of one task that ask the same in nearly the same words, by MinHash with banding.

Two pairs are near duplicates where they are of one task and format, have the decisive words (colours, numbers,
directions, negations and the like) of question and answer in common, and where the words and word pairs of their
questions agree by `LIKE` at least (Jaccard index, estimated by MinHash: Broder 1997). A short answer is the same, and
its options agree by `LIKE_MORE`; a long answer agrees by `LIKE_MORE`.
"""

from array import array
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, get_args

from marathon_pipeline.audit.said import Said
from marathon_pipeline.audit.texts import PerWord, mixed, together, word_hashes
from marathon_pipeline.records import Colour, Shape
from marathon_pipeline.wording import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIKE = 0.65
LIKE_MORE = 0.6
LONG_ANSWER = 8  # words; of a shorter one every word counts
_HASHES, _MORE = 64, 32  # of questions, and of the rest: an estimate's standard error is 0.06, and 0.09
_BAND = 4  # hashes that agree, and two pairs are compared: 96 % of those that are as like as `LIKE`, 99 % at 0.7
_LINKS_AT_ONCE = 2**16

# One of them changed, and another thing is asked or answered.
DECISIVE = frozenset((
    *get_args(Colour),
    *get_args(Shape),
    *words("""
    gray dark bright one two three four five six seven eight nine ten eleven twelve once twice half both neither none
    second third fourth fifth first last next previous before after until since earlier later earliest latest
    left right up down above below top bottom upper lower middle front behind inside outside forward backward
    not no never nothing nobody without yes more less most least fewer longer shorter longest shortest
    begin begins beginning start starts end ends
    """),
))  # fmt: skip


class Near(NamedTuple):
    """Of each pair: whether another of its video, of another video, is nearly the same; and how many groups of such."""

    within: "NDArray[np.bool_]"
    across: "NDArray[np.bool_]"
    groups_within: int
    groups_across: int


class Signatures:
    """MinHash signatures of QA pairs: 204 bytes a pair, no text."""

    def __init__(self) -> None:
        self._hashes, self._blocks, self._videos = array("H"), array("Q"), array("I")
        self._count = 0  # of videos

    def add(self, said: Said) -> None:
        """The pairs of one video."""
        if len(said):
            self._hashes.frombytes(_signatures(said).tobytes())
            self._blocks.frombytes(_blocks(said).tobytes())
            self._videos.extend([self._count] * len(said))
        self._count += 1

    def extend(self, other: "Signatures") -> None:
        """With those of other videos."""
        import numpy as np

        self._hashes.extend(other._hashes)
        self._blocks.extend(other._blocks)
        self._videos.frombytes((np.frombuffer(other._videos, np.uint32) + np.uint32(self._count)).tobytes())
        self._count += other._count

    def near(self) -> Near:
        import numpy as np

        signatures = np.frombuffer(self._hashes, np.uint16).reshape(-1, _HASHES + _MORE)
        blocks, videos = np.frombuffer(self._blocks, np.uint64), np.frombuffer(self._videos, np.uint32)
        groups = np.arange(len(blocks))
        for first in range(0, _HASHES, _BAND):
            keys = np.ascontiguousarray(signatures[:, first : first + _BAND]).view(np.uint64)[:, 0]
            keys = mixed(keys) ^ blocks
            order = np.argsort(keys, kind="stable")
            keys = keys[order]
            same = np.flatnonzero(keys[1:] == keys[:-1])
            one, other = order[same], order[same + 1]
            apart = groups[one] != groups[other]
            one, other = one[apart], other[apart]
            alike = _alike(signatures, one, other)
            _join(groups, one[alike], other[alike])
        size = np.bincount(groups, minlength=len(groups))[groups]
        some = np.flatnonzero(size > 1)
        of_video = groups[some] * self._count + videos[some]
        _, place, together = np.unique(of_video, return_inverse=True, return_counts=True)
        within, across = np.zeros((2, len(groups)), np.bool_)
        within[some], across[some] = together[place] > 1, size[some] > together[place]
        return Near(within, across, int((together > 1).sum()), len(np.unique(groups[across])))


def _alike(
    signatures: "NDArray[np.uint16]", one: "NDArray[np.int64]", other: "NDArray[np.int64]"
) -> "NDArray[np.bool_]":
    """Which links hold. Piece by piece: the signatures of all that share a band may be all there are, twice."""
    import numpy as np

    alike = np.empty(len(one), np.bool_)
    for first in range(0, len(one), _LINKS_AT_ONCE):
        piece = slice(first, first + _LINKS_AT_ONCE)
        agree = signatures[one[piece]] == signatures[other[piece]]
        enough = agree[:, :_HASHES].mean(axis=1) >= LIKE
        alike[piece] = enough & (agree[:, _HASHES:].mean(axis=1) >= LIKE_MORE)
    return alike


def _join(groups: "NDArray[np.int64]", one: "NDArray[np.int64]", other: "NDArray[np.int64]") -> None:
    """Make one group of those that a link joins. groups: of each pair the first pair of its group; changed in place."""
    import numpy as np

    while len(one):
        np.minimum.at(groups, np.maximum(groups[one], groups[other]), np.minimum(groups[one], groups[other]))
        while not np.array_equal(first := groups[groups], groups):
            groups[:] = first
        apart = groups[one] != groups[other]
        one, other = one[apart], other[apart]


def _signatures(said: Said) -> "NDArray[np.uint16]":
    """(pairs, hashes): of the questions, then of answers that are long, or the options of those that are not."""
    import numpy as np

    places = said.texts.places
    values = _values(said.texts.numbers)
    asked = _minima(values, places[said.first], places[said.first + 1], _HASHES)
    long = said.texts.sizes[said.last] >= LONG_ANSWER
    begin = np.where(long, places[said.last], places[said.first + 1])
    end = np.where(long, places[said.last + 1], places[said.last])
    return np.concatenate([asked, _minima(values, begin, end, _MORE)], axis=1)


def _values(numbers: "NDArray[np.int32]") -> "NDArray[np.uint32]":
    """(2, words): a hash of each word, and of it with the next one. The end of a text makes pairs as a word does."""
    import numpy as np

    one = word_hashes.of(numbers)
    two = mixed(one) + np.roll(one, -1)
    return (mixed(np.stack([np.where(numbers == 0, two, one), two])) >> np.uint64(32)).astype(np.uint32)


def _minima(
    values: "NDArray[np.uint32]", begin: "NDArray[np.int64]", end: "NDArray[np.int64]", hashes: int
) -> "NDArray[np.uint16]":
    """(stretches, hashes): the lower half of the least hash of each stretch of the values."""
    import numpy as np

    times, plus = _multipliers(hashes)
    sizes = end - begin
    some = sizes > 0
    starts = np.cumsum(sizes[some]) - sizes[some]
    where = np.repeat(begin[some] - starts, sizes[some]) + np.arange(sizes.sum())
    least = np.repeat(times * _values(np.zeros(2, np.int32))[0, 0] + plus, len(sizes), axis=1)  # of a text's end
    if len(where):
        found = [np.minimum.reduceat(times * each[where] + plus, starts, axis=1) for each in values]
        least[:, some] = np.minimum(least[:, some], np.minimum(*found))
    return least.T.astype(np.uint16)


@cache
def _multipliers(hashes: int) -> "tuple[NDArray[np.uint32], NDArray[np.uint32]]":
    import numpy as np

    drawn = np.random.default_rng(0).integers(0, 2**32, (2, hashes, 1), dtype=np.uint32)
    return drawn[0] | np.uint32(1), drawn[1]


def _blocks(said: Said) -> "NDArray[np.uint64]":
    """Hashes of what near duplicates have in common to the letter."""
    import numpy as np

    numbers = said.texts.numbers
    decisive = said.texts.summed(np.where(_decisive.of(numbers), mixed(word_hashes.of(numbers)), np.uint64(0)))
    short = np.where(said.texts.sizes[said.last] < LONG_ANSWER, said.hashes[said.last], np.uint64(0))
    return together(said.tasks, said.formats, decisive[said.first] + decisive[said.last], short)


_decisive = PerWord(lambda word: word in DECISIVE or word.isdecimal(), "B")
