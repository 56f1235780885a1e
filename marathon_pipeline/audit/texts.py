"""The texts of a video as numbers of their words, so that all of them are counted and compared at once.

A large audit reads a thousand million words: one after another they would take hours.
"""

import hashlib
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from marathon_pipeline.wording import ASCII_WORDS, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORDS_KEPT = 500_000  # that a process remembers
_BETWEEN = "\0"
_TRANSLATED = bytes([0]) + ASCII_WORDS[1:]
_GOLDEN = 0x9E3779B97F4A7C15


class _Vocabulary(dict[str, int]):
    """Numbers words as they come; 0 stands between texts."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.forget()

    def forget(self) -> None:
        self.clear()
        self.words = [""]
        self[_BETWEEN] = 0

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self.words)
        self.words.append(word)
        return number


_vocabulary = _Vocabulary()


class PerWord:
    """What a function says of words, asked once of each. typecode: of the results, as an `array` has it."""

    def __init__(self, function: Callable[[str], int], typecode: str) -> None:
        self._function, self._typecode = function, typecode
        self._words: list[str] = []
        self._values = array(typecode)

    def of(self, numbers: "NDArray[np.int32]") -> "NDArray[np.uint64]":
        import numpy as np

        if self._words is not _vocabulary.words:
            self._words, self._values = _vocabulary.words, array(self._typecode)
        self._values.extend(map(self._function, self._words[len(self._values) :]))
        return np.frombuffer(self._values, self._typecode)[numbers]


class Texts(NamedTuple):
    """numbers: of the words of some texts, a 0 before the first text and behind each; places: of these 0."""

    numbers: "NDArray[np.int32]"
    places: "NDArray[np.int64]"

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Texts":
        """Good until `forget_words`."""
        import numpy as np

        joined = f" {_BETWEEN} ".join(("", *texts, ""))
        if joined.isascii() and joined.count(_BETWEEN) == len(texts) + 1:
            found = joined.translate(_TRANSLATED).split()
        else:
            found = [_BETWEEN]
            for text in texts:
                found += words(text)
                found.append(_BETWEEN)
        numbers = np.fromiter(map(_vocabulary.__getitem__, found), np.int32, len(found))
        return cls(numbers, np.flatnonzero(numbers == 0))

    @property
    def sizes(self) -> "NDArray[np.int64]":
        """In words."""
        return self.places[1:] - self.places[:-1] - 1

    def summed(self, values: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
        """The sum of values of words, over each text. values: 0 of what stands between."""
        import numpy as np

        return np.add.reduceat(values, self.places[:-1]) if len(self.places) > 1 else np.zeros(0, np.uint64)

    def hashes(self) -> "NDArray[np.uint64]":
        """Of each text's words in their order: 64 bits, the same in every process."""
        import numpy as np

        turns = np.arange(len(self.numbers)) - np.repeat(self.places, np.diff(self.places, append=len(self.numbers)))
        values = mixed(word_hashes.of(self.numbers) + turns.astype(np.uint64) * np.uint64(_GOLDEN))
        values[self.places] = 0
        return mixed(self.summed(values) + np.uint64(1))


def forget_words() -> None:
    """Forget numbers of words where there are very many of them: with the next video others come."""
    if len(_vocabulary) > _WORDS_KEPT:
        _vocabulary.forget()


def hash_of(*texts: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b("\n".join(texts).encode(), digest_size=8).digest(), "big")


def mixed(numbers: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """Every bit of a result depends on all bits of the number (splitmix64)."""
    import numpy as np

    for shift, times in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(times)
    return numbers ^ (numbers >> np.uint64(31))


def together(*hashes: "NDArray[np.uint64]") -> "NDArray[np.uint64]":
    """One hash of several, in their order."""
    import numpy as np

    found = np.zeros_like(hashes[0])
    for each in hashes:
        found = mixed(found * np.uint64(_GOLDEN) + each)
    return found


word_hashes = PerWord(hash_of, "Q")
