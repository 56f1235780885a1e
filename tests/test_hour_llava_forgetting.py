"""Forgetting: counts of the paper, its strategies, and what each video's seed decides."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator
from torch.nn import functional

from marathon_pipeline.hour_llava import forgetting
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.selection import Selection, select

PAPER = HourLlavaConfig()


@pytest.mark.parametrize(
    ("seconds", "tokens"), [(1, 17), (20, 340), (128, 544), (600, 2550), (1200, 5100), (2048, 8704), (3600, 8704)]
)
def test_the_language_model_reads_as_many_tokens_as_the_paper_says(seconds: int, tokens: int) -> None:
    selection = select(PAPER, [seconds], [1])
    assert selection.decayed.lengths == [tokens] == [len(selection.decayed.index)]
    assert selection.memory.lengths == [seconds * 65]  # 234,000 of an hour


@given(st.integers(1, 4000), st.integers(1, 600))
def test_uniform_frames_are_distinct_and_hold_the_first_and_the_last(frames: int, keep: int) -> None:
    kept = forgetting.uniform_frames(frames, min(keep, frames)).tolist()
    assert kept == sorted(set(kept)) and len(kept) == min(keep, frames)
    assert kept[0] == 0 and (len(kept) == 1 or kept[-1] == frames - 1)
    gaps = {b - a for a, b in pairwise(kept)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=4), st.integers(0, 2**50))
def test_a_decayed_token_and_its_twin_in_the_memory_are_one_token_at_one_position(counts: list[int], seed: int) -> None:
    selection = select(PAPER, counts, [seed + i for i in range(len(counts))])
    twins = torch.searchsorted(selection.memory.index, selection.decayed.index)
    assert torch.equal(selection.memory.index[twins], selection.decayed.index)
    assert torch.equal(selection.memory.positions[twins], selection.decayed.positions)
    starts = torch.tensor([0, *counts]).cumsum(0)[:-1] * 65
    for start, index, positions in zip(starts, *parts(selection), strict=True):
        assert torch.equal(index - start, positions)  # of the sample's own video, from 0
        assert torch.equal(index, index.unique())
        frames, tokens = positions // 65, (positions % 65).view(-1, 17)
        assert (tokens[:, -1] == 64).all() and (frames.view(-1, 17) == frames.view(-1, 17)[:, :1]).all()


def parts(selection: Selection) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
    return (
        selection.decayed.index.split(selection.decayed.lengths),
        selection.decayed.positions.split(selection.decayed.lengths),
    )


@pytest.mark.parametrize("temporal", ["uniform", "random"])
def test_what_a_video_forgets_depends_on_its_seed_and_on_nothing_beside_it(temporal: str) -> None:
    config = HourLlavaConfig(temporal_forgetting=temporal)
    alone = select(config, [200], [7]).decayed.positions
    together = select(config, [40, 200, 300], [1, 7, 2])
    assert torch.equal(alone, together.decayed.positions.split(together.decayed.lengths)[1])
    assert not torch.equal(alone, select(config, [200], [8]).decayed.positions)


def test_random_tokens_differ_between_frames_and_hit_every_place() -> None:
    kept = forgetting.random_tokens(2000, 64, 0.25, Generator().manual_seed(0))
    assert kept.shape == (2000, 16) and (kept.diff(dim=1) > 0).all()
    share = torch.bincount(kept.flatten(), minlength=64) / 2000
    assert (share - 0.25).abs().max() < 0.05


def test_uniform_tokens_are_a_grid() -> None:
    assert forgetting.uniform_tokens(8, 0.25).tolist() == [r * 8 + c for r in range(0, 8, 2) for c in range(0, 8, 2)]
    with pytest.raises(ValueError, match="no square"):
        forgetting.uniform_tokens(8, 0.3)


def test_key_frames_are_those_unlike_their_neighbours() -> None:
    vectors = torch.ones(60, 8) + torch.randn(60, 8, generator=Generator().manual_seed(0)) * 0.01
    odd = [0, 17, 33, 59]
    for place in odd:
        vectors[place] = -1 if place % 2 else torch.eye(8)[0]
    assert forgetting.key_frames(vectors, 4).tolist() == odd


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 40))
def test_key_frames_agree_with_a_plain_count(frames: int, keep: int) -> None:
    vectors = torch.randn(frames, 4, generator=Generator().manual_seed(frames))
    near = []
    for i in range(frames):
        width = min(8, frames - 1)
        first = min(max(i - width // 2, 0), frames - 1 - width)
        others = [j for j in range(first, first + width + 1) if j != i]
        near.append(torch.stack([functional.cosine_similarity(vectors[i], vectors[j], dim=0) for j in others]).mean())
    expected = sorted(sorted(range(frames), key=lambda i: float(near[i]))[: min(keep, frames)])
    assert forgetting.key_frames(vectors, min(keep, frames)).tolist() == expected


def test_question_frames_are_those_most_like_the_question() -> None:
    vectors = torch.eye(4).repeat(10, 1)
    assert forgetting.question_frames(vectors, torch.tensor([0.0, 5.0, 1.0, 0.0]), 12).tolist() == sorted(
        [*range(1, 40, 4), 2, 6]
    )


def test_baselines_are_settings() -> None:
    everything = HourLlavaConfig(spatial_forgetting="none", temporal_forgetting="none", memaug_depth=0)
    assert select(everything, [100], [0]).decayed.lengths == [6500]
    sampled = HourLlavaConfig(temporal_keep=1.0, max_frames=32, min_frames=1, spatial_forgetting="none", memaug_depth=0)
    selection = select(sampled, [1000], [0])
    assert selection.decayed.lengths == [32 * 65] and len(selection.frames) == 32  # no other frame is computed
    left = select(HourLlavaConfig(memory="decayed"), [400], [3])
    assert torch.equal(left.memory.index, left.decayed.index) and len(left.frames) == 100
    half = select(HourLlavaConfig(memory=0.5), [400], [3])
    assert half.memory.lengths == [200 * 65] and half.memory.positions[-1] == 400 * 65 - 1


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"spatial_forgetting": "uniform", "spatial_keep": 0.3}, "spatial_keep"),
        ({"temporal_keep": 0.0}, "temporal_keep"),
        ({"memory": 1.5}, "memory"),
        ({"temporal_forgetting": "sometimes"}, "temporal_forgetting"),
    ],
)
def test_settings_that_make_no_sense_are_named(setting: dict[str, object], named: str) -> None:
    with pytest.raises(Exception, match=named):
        HourLlavaConfig(**setting)
