"""How often a judge errs, and which gates count in view of that."""

import math
from collections import Counter

from marathon_pipeline.audit.statistics import Against, Calibrated, Rate, share, wilson
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.gates import DatasetGate, Gates
from marathon_pipeline.records import JudgedMeasure, Planted

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


def calibrated(ledger: Ledger) -> tuple[Calibrated, ...]:
    """What `calibrate` found, measure by measure; intervals that say nothing where it found nothing."""
    tallies = Counter[str]()
    for outcome in ledger.of_stage("calibrate"):
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
    return Rate(
        planted=planted, accepted=accepted, share=share(accepted, planted), low=round(low, 6), high=round(high, 6)
    )


def _against(right: Rate, planted: Planted, wrong: Rate) -> Against:
    """Youden's J with the interval of a difference of two shares (Newcombe 1998, method 10)."""
    better = right.share - wrong.share
    low = better - math.hypot(right.share - right.low, wrong.high - wrong.share)
    high = better + math.hypot(right.high - right.share, wrong.share - wrong.low)
    return Against(planted=planted, accepted=wrong, better=round(better, 6), low=round(low, 6), high=round(high, 6))


def in_force(gates: Gates, ledger: Ledger) -> Gates:
    """The gates without those that rest on a judge who is no better than chance, or of whom nothing is known."""
    beaten = {
        each.measure: {wrong.planted for wrong in each.wrong if wrong.beats_chance} for each in calibrated(ledger)
    }
    idle = {name for name, (measure, kinds) in _RESTS_ON.items() if not beaten[measure].issuperset(kinds)}
    if not any(beaten.values()):
        idle.add("unjudged")
    items = gates.items.model_copy(update={"forgive": tuple(sorted({*gates.items.forgive, *idle & _REASONS}))})
    return gates.model_copy(
        update={"items": items, "dataset": tuple(gate for gate in gates.dataset if gate.measure not in idle)}
    )


def out_of_force(gates: Gates, ledger: Ledger) -> tuple[DatasetGate, ...]:
    """The gates of the dataset that `in_force` leaves out."""
    counting = in_force(gates, ledger).dataset
    return tuple(gate for gate in gates.dataset if gate not in counting)
