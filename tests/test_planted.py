"""Faults planted in clean datasets: what the audit finds, and that it finds nothing where nothing is planted."""

import pytest
from planted.clean import videos
from planted.pairs import FAULTS
from planted.run import RECALL, pair_table
from planted.score import GATES, Score, scores

from marathon_pipeline.audit.measures import PROBLEMS

FEW, MANY = 2, 28  # videos


def faults_of(found: list[Score]) -> list[str]:
    """What falls short: of a certain fault anything missed, of the others what was measured, with room."""
    return [
        f"{each.fault.found_as}, {each.fault.says}: {each.found} of {each.planted}"
        for each in found
        if each.recall < (1 if each.fault.certain else RECALL.get(each.fault.says, 0.9))
    ] + [f"{each.fault.found_as}: {each.false} clean pairs" for each in found if each.false]


def test_every_problem_and_every_number_with_a_bound_is_planted() -> None:
    assert {fault.found_as for fault in FAULTS} == set(PROBLEMS) | set(GATES.items.bounds)


def test_planted_faults_are_found_and_clean_pairs_are_let_through() -> None:
    certain = [fault for fault in FAULTS if fault.certain]
    assert faults_of(scores(certain, videos(FEW), fewest=4)) == []


@pytest.mark.slow
def test_of_a_hundredth_of_faulty_pairs_among_thousands_nothing_certain_is_missed() -> None:
    found = scores(FAULTS, videos(MANY))
    assert faults_of(found) == []
    assert min(each.planted for each in found) >= 30 and min(each.clean for each in found) >= 3000
    assert len(pair_table(found).splitlines()) == len(FAULTS) + 2
