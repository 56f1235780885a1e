"""How often a judge errs, and which gates count in view of that."""

import math
from collections import Counter

from marathon_pipeline.audit.statistics import Against, Calibrated, Rate, share
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.gates import DatasetGate, Gates
from marathon_pipeline.intervals import wilson
from marathon_pipeline.records import JudgedMeasure, Planted

_Z = 3.290527  # 99.9 %
_WRONG: dict[JudgedMeasure, tuple[Planted, ...]] = {
    "blind": ("specific",),
    "grounded": ("specific", "vague"),
    "judged": ("specific", "vague"),
}
# What a judge has to tell from a right answer, so that a reason to reject a pair, or a gate of the dataset, counts.
_RESTS_ON: dict[str, tuple[JudgedMeasure, tuple[Planted, ...]]] = {
    "answered_blind": ("blind", ("specific",)),
    "not_grounded": ("grounded", ("specific", "vague")),
    "judged_wrong": ("judged", ("specific",)),
    "judged_vague": ("judged", ("vague",)),
    "blind": ("blind", ("specific",)),
    "grounded": ("grounded", ("specific", "vague")),
    "judged_right": ("judged", ("specific", "vague")),
}
_REASONS = frozenset({"answered_blind", "not_grounded", "judged_wrong", "judged_vague", "unjudged"})


def judge_of(ledger: Ledger) -> str:
    """Who gave the newest verdicts, of those that a judge gave."""
    verified = (outcome for outcome in ledger.of_stage("verify") if outcome.status == "ok")
    return next((outcome.judge for outcome in verified if outcome.judge), "")


def calibrated(ledger: Ledger) -> tuple[Calibrated, ...]:
    """What `calibrate` found of the judge that there is now, measure by measure.

    Where it found nothing, intervals that say nothing: what is known of a former judge vouches for no other.
    """
    tallies = Counter[str]()
    if outcomes := list(ledger.of_stage("calibrate")):
        judge = judge_of(ledger)
        for outcome in outcomes:
            if outcome.judge == judge:
                tallies.update(outcome.tallies)
    return tuple(_of_measure(measure, kinds, tallies) for measure, kinds in _WRONG.items())


def _of_measure(measure: JudgedMeasure, kinds: tuple[Planted, ...], tallies: Counter[str]) -> Calibrated:
    def accepted(planted: Planted) -> Rate:
        return rate(tallies[f"{measure} {planted} accepted"], tallies[f"{measure} {planted}"])

    right = accepted("right")
    wrong = tuple(_against(right, kind, accepted(kind)) for kind in kinds)
    return Calibrated(measure=measure, right=right, wrong=wrong)


def rate(accepted: int, planted: int) -> Rate:
    low, high = wilson(accepted, planted)
    low, high = max(0.0, low), min(1.0, high)  # rounding goes beyond
    return Rate(
        planted=planted, accepted=accepted, share=share(accepted, planted), low=round(low, 6), high=round(high, 6)
    )


def _against(right: Rate, planted: Planted, wrong: Rate) -> Against:
    better, low, high = difference((right.accepted, right.planted), (wrong.accepted, wrong.planted), _Z)
    return Against(planted=planted, accepted=wrong, better=round(better, 6), low=round(low, 6), high=round(high, 6))


def difference(one: tuple[int, int], other: tuple[int, int], z: float) -> tuple[float, float, float]:
    """One share, a part and a whole, less another, with the interval of that (Newcombe 1998, method 10)."""
    p, q = one[0] / max(1, one[1]), other[0] / max(1, other[1])
    (p_low, p_high), (q_low, q_high) = wilson(*one, z), wilson(*other, z)
    return p - q, p - q - math.hypot(p - p_low, q_high - q), p - q + math.hypot(p_high - p, q - q_low)


def in_force(gates: Gates, ledger: Ledger) -> Gates:
    """The gates without those that rest on a judge who is no better than chance, or of whom nothing is known."""
    found = calibrated(ledger)
    beaten = {each.measure: {wrong.planted for wrong in each.wrong if wrong.beats_chance} for each in found}
    idle = {name for name, (measure, kinds) in _RESTS_ON.items() if not beaten[measure].issuperset(kinds)}
    if not any(beaten.values()):
        idle.add("unjudged")
    items = gates.items.model_copy(update={"forgive": tuple(sorted({*gates.items.forgive, *idle & _REASONS}))})
    return gates.model_copy(
        update={"items": items, "dataset": tuple(gate for gate in gates.dataset if gate.measure not in idle)}
    )


def out_of_force(gates: Gates, ledger: Ledger) -> tuple[tuple[str, ...], tuple[DatasetGate, ...]]:
    """What `in_force` leaves out: reasons for which these gates reject a pair, and gates of the dataset."""
    counting = in_force(gates, ledger)
    reasons = {*counting.items.forgive} - {*gates.items.forgive} - gates.items.unbound
    return tuple(sorted(reasons)), tuple(gate for gate in gates.dataset if gate not in counting.dataset)
