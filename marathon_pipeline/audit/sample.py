"""The QA pairs that a reader of the report is shown: some by their hash, so that nobody chose them; doubtful ones."""

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from marathon_pipeline.audit.rows import Pairs
from marathon_pipeline.dataset.dataset import Finished
from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.gates import NUMBERS, Bound
from marathon_pipeline.records import QAPair, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The value at which nothing is to be doubted, and below which the less the more; of the other numbers of a verdict
# nothing is to be doubted at 0.
_SMALL_IS_DOUBTFUL = {"evidence_seconds": math.inf, "grounded_right": 1.0}


class Shown(NamedTuple):
    pair: QAPair
    verdict: Verdict
    reasons: tuple[str, ...]  # why it is rejected
    seconds: float  # length of the video
    source: str = ""  # the collection that the video is from


class _Place(NamedTuple):
    """A pair that is read once it is known that it stays: most of those that come go again."""

    qa_id: str
    video_id: str
    reasons: tuple[str, ...]
    seconds: float
    source: str


class Sampler:
    """Takes QA pairs in any order; keeps `count` accepted ones of each task, and `count` of each reason to reject.

    Of accepted pairs also the `count` that are nearest to each of the `bounds` of a verdict's numbers, and where a
    number has none, those of which it is most doubtful.
    """

    def __init__(self, count: int, bounds: Mapping[str, Bound] | None = None) -> None:
        self.count, self.bounds = count, bounds or {}
        self._kept: defaultdict[tuple[str, str], list[tuple[tuple[float, str, str], Shown | _Place]]]
        self._kept = defaultdict(list)

    def add(self, shown: Shown) -> None:
        import numpy as np

        place = _Place(shown.pair.qa_id, shown.pair.video_id, shown.reasons, shown.seconds, shown.source)
        self._choose(place, shown.pair.task, shown.pair.format, shown)
        for name in NUMBERS if not shown.reasons else ():
            ranks = self._doubts(name, np.array([getattr(shown.verdict, name)], np.float64))
            if not np.isnan(ranks[0]):
                self._add(("doubtful", name), float(ranks[0]), place, shown)

    def add_video(
        self,
        video: Finished,
        source: str,
        pairs: Pairs,
        reasons: Sequence[tuple[str, ...] | None],
        numbers: Callable[[str], "NDArray[np.float64]"],
    ) -> None:
        """All pairs of a video. reasons: why each is rejected, None of one that is not verified. numbers: of each."""
        import numpy as np

        if not self.count:
            return
        rows = zip(pairs.ids, reasons, strict=True)
        places = [_Place(qa_id, video.video_id, why or (), video.seconds, source) for qa_id, why in rows]
        for place, task, format, why in zip(places, pairs.tasks, pairs.formats, reasons, strict=True):
            if why is not None:
                self._choose(place, task, format, place)
        accepted = np.array([why == () for why in reasons])
        for name in NUMBERS:
            ranks = np.where(accepted, self._doubts(name, numbers(name)), np.nan)
            found = np.sort(ranks[~np.isnan(ranks)])
            if len(found):
                most = min(float(found[: self.count][-1]), self._most(("doubtful", name)))
                for row in np.flatnonzero(ranks <= most).tolist():
                    self._add(("doubtful", name), float(ranks[row]), places[row], places[row])

    def extend(self, other: "Sampler") -> None:
        for stratum, kept in other._kept.items():
            for key, shown in kept:
                self._insert(stratum, key, shown)

    def read(self, tables: Tables) -> None:
        """The pairs that stay, as they stand in the tables by now: what was rewritten or purged meanwhile is left out.

        Raises Failed where one cannot be read.
        """
        by_video: defaultdict[str, set[str]] = defaultdict(set)
        for kept in self._kept.values():
            for _, place in kept:
                if isinstance(place, _Place):
                    by_video[place.video_id].add(place.qa_id)
        pairs: dict[tuple[str, str], QAPair] = {}
        verdicts: dict[tuple[str, str], Verdict] = {}
        for video_id, ids in sorted(by_video.items()):
            pairs |= {(video_id, pair.qa_id): pair for pair in tables.read_left(QAPair, video_id, "qa_id", ids)}
            verdicts |= {(video_id, each.qa_id): each for each in tables.read_left(Verdict, video_id, "qa_id", ids)}
        for kept in self._kept.values():
            every, kept[:] = list(kept), []
            for key, place in every:
                if isinstance(place, Shown):
                    kept.append((key, place))
                elif (which := (place.video_id, place.qa_id)) in pairs and which in verdicts:
                    shown = Shown(pairs[which], verdicts[which], place.reasons, place.seconds, place.source)
                    kept.append((key, shown))

    def _choose(self, place: _Place, task: str, format: str, shown: Shown | _Place) -> None:
        for reason in place.reasons:
            self._add(("rejected", reason), 0.0, place, shown)
        if not place.reasons:
            self._add((task, format), 0.0, place, shown)

    def _doubts(self, name: str, values: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """The less the more doubtful; NaN where a value is not to be doubted, or was not measured."""
        import numpy as np

        if bound := self.bounds.get(name):
            distances = (np.abs(values - limit) for limit in (bound.least, bound.most) if limit is not None)
            distance = np.minimum.reduce(list(distances))
            # Out of bounds and accepted is what a gate that does not count lets through.
            outside = (values < (-math.inf if bound.least is None else bound.least)) | (
                values > (math.inf if bound.most is None else bound.most)
            )
            ranks = np.where(outside, -distance, distance)
        else:
            ranks = values if name in _SMALL_IS_DOUBTFUL else -values
        return np.where(values == _SMALL_IS_DOUBTFUL.get(name, 0.0), np.nan, ranks)

    def _most(self, stratum: tuple[str, str]) -> float:
        """Beyond which rank nothing of a stratum stays."""
        kept = self._kept[stratum]
        return kept[-1][0][0] if len(kept) >= self.count else math.inf

    def _add(self, stratum: tuple[str, str], rank: float, place: _Place, shown: Shown | _Place) -> None:
        self._insert(stratum, (rank, place.qa_id, place.video_id), shown)

    def _insert(self, stratum: tuple[str, str], key: tuple[float, str, str], shown: Shown | _Place) -> None:
        kept = self._kept[stratum]
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
        """Read by now (`read`)."""
        return [shown for _, shown in self._kept.get(stratum, ()) if isinstance(shown, Shown)]
