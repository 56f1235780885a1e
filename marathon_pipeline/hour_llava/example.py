"""One sample, as the data loading yields it and the processor reads it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Example:
    """A conversation about one video. An image is a video of one frame.

    Exactly one of `frames` and `features` is there.
    """

    key: str  # unique in an epoch: release, video, which pack
    video_id: str
    turns: tuple[tuple[str, str], ...]  # (question, answer); options stand in the question, the answer is then a letter
    qa_ids: tuple[str, ...]
    frames: "Tensor | None"  # uint8 (frames, height, width, 3), 1 FPS
    features: "Tensor | None"  # bfloat16 (frames, 64, vision_dim): pooled, before the projector
    seconds: float
