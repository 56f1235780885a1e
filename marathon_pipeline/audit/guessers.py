"""Guessers that never see the video: where one beats chance, the options give the answer away."""

from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from marathon_pipeline.wording import words

_AT_ONCE = 2**16  # questions


def longest(options: Sequence[str]) -> int | None:
    """Which option is longer than all others, in characters; None where none is."""
    return _only_most([len(option.strip()) for option in options])


def most_central(options: Sequence[str]) -> int | None:
    """Which option shares most words with the others (TemporalBench, section 4): wrong ones are often made from it.

    None where no option shares more than all others.
    """
    return most_central_of([frozenset(words(option)) for option in options])


def most_central_of(bags: Sequence[frozenset[str] | frozenset[int]]) -> int | None:
    """bags: the words of each option, or their numbers."""
    likeness = [0.0] * len(bags)
    for one, other in combinations(range(len(bags)), 2):
        both = len(bags[one] & bags[other])
        shared = both / max(1, len(bags[one]) + len(bags[other]) - both)
        likeness[one] += shared
        likeness[other] += shared
    return _only_most([round(each, 9) for each in likeness])


def _only_most(values: Sequence[float]) -> int | None:
    most = max(values)
    return values.index(most) if values.count(most) == 1 else None


class Usual:
    """Guesses, of four options, the text that is most often right in the other questions of the task."""

    def __init__(self) -> None:
        self._hashes, self._right = array("Q"), array("B")
        self._cells = array("I")

    def add(self, cell: int, hashes: Sequence[int], right: int) -> None:
        """hashes: of each of the four options, together with the task. cell: what it is counted under."""
        self._hashes.extend(hashes)
        self._right.append(right)
        self._cells.append(cell)

    def extend(self, other: "Usual", cells: Sequence[int]) -> None:
        """cells: what those of the other one are counted under here."""
        import numpy as np

        self._hashes.extend(other._hashes)
        self._right.extend(other._right)
        if other._cells:
            self._cells.frombytes(np.array(cells, np.uint32)[np.array(other._cells)].tobytes())

    def counts(self) -> tuple[Counter[int], Counter[int]]:
        """By cell: how many questions have one option that was right most often, and how often it is right here."""
        import numpy as np

        if not self._right:
            return Counter(), Counter()
        every = np.frombuffer(self._hashes, np.uint64).reshape(len(self._right), -1)
        rights, cells = np.frombuffer(self._right, np.uint8), np.frombuffer(self._cells, np.uint32)
        known, times = np.unique(every[np.arange(len(rights)), rights], return_counts=True)
        asked_of, hit_of = Counter[int](), Counter[int]()
        for first in range(0, len(rights), _AT_ONCE):
            options, right = every[first : first + _AT_ONCE], rights[first : first + _AT_ONCE]
            place = np.minimum(np.searchsorted(known, options), len(known) - 1)
            often = np.where(known[place] == options, times[place], 0)
            often[np.arange(len(right)), right] -= 1  # its own answer is not known to who guesses
            most = often.max(axis=1)
            asked = (most > 0) & ((often == most[:, None]).sum(axis=1) == 1)
            hit = asked & (often.argmax(axis=1) == right)
            own = cells[first : first + _AT_ONCE]
            asked_of.update(own[asked].tolist())
            hit_of.update(own[hit].tolist())
        return asked_of, hit_of
