"""Forgetting: which frames, and which tokens of a frame, go on to the language model (Hour-LLaVA, section 4 and A.3.2).

Pure functions of their arguments: what is random is drawn from a generator that the caller seeds, so that a sample's
forgetting depends on its seed alone. Indices are int64, on the CPU, in ascending order.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

NEIGHBOURS = 8  # K of the keyframe strategy


def frames_to_keep(frames: int, share: float, least: int, most: int) -> int:
    """How many of a video's frames stay: a share of them, within bounds, and never more than there are."""
    return min(frames, max(least, min(most, math.floor(frames * share))))


def tokens_to_keep(tokens: int, share: float) -> int:
    """How many of a frame's tokens stay, without its newline."""
    return math.ceil(tokens * share)


def uniform_frames(frames: int, keep: int) -> Tensor:
    """Frames at even distances, the first and the last among them (of one, the first)."""
    return torch.linspace(0, frames - 1, keep, dtype=torch.float64).round().to(torch.int64)


def random_frames(frames: int, keep: int, generator: Generator) -> Tensor:
    return torch.randperm(frames, generator=generator)[:keep].sort().values


def key_frames(vectors: Tensor, keep: int) -> Tensor:
    """The frames that resemble their eight nearest neighbours in time least.

    vectors: (frames, dim), a mean of each frame's tokens. At an end the nearest eight lie on one side.
    """
    frames = len(vectors)
    if keep >= frames:
        return torch.arange(frames)
    width = min(NEIGHBOURS, frames - 1)
    unit = functional.normalize(vectors.float(), dim=-1)
    own = torch.arange(frames, device=unit.device)
    first = (own - width // 2).clamp(0, frames - 1 - width)
    total = unit.new_zeros(frames)
    for offset in range(width + 1):  # a window holds the frame itself: its similarity, 1, is taken off below
        total += (unit * unit[first + offset]).sum(-1)
    return _lowest((total - 1) / width, keep)


def question_frames(vectors: Tensor, question: Tensor, keep: int) -> Tensor:
    """The frames most similar to the question: cosine of means. vectors: (frames, dim), question: (dim,)."""
    return _lowest(-functional.cosine_similarity(vectors.float(), question.float()[None], dim=-1), keep)


def uniform_tokens(side: int, share: float) -> Tensor:
    """A grid of a frame's tokens at even distances: (kept,), the same in each frame.

    Raises ValueError where the share of a square of `side` x `side` is no square.
    """
    keep = tokens_to_keep(side * side, share)
    kept_side = math.isqrt(keep)
    if kept_side * kept_side != keep:
        raise ValueError(
            f"spatial_keep: {share} of {side * side} tokens is {keep}, no square; take a share such as 0.25"
        )
    along = (torch.arange(kept_side) * side) // kept_side
    return (along[:, None] * side + along).flatten()


def random_tokens(frames: int, tokens: int, share: float, generator: Generator) -> Tensor:
    """Of each frame its own random tokens, in raster order: (frames, kept)."""
    draws = torch.rand(frames, tokens, generator=generator)
    return draws.topk(tokens_to_keep(tokens, share), dim=-1).indices.sort(dim=-1).values


def _lowest(scores: Tensor, keep: int) -> Tensor:
    """Of equal scores the earlier frame wins, on every device."""
    return scores.cpu().argsort(stable=True)[:keep].sort().values
