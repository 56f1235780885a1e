"""Judgements of people: how they are kept, what counts, and what the audit, the gates and a release make of them."""

import random
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.audit.report import current_audit, write_audit
from marathon_pipeline.audit.reviewed import cohens_kappa, sound_share
from marathon_pipeline.audit.statistics import Check, ReviewStratum
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.reviews import Judged, Judgement, Reviews, Standing
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates, load_gates
from marathon_pipeline.records import QAPair, Verdict
from marathon_pipeline.release.plan import planned_release
from marathon_pipeline.release.release_file import read_release
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.write import write_release
from marathon_pipeline.shipped import shipped
from marathon_pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
SHIPPED = load_gates(shipped("jobs/gates.yaml"))


def said(reviewer: str, verdict: str, role: str = "review", pair: QAPair | None = None, **fields: object) -> Judgement:
    judged = Judged.of(pair) if pair else Judged("temporal_order", "q1", "s1")
    known = {"reviewer": reviewer, "verdict": verdict, "role": role, "at": "2026-01-02T03:04:05Z"} | judged._asdict()
    if verdict == "reject":
        known["reason"] = "wrong_answer"
    return Judgement.model_validate(known | {"video_id": pair.video_id if pair else "v1"} | fields)


def standing(storage: Storage) -> Standing:
    (of_video,) = Reviews(storage).standings.values()
    (found,) = of_video.values()
    return found


