"""How many requests an endpoint bears at once."""

from statistics import median

_FIRST = 8.0
_SLOWDOWN = 2.0  # over the fastest it was: a batch that grows is slower for each and faster for all
_SHRINK = 0.7
_EASE = 0.9
_GROW = 1.1
_FORGET = 1.01  # the work may have become heavier for good


class Width:
    """Grows while latency holds, shrinks when the server says that it is too much.

    Doubles after every `value` answers until the first sign of trouble, then goes by tenths.
    """

    def __init__(self, most: int) -> None:
        self._most = float(most)
        self.value = min(_FIRST, self._most)
        self._doubling = True
        self._latencies: list[float] = []
        self._fastest = float("inf")
        self._since_shrunk = 0

    def bound(self, most: int) -> None:
        """It is not to be wider from now on."""
        self._most = float(most)
        self.value = min(self.value, self._most)

    def answered(self, seconds: float) -> None:
        self._latencies.append(seconds)
        self._since_shrunk += 1
        if len(self._latencies) < self.value:
            return
        typical, self._latencies = median(self._latencies), []
        self._fastest = min(self._fastest, typical)
        if typical > _SLOWDOWN * self._fastest:
            self._doubling = False
            self.value = max(1.0, self.value * _EASE)
            self._fastest *= _FORGET
        else:
            grown = self.value * 2 if self._doubling else self.value * _GROW + 1
            self.value = min(self._most, grown)

    def refused(self) -> None:
        """It answered 429, or not in time. Counts once for all that were under way together."""
        if self._since_shrunk >= self.value or self._doubling:
            self.value = max(1.0, self.value * _SHRINK)
            self._since_shrunk = 0
            self._latencies = []
        self._doubling = False
