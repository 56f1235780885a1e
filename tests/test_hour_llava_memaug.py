"""MemAug against a reference written from the paper's equations, one query, head and key at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from marathon_pipeline.hour_llava.memaug import MemAug, rotate, rotation

DIM, HEADS, KV, BASE = 16, 4, 2, 1000.0


def made(depth: int = 2, share: float = 0.5) -> MemAug:
    torch.manual_seed(0)
    module = MemAug(depth, DIM, HEADS, KV, rotary_base=BASE, rotary_share=share)
    with torch.no_grad():  # norms and biases that matter
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module


def turned(vector: Tensor, position: int, share: float) -> Tensor:
    """RoPE (Su et al., eq. 34): pair i of the rotated share of a head turns by position x base ** (-2 i / rotated)."""
    rotated = int(len(vector) * share)
    out = vector.clone()
    for i in range(rotated // 2):
        angle = position * BASE ** (-2 * i / rotated)
        a, b = vector[i], vector[i + rotated // 2]
        out[i] = a * math.cos(angle) - b * math.sin(angle)
        out[i + rotated // 2] = a * math.sin(angle) + b * math.cos(angle)
    return out


def slow_attention(layer: nn.Module, q: Tensor, kv: Tensor, q_at: list[int], kv_at: list[int], share: float) -> Tensor:
    width = DIM // HEADS
    rows = []
    for token, position in zip(q, q_at, strict=True):
        heads = []
        for head in range(HEADS):
            of, group = slice(head * width, (head + 1) * width), head // (HEADS // KV)
            shared = slice(group * width, (group + 1) * width)
            query = turned(layer.q_proj.weight[of] @ token + layer.q_proj.bias[of], position, share)
            weights, values = [], []
            for other, at in zip(kv, kv_at, strict=True):
                key = turned(layer.k_proj.weight[shared] @ other + layer.k_proj.bias[shared], at, share)
                weights.append(torch.exp(query @ key / math.sqrt(width)))
                values.append(layer.v_proj.weight[shared] @ other + layer.v_proj.bias[shared])
            heads.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        rows.append(layer.o_proj.weight @ torch.cat(heads) + layer.o_proj.bias)
    return torch.stack(rows)


def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / torch.sqrt(variance + norm.eps) * norm.weight + norm.bias


def slow(module: MemAug, query: Tensor, memory: Tensor, q_at: list[int], m_at: list[int], share: float) -> Tensor:
    """Each block: LN(x + SA(x)); LN(x + CA(x, memory)); LN(x + W2 gelu(W1 x))."""
    for block in module.blocks:
        query = normed(query + slow_attention(block.self_attention, query, query, q_at, q_at, share), block.self_norm)
        recalled = slow_attention(block.cross_attention, query, memory, q_at, m_at, share)
        query = normed(query + recalled, block.cross_norm)
        inner = query @ block.mlp[0].weight.T + block.mlp[0].bias
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        query = normed(query + inner @ block.mlp[2].weight.T + block.mlp[2].bias, block.mlp_norm)
    return query


@pytest.mark.parametrize("share", [0.5, 1.0, 0.0])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_memaug_computes_what_the_equations_say(depth: int, share: float) -> None:
    module = made(depth, share).double()
    query, memory = torch.randn(5, DIM).double(), torch.randn(9, DIM).double()
    q_at, m_at = [3, 7, 40, 65, 66], list(range(60, 69))
    fast = module(query, memory, torch.tensor(q_at), torch.tensor(m_at), [5], [9])
    torch.testing.assert_close(fast, slow(module, query, memory, q_at, m_at, share), rtol=1e-5, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 12)), min_size=1, max_size=4))
def test_a_packed_sample_gets_what_it_gets_alone(lengths: list[tuple[int, int]]) -> None:
    module = made()
    queries = [torch.randn(q, DIM) for q, _ in lengths]
    memories = [torch.randn(m, DIM) for _, m in lengths]
    places = [(torch.arange(q) * 3, torch.arange(m)) for q, m in lengths]
    packed = module(
        torch.cat(queries),
        torch.cat(memories),
        torch.cat([q for q, _ in places]),
        torch.cat([m for _, m in places]),
        [q for q, _ in lengths],
        [m for _, m in lengths],
    )
    for out, query, memory, (q_at, m_at) in zip(
        packed.split([q for q, _ in lengths]), queries, memories, places, strict=True
    ):
        alone = module(query, memory, q_at, m_at, [len(query)], [len(memory)])
        torch.testing.assert_close(out, alone, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 300_000), st.integers(0, 300_000))
def test_a_token_and_its_twin_are_turned_alike_whatever_the_hour(position: int, other: int) -> None:
    vector = torch.randn(1, 1, 128)
    twin = rotate(vector, rotation(torch.tensor([position]), 64, 1e6))
    assert torch.equal(twin, rotate(vector, rotation(torch.tensor([position]), 64, 1e6)))
    assert torch.equal(twin[..., 64:], vector[..., 64:])  # half of each head is not turned
    if position != other:
        assert not torch.equal(twin, rotate(vector, rotation(torch.tensor([other]), 64, 1e6)))


def test_positions_matter_only_by_their_distance() -> None:
    module = made().double()
    query, memory = torch.randn(4, DIM).double(), torch.randn(6, DIM).double()
    q_at, m_at = torch.tensor([0, 2, 3, 9]), torch.arange(6)
    here = module(query, memory, q_at, m_at, [4], [6])
    there = module(query, memory, q_at + 65, m_at + 65, [4], [6])
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)
    apart = module(query, memory, q_at + 65, m_at, [4], [6])
    assert not torch.allclose(here, apart, atol=1e-3)


def test_a_cast_to_bfloat16_does_not_blur_positions() -> None:
    module = made().bfloat16()
    assert not list(module.buffers())
    angles = rotation(torch.tensor([200_001]), 64, 1e6)
    expected = torch.cos(200_001.0 * 1e6 ** (-torch.arange(0, 64, 2).double() / 64))
    assert functional.l1_loss(angles[0, 0].double(), expected) < 0.01
