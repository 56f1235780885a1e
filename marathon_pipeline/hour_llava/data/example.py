"""What the loader yields: a video with a conversation about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from marathon_pipeline.records import LETTERS

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Example:
    """One sample. Exactly one of `frames` and `features` is there; row i of it is second i of the video."""

    key: str  # unique in the epoch: <release>/<video_id>/<number of the conversation>
    video_id: str
    turns: tuple[tuple[str, str], ...]  # (question, answer)
    qa_ids: tuple[str, ...]  # of the turns, in their order
    frames: "torch.Tensor | None"  # (frames, height, width, 3) uint8 RGB: the decoded proxy, 1 FPS
    features: "torch.Tensor | None"  # (frames, tokens, dim) bf16: from the cache
    seconds: float  # length of the video


@dataclass(frozen=True)
class Unreadable:
    """A sample that should have been in a batch. Nothing takes its place."""

    key: str
    reason: str


def asked(question: str, options: tuple[str, ...] | list[str]) -> str:
    """A question as it is put to the model: each option on a line of its own, `A. …`."""
    return "\n".join([question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])


def turn_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """A released QA pair as a turn; the answer to a multiple-choice question is its letter."""
    return asked(row["question"], row["options"]), row["letter"] or row["answer"]
