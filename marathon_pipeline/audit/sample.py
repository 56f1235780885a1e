"""The QA pairs that a reader of the report is shown: chosen by their hash, so that nobody chose them."""

from bisect import insort
from collections import defaultdict
from typing import NamedTuple

from marathon_pipeline.records import QAPair, Verdict


class Shown(NamedTuple):
    pair: QAPair
    verdict: Verdict
    reasons: tuple[str, ...]  # why it is rejected
    seconds: float  # length of the video


class Sampler:
    """Takes QA pairs in any order; keeps `count` accepted ones of each task, and `count` of each reason to reject."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._kept: defaultdict[tuple[str, str], list[Shown]] = defaultdict(list)

    def add(self, shown: Shown) -> None:
        for reason in shown.reasons:
            self._add(("rejected", reason), shown)
        if not shown.reasons:
            self._add((shown.pair.task, shown.pair.format), shown)

    def extend(self, other: "Sampler") -> None:
        for stratum, kept in other._kept.items():
            for shown in kept:
                self._add(stratum, shown)

    def _add(self, stratum: tuple[str, str], shown: Shown) -> None:
        kept = self._kept[stratum]
        insort(kept, shown, key=lambda each: (each.pair.qa_id, each.pair.video_id))
        del kept[self.count :]

    def of_task(self, task: str) -> list[Shown]:
        """Open-ended and multiple choice in turn, as far as there are both."""
        formats = [self._kept[task, format] for format in ("open", "choice")]
        ranked = [(rank, number, shown) for number, kept in enumerate(formats) for rank, shown in enumerate(kept)]
        return [shown for _, _, shown in sorted(ranked, key=lambda each: each[:2])][: self.count]

    def rejected(self) -> list[Shown]:
        """Each once, by the reason."""
        strata = sorted(stratum for stratum in self._kept if stratum[0] == "rejected")
        return list({shown.pair.qa_id: shown for stratum in strata for shown in self._kept[stratum]}.values())
