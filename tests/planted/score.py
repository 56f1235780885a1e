"""What of the planted faults of QA pairs is found, and what is found where nothing was planted."""

import math
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from marathon_pipeline.gates import load_gates
from marathon_pipeline.records import QAPair, Verdict
from marathon_pipeline.shipped import shipped
from planted.clean import Rows, verified
from planted.pairs import Fault

GATES = load_gates(shipped("jobs/gates.yaml"))
SHARE = 0.01


class Score(NamedTuple):
    fault: Fault
    planted: int
    found: int
    false: int  # clean pairs that are rejected for the same reason
    clean: int

    @property
    def recall(self) -> float:
        return self.found / self.planted

    @property
    def precision(self) -> float:
        return self.found / max(1, self.found + self.false)


def scores(faults: Sequence[Fault], videos: Sequence[Rows], fewest: int = 1) -> list[Score]:
    """Each fault planted in a hundredth of all pairs, `fewest` at least, spread over the videos, for itself."""
    alarms = Counter(reason for rows in videos for verdict in rows[Verdict] for reason in GATES.reasons(verdict))
    pairs = [(pair, rows) for rows in videos for pair in rows[QAPair]]
    planted: list[list[QAPair]] = []
    for number, fault in enumerate(faults):
        chance, wanted = Random(number), max(fewest, math.ceil(SHARE * len(pairs)))
        drawn = (fault.planted(pair, chance) for pair, _ in chance.sample(pairs, len(pairs)))
        planted.append([pair for pair, _ in zip((each for each in drawn if each), range(wanted), strict=False)])
    found = _reasons([pair for of_fault in planted for pair in of_fault], videos)
    return [
        Score(
            fault,
            len(of_fault),
            sum(fault.found_as in found[id(pair)] for pair in of_fault),
            alarms[fault.found_as],
            len(pairs) - len(of_fault),
        )
        for fault, of_fault in zip(faults, planted, strict=True)
    ]


def _reasons(pairs: Sequence[QAPair], videos: Sequence[Rows]) -> dict[int, tuple[str, ...]]:
    """By the identity of a pair, since its id may be the fault. The stage keeps the order within a task."""
    found = {}
    for rows in videos:
        own = sorted((p for p in pairs if p.video_id == rows[QAPair][0].video_id), key=lambda pair: pair.task)
        verdicts = sorted(verified(rows, own), key=lambda verdict: verdict.task)
        for pair, verdict in zip(own, verdicts, strict=True):
            assert pair.qa_id == verdict.qa_id
            found[id(pair)] = GATES.reasons(verdict)
    return found
