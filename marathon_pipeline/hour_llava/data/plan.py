"""In which order a shard's conversations are read, and in which batches: decided before any video is opened.

Everything here follows from the seed alone, so a reader that begins in the middle goes on as if it had never stopped.
"""

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def generator(*values: object) -> random.Random:
    """A generator that depends on these values alone, wherever it is made."""
    return random.Random(hashlib.sha256(repr(values).encode()).digest())  # noqa: S311


def share(*values: object) -> float:
    """A number in [0, 1) that depends on these values alone."""
    return int.from_bytes(hashlib.sha256(repr(values).encode()).digest()[:7]) / 2**56


def dealt(units: Sequence[T], reader: int, readers: int, *seed: object) -> list[T]:
    """The units of one of several readers, shuffled: every unit goes to exactly one of them."""
    shuffled = list(units)
    generator("units", *seed).shuffle(shuffled)
    return shuffled[reader::readers]


def slices(shards: int, readers: int) -> int:
    """Into how many units a shard is cut, so that every reader has one."""
    return max(1, -(-readers // max(1, shards)))


def let_out(count: int, held: int, rng: random.Random) -> list[int]:
    """The order in which a buffer of `held` items lets out 0 to count - 1, each time one of them at random."""
    buffer: list[int] = []
    order: list[int] = []
    for index in range(count):
        buffer.append(index)
        if len(buffer) >= held:
            order.append(_taken(buffer, rng))
    while buffer:
        order.append(_taken(buffer, rng))
    return order


def _taken(buffer: list[int], rng: random.Random) -> int:
    at = rng.randrange(len(buffer))
    buffer[at], buffer[-1] = buffer[-1], buffer[at]
    return buffer.pop()


def batched(
    order: Sequence[int], tokens: Sequence[int], window: int, batch_size: int, max_tokens: int, rng: random.Random
) -> list[list[int]]:
    """Batches of items that are about as long, from one window of the order after another.

    tokens: of each item, as estimated. A batch has at most `batch_size` items, and at most `max_tokens` tokens with its
    padding; an item that is longer than that is a batch of its own.
    """
    batches: list[list[int]] = []
    for start in range(0, len(order), window):
        inside = sorted(order[start : start + window], key=lambda index: tokens[index])
        found: list[list[int]] = []
        for index in inside:
            full = not found or len(found[-1]) == batch_size or (len(found[-1]) + 1) * tokens[index] > max_tokens
            if full:
                found.append([])
            found[-1].append(index)
        rng.shuffle(found)
        batches += found
    return batches