@pytest.mark.parametrize(
    ("voices", "ruling"),
    [
        ("Ada+", None),
        ("Ada+ Ben+", "accept"),
        ("Ada- Ben-", "reject"),
        ("Ada+ Ben-", None),
        ("Ada+ ada-", None),  # one person, however spelled
        ("Ada+ Ada- Ben-", "reject"),  # thought better of it
        ("Ada- Ada0 Ben-", None),  # took it back
        ("Ada+ Ben- CLEO-", "reject"),
        ("Ada+ Ben- CLEO- DAN+", None),
        ("Ada+ Ben- ADA-", None),  # one of the two alone settles nothing
        ("Ada+ Ben- ADA- BEN-", "reject"),
        ("Ada+ Ben- ADA- BEN+", None),
        ("Ada+ Ben- ADA- BEN- CLEO+", "accept"),
        ("Ada+ Ben+ CLEO-", "accept"),  # nothing is in dispute
    ],
)
def test_a_ruling_takes_two_who_agree_or_an_adjudication(voices: str, ruling: str | None, tmp_path: Path) -> None:
    """+ accepts, - rejects, 0 takes back; a name in capitals adjudicates."""
    reviews = Reviews(Storage(str(tmp_path)))
    for voice in voices.split():
        name, verdict = voice[:-1], {"+": "accept", "-": "reject", "0": "withdrawn"}[voice[-1]]
        reviews.add(said(name.capitalize(), verdict, "adjudicate" if name.isupper() else "review"))
    assert standing(Storage(str(tmp_path))).ruling == ruling


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("AB"), st.sampled_from(("accept", "reject")))))
def test_nothing_that_is_said_in_several_browsers_at_once_is_lost(
    tmp_path_factory: pytest.TempPathFactory, spoken: list[tuple[int, str, str]]
) -> None:
    storage = Storage(str(tmp_path_factory.mktemp("reviews")))
    browsers = [Reviews(storage) for _ in range(3)]  # none of them hears of the others
    for browser, name, verdict in spoken:
        browsers[browser].add(said(name, verdict))
    assert len(storage.keys("reviews")) == len(spoken)
    last = {name: verdict for _, name, verdict in spoken}
    found = Reviews(storage).standings.get("v1", {})
    assert {each.reviewer: each.verdict for of in found.values() for each in of.reviews} == last


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"verdict": "reject", "reason": ""}, "reason"),
        ({"verdict": "reject", "reason": "bad_luck"}, "reason"),
        ({"verdict": "reject", "reason": "other", "note": " "}, "in words"),
        ({"verdict": "accept", "reason": "unclear"}, "reason"),
        ({"reviewer": " \n"}, "name"),
        ({"verdict": "perhaps"}, "verdict"),
    ],
)
def test_a_judgement_without_what_it_needs_is_none(fields: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Judgement.model_validate(said("Ada", "accept").model_dump() | fields)


def test_a_damaged_judgement_is_named_since_it_may_have_rejected_a_pair(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write("reviews/00/v1/q1-0-0001.json", b"{")
    with pytest.raises(UserError, match=r"q1-0-0001\.json is no judgement"):
        Reviews(storage)


def stratum(pairs: int, judged: int, sound: int, task: str = "temporal_order", agreed: int = 0) -> ReviewStratum:
    return ReviewStratum(
        task=task, format="open", replaced=False, pairs=pairs, judged=judged, sound=sound, agreed=agreed
    )


def test_each_task_weighs_as_much_as_it_has_pairs() -> None:
    found = sound_share([stratum(900, 10, 10), stratum(100, 10, 0)])
    assert (found.share, found.judged, found.covers) == (0.9, 20, 1)
    assert found.low < 0.9 < found.high


def test_what_was_judged_to_the_last_pair_has_no_interval() -> None:
    found = sound_share([stratum(10, 10, 9), stratum(5, 5, 5)])
    assert (found.share, found.low, found.high) == (pytest.approx(14 / 15, abs=1e-6),) * 3


def test_of_what_nobody_judged_nothing_is_claimed() -> None:
    assert sound_share([stratum(900, 0, 0), stratum(100, 10, 10)]).covers == 0.1
    assert (sound_share([stratum(9, 0, 0)]).judged, sound_share([]).covers) == (0, 0)


@given(st.lists(st.tuples(st.integers(1, 500), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_the_share_lies_in_its_interval(parts: list[tuple[int, float, float]]) -> None:
    strata = []
    for pairs, part, right in parts:
        judged = max(1, round(part * pairs))
        strata.append(stratum(pairs, judged, round(right * judged)))
    found = sound_share(strata)
    assert 0 <= found.low <= found.share + 1e-6 and found.share <= found.high + 1e-6 and found.high <= 1


@pytest.mark.parametrize("shares", [(0.9, 0.9), (0.99, 0.6), (0.75, 1.0), (0.6, 0.99)])
def test_about_nineteen_of_twenty_intervals_hold_the_true_share(shares: tuple[float, float]) -> None:
    sizes, draws, dice, held = (400, 120), (40, 30), random.Random(7), 0
    worlds = [[index < round(part * size) for index in range(size)] for part, size in zip(shares, sizes, strict=True)]
    truth = sum(map(sum, worlds)) / sum(sizes)
    for _ in range(1000):
        counts = [sum(dice.sample(world, n)) for world, n in zip(worlds, draws, strict=True)]
        found = sound_share([stratum(len(w), n, k) for w, n, k in zip(worlds, draws, counts, strict=True)])
        held += found.low <= truth <= found.high
    assert held >= 915


def test_kappa_is_that_of_the_textbook() -> None:
    # Cohen's worked example as it is usually told: 20 and 15 of 50 agreed, 5 and 10 not
    both = {("accept", "accept"): 20, ("accept", "reject"): 5, ("reject", "accept"): 10, ("reject", "reject"): 15}
    assert cohens_kappa(both) == pytest.approx(0.4)
    assert cohens_kappa({("accept", "accept"): 9}) is None


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Dataset:
    shutil.copytree(built / "out", tmp_path / "out")
    return Dataset(str(tmp_path / "out"))


def accepted(dataset: Dataset, task: str) -> list[QAPair]:
    found = []
    for video in dataset.finished():
        sound = {v.qa_id for v in dataset.tables.read(Verdict, video.video_id) if not v.problems}
        pairs = dataset.tables.read(QAPair, video.video_id)
        found += [pair for pair in pairs if pair.task == task and pair.qa_id in sound]
    return found


def agree(dataset: Dataset, pairs: Iterable[QAPair], verdict: str, **fields: object) -> None:
    reviews = dataset.reviews()
    for pair in pairs:
        for name in ("Ada", "Ben"):
            reviews.add(said(name, verdict, pair=pair, **fields))


def test_a_pair_that_people_reject_is_out_of_the_next_release_and_only_its_task_moves(dataset: Dataset) -> None:
    settings = ReleaseSettings(media=False)
    write_release(dataset, "before", ReleaseRules(settings, TAXONOMY, SHIPPED))
    first, second, *_ = accepted(dataset, "temporal_order")
    agree(dataset, [first], "reject")
    agree(dataset, [second], "accept")
    write_release(dataset, "after", ReleaseRules(settings, TAXONOMY, SHIPPED))

    before, after = read_release(dataset, "before"), read_release(dataset, "after")
    assert before and after
    assert {part for part in before.parts if before.parts[part] != after.parts[part]} == {"qa/temporal_order"}
    assert after.tasks["temporal_order"].left_out["rejected_by_review"] == 1
    assert after.tasks["temporal_order"].qa == before.tasks["temporal_order"].qa - 1


def checks(dataset: Dataset, gates: Gates) -> dict[str, Check]:
    return {check.label: check for check in survey(dataset, Standards(TAXONOMY, gates)).checks}


def test_gates_judge_what_people_judged_and_nothing_is_claimed_before(dataset: Dataset) -> None:
    gates = Gates.model_validate(
        {
            "dataset": [
                {"measure": "reviewed_sound", "least": 0.9, "fewest": 5},
                {"measure": "agreement", "least": 0.5, "fewest": 5},
                {"measure": "reviewed_sound", "by": "task", "least": 0.9, "fewest": 5},
                {"measure": "accepted", "least": 0.9},
            ]
        }
    )
    before = checks(dataset, gates)
    assert (before["reviewed_sound"].found, before["reviewed_sound"].why) == ("nothing judged", "too few: 0 of 5")
    demanding = Gates.model_validate({"dataset": [{"measure": "reviewed", "least": 1}]})
    assert checks(dataset, demanding)["reviewed"].broken
    assert before.keys() == {"reviewed_sound", "agreement", "accepted"}

    pairs = accepted(dataset, "temporal_order")
    agree(dataset, pairs, "reject")
    after = checks(dataset, gates)
    of_task = after["reviewed_sound of task temporal_order"]
    assert (of_task.value, of_task.counted, of_task.broken) == (0, len(pairs), True)
    assert after["reviewed_sound"].broken and after["agreement"].state == "holds"
    assert after["accepted"].value < before["accepted"].value


def test_the_report_says_who_signed_and_judgements_of_what_is_gone_do_not_count(dataset: Dataset) -> None:
    standards = Standards(TAXONOMY, SHIPPED)
    assert "No share of sound pairs is claimed" in _page(dataset, standards)
    pairs = accepted(dataset, "temporal_order")
    agree(dataset, pairs[:3], "accept")
    moved = pairs[3].model_copy(update={"evidence": pairs[3].evidence[:0]})  # as it was shown then
    agree(dataset, [moved], "reject")
    dataset.reviews().add(said("Ada", "accept", pair=pairs[4]))
    assert not current_audit(dataset, standards), "a judgement does not make the report stale"

    page = _page(dataset, standards)
    reviewed = survey(dataset, standards).reviewed
    assert (reviewed.whole.judged, reviewed.half, reviewed.gone) == (3, 1, 1)
    assert "Signed by Ada (4 judged; 2026-01-02), Ben (3 judged; 2026-01-02)." in page
    assert "Ada and Ben agree on 3 of 3" in page
    assert planned_release(dataset, ReleaseRules(ReleaseSettings(), TAXONOMY, SHIPPED)).parts


def _page(dataset: Dataset, standards: Standards) -> str:
    return dataset.storage.read(write_audit(dataset, standards, sample_per_task=0).html_key).decode()
