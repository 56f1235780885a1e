"""Faults planted in clean datasets: what the audit finds, and that it finds nothing where nothing is planted."""

import pytest
from planted import wholes
from planted.clean import videos
from planted.confusion import MOVED, confusion, golden_video
from planted.pairs import FAULTS
from planted.run import RECALL, VIDEOS, broken, spoilt
from planted.score import GATES, Score, scores
from planted.standin import JUDGES, StandIn
from planted.wholes import Whole

from marathon_pipeline.audit.checks import MEASURES
from marathon_pipeline.audit.measures import PROBLEMS

FEW = 2  # videos


def faults_of(found: list[Score]) -> list[str]:
    """What falls short: of a certain fault anything missed, of the others what was measured, with room."""
    return [
        f"{each.fault.found_as}, {each.fault.says}: {each.found} of {each.planted}"
        for each in found
        if each.recall < (1 if each.fault.certain else RECALL.get(each.fault.says, 0.9))
    ] + [f"{each.fault.found_as}: {each.false} clean pairs" for each in found if each.false]


def test_every_problem_and_every_number_with_a_bound_is_planted() -> None:
    by_a_judge = {"grounded_right"}  # planted before judges of all kinds in test_judge.py
    assert {fault.found_as for fault in FAULTS} == (set(PROBLEMS) | set(GATES.items.bounds)) - by_a_judge


def test_planted_faults_are_found_and_clean_pairs_are_let_through() -> None:
    certain = [fault for fault in FAULTS if fault.certain]
    assert faults_of(scores(certain, videos(FEW), fewest=4)) == []


@pytest.mark.slow
def test_of_a_hundredth_of_faulty_pairs_among_thousands_nothing_certain_is_missed() -> None:
    found = scores(FAULTS, videos(VIDEOS))
    assert faults_of(found) == []
    assert min(each.planted for each in found) >= 30 and min(each.clean for each in found) >= 3000


def test_every_measure_of_a_dataset_is_planted() -> None:
    bounded_by_none, of_thousands = "letters", "commonest_clips"  # planted before large counts in test_gates.py
    assert {fault.found_as for fault in wholes.FAULTS} == set(MEASURES) - {bounded_by_none, of_thousands}


@pytest.mark.slow
def test_a_clean_dataset_breaks_no_gate() -> None:
    assert broken(Whole.of(videos(VIDEOS))) == []


@pytest.mark.slow
def test_a_judge_who_finds_little_fault_breaks_no_gate() -> None:
    whole = Whole.of(videos(VIDEOS))
    wholes.judged()(whole)
    assert broken(whole) == []


@pytest.mark.slow
@pytest.mark.parametrize("fault", wholes.FAULTS, ids=lambda fault: fault.found_as)
def test_a_fault_of_a_whole_dataset_breaks_its_gate(fault: wholes.Fault) -> None:
    assert fault.found_as in {check.name for check in broken(spoilt(fault))}


def test_the_audit_rejects_no_right_pair_and_every_malformed_one() -> None:
    """What is well made and wrong it cannot tell without a model: docs/audit.md."""
    table = {row.kind: row for row in confusion([golden_video()])}
    assert table["right"].rejected == 0 < table["right"].pairs
    assert table["malformed"].rejected == table["malformed"].pairs > 0
    assert sum(row.pairs for row in table.values()) > 300


def test_a_judge_that_knows_the_truth_has_all_that_is_wrong_rejected_and_a_coin_nothing() -> None:
    video = golden_video()
    alone = confusion([video])
    knowing, coin = (confusion([video], StandIn(JUDGES[number], calibrate=0.5)) for number in (0, -1))
    assert coin == alone
    right, *wrong = knowing
    assert right.rejected == 0 < right.pairs
    assert [row for row in wrong if row.rejected < row.pairs and row.kind != MOVED] == []
