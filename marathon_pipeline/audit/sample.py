"""The QA pairs that a reader of the report is shown: some by their hash, so that nobody chose them; doubtful ones."""

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Mapping
from operator import itemgetter
from typing import NamedTuple

from marathon_pipeline.gates import NUMBERS, Bound
from marathon_pipeline.records import QAPair, Verdict

# The value at which nothing is to be doubted, and below which the less the more; of the other numbers of a verdict
# nothing is to be doubted at 0.
_SMALL_IS_DOUBTFUL = {"evidence_seconds": math.inf, "grounded_right": 1.0}


class Shown(NamedTuple):
    pair: QAPair
    verdict: Verdict
    reasons: tuple[str, ...]  # why it is rejected
    seconds: float  # length of the video
    source: str = ""  # the collection that the video is from


class Sampler:
    """Takes QA pairs in any order; keeps `count` accepted ones of each task, and `count` of each reason to reject.

    Of accepted pairs also the `count` that are nearest to each of the `bounds` of a verdict's numbers, and where a
    number has none, those of which it is most doubtful.
    """

    def __init__(self, count: int, bounds: Mapping[str, Bound] | None = None) -> None:
        self.count, self.bounds = count, bounds or {}
        self._kept: defaultdict[tuple[str, str], list[tuple[tuple[float, str, str], Shown]]] = defaultdict(list)

    def add(self, shown: Shown) -> None:
        for reason in shown.reasons:
            self._add(("rejected", reason), 0.0, shown)
        if not shown.reasons:
            self._add((shown.pair.task, shown.pair.format), 0.0, shown)
            for name in NUMBERS:
                self._doubt(name, getattr(shown.verdict, name), shown)

    def extend(self, other: "Sampler") -> None:
        for stratum, kept in other._kept.items():
            for (rank, _, _), shown in kept:
                self._add(stratum, rank, shown)

    def _doubt(self, name: str, value: float | None, shown: Shown) -> None:
        if value is None or value == _SMALL_IS_DOUBTFUL.get(name, 0.0):
            return
        if bound := self.bounds.get(name):
            distance = min(abs(value - limit) for limit in (bound.least, bound.most) if limit is not None)
            # Out of bounds and accepted is what a gate that does not count lets through.
            self._add(("doubtful", name), distance if bound.holds(value) else -distance, shown)
        else:
            self._add(("doubtful", name), value if name in _SMALL_IS_DOUBTFUL else -value, shown)

    def _add(self, stratum: tuple[str, str], rank: float, shown: Shown) -> None:
        kept, key = self._kept[stratum], (rank, shown.pair.qa_id, shown.pair.video_id)
        if len(kept) < self.count or (kept and key < kept[-1][0]):
            insort(kept, (key, shown), key=itemgetter(0))
            del kept[self.count :]

    def of_task(self, task: str) -> list[Shown]:
        """Open-ended and multiple choice in turn, as far as there are both."""
        formats = [self._of((task, format)) for format in ("open", "choice")]
        ranked = [(rank, number, shown) for number, kept in enumerate(formats) for rank, shown in enumerate(kept)]
        return [shown for _, _, shown in sorted(ranked, key=itemgetter(0, 1))][: self.count]

    def rejected(self) -> list[Shown]:
        """Each once, by the reason."""
        strata = sorted(stratum for stratum in self._kept if stratum[0] == "rejected")
        return list({shown.pair.qa_id: shown for stratum in strata for shown in self._of(stratum)}.values())

    def doubtful(self) -> list[tuple[Shown, str]]:
        """With the number for which it is shown: `evidence_seconds`; a pair may come for several."""
        return [(shown, name) for name in NUMBERS for shown in self._of(("doubtful", name))]

    def _of(self, stratum: tuple[str, str]) -> list[Shown]:
        return [shown for _, shown in self._kept.get(stratum, ())]
