"""What the QA pairs of a video say, which a survey looks at again and again: their words, and hashes of their texts."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from marathon_pipeline.audit.texts import Texts, hash_of, mixed, together
from marathon_pipeline.records import Format

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Said(NamedTuple):
    """Of each pair the question, its options and its answer, in this order, are texts one after another."""

    texts: Texts
    hashes: "NDArray[np.uint64]"  # of the texts
    first: "NDArray[np.int64]"  # of each pair: its question, among the texts
    last: "NDArray[np.int64]"  # its answer
    tasks: "NDArray[np.uint64]"  # a hash of each pair's
    formats: "NDArray[np.uint64]"

    @classmethod
    def by(
        cls,
        tasks: Sequence[str],
        formats: Sequence[Format],
        questions: Sequence[str],
        options: Sequence[Sequence[str]],
        answers: Sequence[str],
    ) -> "Said":
        import numpy as np

        said: list[str] = []
        for question, own, answer in zip(questions, options, answers, strict=True):
            said.append(question)
            said += own
            said.append(answer)
        texts = Texts.of(said)
        sizes = np.fromiter((len(own) + 2 for own in options), np.int64, len(options))
        ends = np.cumsum(sizes)
        names = (np.fromiter(map(_hash, each), np.uint64, len(each)) for each in (tasks, formats))
        return cls(texts, texts.hashes(), ends - sizes, ends - 1, *names)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def questions(self) -> "NDArray[np.uint64]":
        """Hashes."""
        return self.hashes[self.first]

    def options(self) -> "NDArray[np.uint64]":
        """Hashes of each pair's options, in whatever order they stand."""
        import numpy as np

        values = mixed(self.hashes)
        values[self.first] = values[self.last] = 0
        return np.add.reduceat(values, self.first) if len(self) else values

    def asked(self) -> "NDArray[np.uint64]":
        """Hashes of each pair without its answer."""
        return together(self.formats, self.questions, self.options())

    def whole(self) -> "NDArray[np.uint64]":
        return together(self.asked(), self.hashes[self.last])


@cache
def _hash(name: str) -> int:
    return hash_of(name)
