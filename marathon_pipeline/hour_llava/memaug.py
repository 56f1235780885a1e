"""MemAug: decayed video tokens recall from the memory repository what the question asks for (Hour-LLaVA, section 4).

Tensors are packed: the tokens of a batch's samples lie one after another without padding, and lengths say where each
ends. So linear layers compute nothing in vain, attention needs no mask (and takes the fast kernels), and a sample's
result cannot depend on its batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer


class MemAugBlock(GradientCheckpointingLayer):
    """Self-attention, cross-attention to the memory, MLP; after each the residual and a LayerNorm."""

    def __init__(self, dim: int, heads: int, key_value_heads: int, mlp_ratio: int, eps: float) -> None:
        super().__init__()
        self.self_attention = Attention(dim, heads, key_value_heads)
        self.self_norm = nn.LayerNorm(dim, eps=eps)
        self.cross_attention = Attention(dim, heads, key_value_heads)
        self.cross_norm = nn.LayerNorm(dim, eps=eps)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_ratio * dim), nn.GELU(), nn.Linear(mlp_ratio * dim, dim))
        self.mlp_norm = nn.LayerNorm(dim, eps=eps)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        query_rotation: Tensor,
        memory_rotation: Tensor,
        query_lengths: Sequence[int],
        memory_lengths: Sequence[int],
    ) -> Tensor:
        attended = self.self_attention(query, query, query_rotation, query_rotation, query_lengths, query_lengths)
        query = self.self_norm(query + attended)
        attended = self.cross_attention(query, memory, query_rotation, memory_rotation, query_lengths, memory_lengths)
        query = self.cross_norm(query + attended)
        return self.mlp_norm(query + self.mlp(query))


class MemAug(nn.Module):
    """A stack of blocks; the memory enters each of them unchanged.

    rotary_share: the share of each head that is rotated (0.5 in the paper; 0 is its ablation without positions).
    """

    def __init__(
        self,
        depth: int,
        dim: int,
        heads: int,
        key_value_heads: int,
        *,
        mlp_ratio: int = 4,
        eps: float = 1e-5,
        rotary_base: float = 10_000.0,
        rotary_share: float = 0.5,
    ) -> None:
        super().__init__()
        self.rotary_dim = int(dim // heads * rotary_share)
        self.rotary_base = rotary_base
        self.blocks = nn.ModuleList(MemAugBlock(dim, heads, key_value_heads, mlp_ratio, eps) for _ in range(depth))

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        query_positions: Tensor,
        memory_positions: Tensor,
        query_lengths: Sequence[int],
        memory_lengths: Sequence[int],
    ) -> Tensor:
        """query: (sum of query_lengths, dim), memory: (sum of memory_lengths, dim); positions: int64, one a token.

        Returns the query's shape.
        """
        query_rotation = rotation(query_positions, self.rotary_dim, self.rotary_base)
        memory_rotation = rotation(memory_positions, self.rotary_dim, self.rotary_base)
        for block in self.blocks:
            query = block(query, memory, query_rotation, memory_rotation, query_lengths, memory_lengths)
        return query


class Attention(nn.Module):
    """Grouped-query attention without a mask, within each sample."""

    def __init__(self, dim: int, heads: int, key_value_heads: int) -> None:
        super().__init__()
        self.heads, self.key_value_heads, self.head_dim = heads, key_value_heads, dim // heads
        self.q_proj = nn.Linear(dim, heads * self.head_dim)
        self.k_proj = nn.Linear(dim, key_value_heads * self.head_dim)
        self.v_proj = nn.Linear(dim, key_value_heads * self.head_dim)
        self.o_proj = nn.Linear(heads * self.head_dim, dim)

    def forward(
        self,
        query: Tensor,
        memory: Tensor,
        query_rotation: Tensor,
        memory_rotation: Tensor,
        query_lengths: Sequence[int],
        memory_lengths: Sequence[int],
    ) -> Tensor:
        queries = rotate(self.q_proj(query).view(-1, self.heads, self.head_dim), query_rotation)
        keys = rotate(self.k_proj(memory).view(-1, self.key_value_heads, self.head_dim), memory_rotation)
        values = self.v_proj(memory).view(-1, self.key_value_heads, self.head_dim)
        return self.o_proj(attend(queries, keys, values, query_lengths, memory_lengths).flatten(1))


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, query_lengths: Sequence[int], memory_lengths: Sequence[int]
) -> Tensor:
    """Softmax attention of each sample's queries to its own keys. All packed: (tokens, heads, head_dim)."""
    if len(set(query_lengths)) == 1 and len(set(memory_lengths)) == 1:  # one call for all
        batch = len(query_lengths)
        parts = [(queries.unflatten(0, (batch, -1)), keys.unflatten(0, (batch, -1)), values.unflatten(0, (batch, -1)))]
    else:
        split = (queries.split(list(query_lengths)), *(x.split(list(memory_lengths)) for x in (keys, values)))
        parts = [(q[None], k[None], v[None]) for q, k, v in zip(*split, strict=True)]
    attended = [
        functional.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), enable_gqa=q.shape[-2] != k.shape[-2]
        ).transpose(1, 2)
        for q, k, v in parts
    ]
    return torch.cat([x.flatten(0, 1) for x in attended]) if len(attended) > 1 else attended[0].flatten(0, 1)


def rotation(positions: Tensor, dim: int, base: float) -> Tensor:
    """Cosines and sines of rotary positions: (2, tokens, dim / 2), float32.

    Computed anew from the settings: a buffer would lose its precision with a model cast to bfloat16.
    """
    steps = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device)
    angles = positions.float()[:, None] * base ** (-steps / max(dim, 1))
    return torch.stack((angles.cos(), angles.sin()))


def rotate(heads: Tensor, angles: Tensor) -> Tensor:
    """Rotate the first dimensions of each head, its halves paired. heads: (tokens, heads, head_dim)."""
    half = angles.shape[-1]
    if half == 0:
        return heads
    cos, sin = angles[:, :, None]
    left, right, rest = heads.split([half, half, heads.shape[-1] - 2 * half], dim=-1)
    rotated = (left * cos - right * sin, right * cos + left * sin)
    return torch.cat([*(x.to(heads.dtype) for x in rotated), rest], dim=-1)
