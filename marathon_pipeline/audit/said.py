"""A QA pair with the words of its texts, which a survey looks at again and again, and hashes of texts."""

import hashlib
from typing import NamedTuple

from marathon_pipeline.records import QAPair
from marathon_pipeline.wording import words


class Said(NamedTuple):
    pair: QAPair
    question: list[str]
    options: list[list[str]]
    answer: list[str]

    @classmethod
    def by(cls, pair: QAPair) -> "Said":
        return cls(pair, words(pair.question), [words(option) for option in pair.options], words(pair.answer))


def folded(text: str) -> str:
    return " ".join(words(text))


def hash_of(*texts: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b("\n".join(texts).encode(), digest_size=8).digest(), "big")
