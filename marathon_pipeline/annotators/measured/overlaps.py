"""What overlaps a stretch of time, found without looking at all that a video holds."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import accumulate
from typing import Generic, Protocol, TypeVar


class Lasting(Protocol):
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


T = TypeVar("T", bound=Lasting)


class Overlaps(Generic[T]):
    """By start. A look-up takes as long as what it finds, where nothing lasts much longer than the rest."""

    def __init__(self, lasting: Iterable[T]) -> None:
        self._all = sorted(lasting, key=lambda one: one.start)
        self._starts = [one.start for one in self._all]
        self._latest_ends = list(accumulate((one.end for one in self._all), max))

    def within(self, start: float, end: float) -> list[T]:
        """All that begin before the end of a stretch, and end after its start."""
        first, last = bisect_right(self._latest_ends, start), bisect_left(self._starts, end)
        return [one for one in self._all[first:last] if one.end > start]

    def any(self, start: float, end: float) -> bool:
        return bool(self.within(start, end))
