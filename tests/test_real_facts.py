"""How often measured facts are true of real videos, which people labelled. All of them: `make real-facts`."""

import os
from pathlib import Path

import pytest
from real_facts import LABELS, Scored, decide, score, table, tally

from marathon_pipeline.records import Fact

SHORT = ("charades_indoor.mp4", "pysd_testvideo.mp4", "highway_cam_mpeg4.avi", "dashcam_carnd.mp4", "googlework.mp4")
ALL = bool(os.environ.get("MARATHON_REAL_FACTS"))
FLOORS = {  # share of what the labels decide that is true
    "activity calm": 0.95, "activity lively": 0.95, "busy": 0.95, "camera turns": 0.9, "camera unsteady": 0.95,
    "cut": 0.93, "setting": 0.95,
}  # fmt: skip
LEAST_CUTS_FOUND = 0.8


@pytest.fixture(scope="module")
def scored(real_videos: Path) -> list[Scored]:
    names = [name for name in (LABELS if ALL else SHORT) if (real_videos / name).is_file()]
    if not names:
        pytest.skip("none of the labelled videos is there")
    found = [score(real_videos, name) for name in names]
    print(*table(found), sep="\n")
    return found


@pytest.mark.timeout(600)
def test_what_is_told_of_real_videos_is_true_of_them(scored: list[Scored]) -> None:
    counts = tally(verdict for one in scored for verdict in one.verdicts)
    for kind, floor in FLOORS.items():
        if kind in counts and (known := counts[kind][True] + counts[kind][False]):
            false = known - counts[kind][True]
            # One false fact among few is a share that says nothing.
            assert false <= max(0 if ALL else 1, (1 - floor) * known), f"{kind}: {false} of {known} are false"


@pytest.mark.timeout(600)
def test_the_cuts_that_people_see_in_real_videos_are_found(scored: list[Scored]) -> None:
    cuts = [found for one in scored for _, found in one.cuts]
    assert sum(cuts) >= LEAST_CUTS_FOUND * len(cuts)


@pytest.mark.parametrize(
    ("fact", "true"),
    [
        (Fact(kind="cut", start=11, end=12), True),
        (Fact(kind="cut", start=30, end=31), False),
        (Fact(kind="cut", start=20, end=21), None),
        (Fact(kind="setting", start=0, end=9, subject="blue", other="green"), True),
        (Fact(kind="setting", start=0, end=9, subject="black", other="green"), False),
        (Fact(kind="setting", start=40, end=49, subject="blue"), None),
        (Fact(kind="activity", start=0, end=9, value="lively"), False),
        (Fact(kind="activity", start=0, end=30, value="calm"), None),
        (Fact(kind="busy", start=20, end=29, value="right"), False),
        (Fact(kind="camera", start=20, end=24, value="left"), True),
        (Fact(kind="camera", start=20, end=24, value="right"), False),
        (Fact(kind="camera", start=0, end=9, value="unsteady"), False),
        (Fact(kind="visible", start=20, end=29, subject="red circle"), True),
        (Fact(kind="visible", start=20, end=29, subject="red square"), False),
        (Fact(kind="visible", start=0, end=9, subject="green bar"), False),
        (Fact(kind="visible", start=40, end=49, subject="green bar"), None),
        (Fact(kind="enters", start=19.5, end=20.5, subject="red circle", value="left"), True),
        (Fact(kind="moves", start=0, end=5, subject="green bar", value="left"), False),
    ],
)
def test_a_fact_is_decided_by_what_is_labelled(fact: Fact, true: bool | None) -> None:
    labels = {
        "cuts": [11.5],
        "unsure": [[20, 21]],
        "halves": [[0, 30, ["blue"], ["green", "brown"]]],
        "calm": [[0, 10]],
        "busy": [[15, 30, ["left", "middle"]]],
        "camera": [[20, 24, "left"], [20, 30, "unsteady"]],
        "still": [[0, 10]],
        "things": [{"colour": "red", "at": [20, 30], "shape": "circle"}],
        "complete": [[0, 30]],
    }
    assert decide(fact, labels) is true
