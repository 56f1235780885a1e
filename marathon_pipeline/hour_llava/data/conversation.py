"""How released QA pairs become the turns of a conversation."""

from collections.abc import Mapping, Sequence
from typing import Any

from marathon_pipeline.records import LETTERS


def asked(question: str, options: Sequence[str]) -> str:
    """A question as it is put to the model: each option on a line of its own, `A. …`."""
    return "\n".join([question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])


def turn_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """A released QA pair as (question, answer); the answer to a multiple-choice question is its letter."""
    return asked(row["question"], row["options"]), row["letter"] or row["answer"]
