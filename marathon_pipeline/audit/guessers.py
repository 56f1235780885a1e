"""Guessers that never see the video: where one beats chance, the options give the answer away."""

from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from marathon_pipeline.wording import words


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
        options = np.array(self._hashes, np.uint64).reshape(len(self._right), -1)
        right, cells = np.array(self._right), np.array(self._cells)
        rows = np.arange(len(right))
        _, ids = np.unique(options, return_inverse=True)
        ids = ids.reshape(options.shape)
        often = np.bincount(ids[rows, right], minlength=int(ids.max()) + 1)[ids]
        often[rows, right] -= 1  # its own answer is not known to who guesses
        most = often.max(axis=1)
        asked = (most > 0) & ((often == most[:, None]).sum(axis=1) == 1)
        hit = asked & (often.argmax(axis=1) == right)
        return Counter(cells[asked].tolist()), Counter(cells[hit].tolist())
