"""Which tokens of a batch's videos are remembered, and which are left after forgetting: as indices.

What depends on data and makes shapes is decided here, on the CPU, before any tensor is computed with them. A token's
position is its place in its own flattened full video, frame x 65 + token, and stands beside its index from the start:
so a decayed token and its twin in the memory have the same position because they are the same token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from marathon_pipeline.hour_llava import forgetting
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig


@dataclass(frozen=True)
class Tokens:
    """Of all samples, packed."""

    index: Tensor  # into the tokens of the frames that are used, int64 (tokens,)
    positions: Tensor  # int64 (tokens,)
    lengths: list[int]  # of each sample


@dataclass(frozen=True)
class Selection:
    frames: Tensor  # those that are used at all, into the batch's frames, int64
    decayed: Tokens
    memory: Tokens
    ends: list[int]  # of each full video, in positions


def chooses_by_content(config: HourLlavaConfig) -> bool:
    """Whether forgetting has to see every frame first."""
    return config.temporal_forgetting in ("keyframe", "question")


@torch.compiler.disable
def select(
    config: HourLlavaConfig,
    frame_counts: Sequence[int],
    seeds: Sequence[int],
    vectors: Tensor | None = None,
    questions: Sequence[Tensor] | None = None,
) -> Selection:
    """Choose for each video by its own seed.

    vectors: (sum of frame_counts, dim), the mean of each frame's tokens, where forgetting goes by content; questions:
    the mean of each question's embeddings (dim,), where it goes by question.
    """
    across = config.tokens_per_frame
    frames, decayed, memory = [], [], []
    first_frame = first_token = 0
    for sample, (count, seed) in enumerate(zip(frame_counts, seeds, strict=True)):
        generator = Generator().manual_seed(seed)
        own = None if vectors is None else vectors[first_frame : first_frame + count]
        kept = _kept_frames(config, count, generator, own, None if questions is None else questions[sample])
        recalled = config.recalls and config.memory != "decayed"
        remembered = _remembered_frames(config, count) if recalled else kept
        used = torch.cat((kept, remembered)).unique()

        def tokens_of(chosen: Tensor, of_frame: Tensor, used: Tensor = used, first: int = first_token) -> Tokens:
            place = torch.searchsorted(used, chosen)
            index = place[:, None] * across + of_frame + first
            return Tokens(index.flatten(), (chosen[:, None] * across + of_frame).flatten(), [index.numel()])

        decayed.append(tokens_of(kept, _kept_tokens(config, len(kept), generator)))
        memory.append(tokens_of(remembered, torch.arange(across)) if recalled else decayed[-1])
        frames.append(used + first_frame)
        first_frame += count
        first_token += len(used) * across
    return Selection(torch.cat(frames), _packed(decayed), _packed(memory), [count * across for count in frame_counts])


def _kept_frames(
    config: HourLlavaConfig, count: int, generator: Generator, vectors: Tensor | None, question: Tensor | None
) -> Tensor:
    keep = forgetting.frames_to_keep(count, config.temporal_keep, config.min_frames, config.max_frames)
    match config.temporal_forgetting:
        case "none":
            return torch.arange(count)
        case "uniform":
            return forgetting.uniform_frames(count, keep)
        case "random":
            return forgetting.random_frames(count, keep, generator)
        case "keyframe":
            assert vectors is not None
            return forgetting.key_frames(vectors, keep)
        case _:
            assert vectors is not None and question is not None
            return forgetting.question_frames(vectors, question, keep)


def _kept_tokens(config: HourLlavaConfig, frames: int, generator: Generator) -> Tensor:
    """Of each frame, its newline last: (frames or 1, kept + 1)."""
    side = config.pooled_side
    match config.spatial_forgetting:
        case "none":
            kept = torch.arange(side**2)[None]
        case "uniform":
            kept = forgetting.uniform_tokens(side, config.spatial_keep)[None]
        case _:
            kept = forgetting.random_tokens(frames, side**2, config.spatial_keep, generator)
    return torch.cat((kept, torch.full((len(kept), 1), side**2)), dim=1)


def _remembered_frames(config: HourLlavaConfig, count: int) -> Tensor:
    return forgetting.uniform_frames(count, max(1, round(count * float(config.memory))))


def _packed(samples: list[Tokens]) -> Tokens:
    return Tokens(
        torch.cat([sample.index for sample in samples]),
        torch.cat([sample.positions for sample in samples]),
        [sample.lengths[0] for sample in samples],
    )
