"""A served model that judges the pairs: what it is asked, what becomes of it, and how its errors are found."""

import asyncio
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from by_hand import BINDING, TAXONOMY, ByHand, annotator, clip, reply, settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from served import answers, judge

from marathon_pipeline.annotators.served.pool import Reply, Request, body_of
from marathon_pipeline.audit.calibration import difference, in_force
from marathon_pipeline.audit.report import current_audit, write_audit
from marathon_pipeline.audit.statistics import Statistics
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.config import parse_job
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.journal import Answers, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.gates import Gates, load_gates
from marathon_pipeline.records import (
    LETTERS,
    Calibration,
    Clip,
    ClipCaption,
    Event,
    Outcome,
    QAPair,
    Record,
    Source,
    Span,
    Verdict,
    Video,
)
from marathon_pipeline.release.plan import planned_release
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.shipped import shipped
from marathon_pipeline.stages.calibrate import Calibrate
from marathon_pipeline.stages.judging import JudgeSettings
from marathon_pipeline.stages.stage import Given, Stage
from marathon_pipeline.stages.verify import Verify

TASK = "object_recognition"
GATES = load_gates(shipped("jobs/gates.yaml"))
THINGS = [f"the {colour} {item}" for item in ("cup", "kite", "drum", "hat") for colour in ("red", "blue", "pink")]


class Ruled(ByHand):
    """A sender that judges by rule, with these errors. `refusing`: texts of requests that it declines."""

    def __init__(self, refusing: str | None = None, **errors: float) -> None:
        super().__init__()
        self._errors, self._refusing = errors, refusing

    async def send(self, request: Request, *_: Any) -> Reply:
        self.requests.append(request)
        if self._refusing is not None and self._refusing in request.messages[1]["content"]:
            return reply("", refusal="I would rather not.")
        return reply(json.dumps(judge.answer(answers.asked(body_of(request, settings())), self._errors)))


class Tossed(ByHand):
    """A sender that tosses a coin: the test server's own answers."""


def captions_of(count: int) -> list[ClipCaption]:
    """Each says what is seen in it, and nothing of the others."""
    nothing = "Nothing else happens there, and nothing at all is heard or said."
    fields = dict.fromkeys(("temporality", "spatiality", "object", "action", "scene"), nothing)
    return [
        ClipCaption(
            video_id="video", clip_id=f"c{n:04d}", start=20.0 * n, end=20.0 * n + 30, binding=BINDING,
            summary=f"A person holds {thing(n)}.", **fields,
        )
        for n in range(count)
    ]  # fmt: skip


def thing(n: int) -> str:
    return f"{THINGS[n % len(THINGS)]} of {n:03}"


def pair(n: int, format: str, right: bool = True) -> QAPair:
    """About clip n. Not `right`: its answer is what another clip shows."""
    said = thing(n) if right else f"{thing(n + 7)} or so"
    options = [said, *(f"{THINGS[(n + k) % len(THINGS)]} of someone" for k in (1, 2, 3))] if format == "choice" else []
    options = [*options[-(n % 4) :], *options[: -(n % 4)]]
    question = f"What does person {n} hold?" if format == "choice" else f"What is held by person {n}?"
    return QAPair(
        qa_id=QAPair.id_of("video", TASK, format, question, options, said),  # type: ignore[arg-type]
        video_id="video", task=TASK, topic="object", format=format, question=question, options=tuple(options),
        answer=said, letter=LETTERS[options.index(said)] if options else "",
        evidence=(Span(start=20.0 * n, end=20.0 * n + 30),), clip_ids=(f"c{n:04d}",), binding=BINDING,
    )  # type: ignore[arg-type]  # fmt: skip


def both(count: int) -> list[QAPair]:
    return [pair(n, format) for n in range(count) for format in ("choice", "open")]


def run(stage: Stage, pairs: Sequence[QAPair], folder: Path) -> tuple[list[Any], Answers]:
    count = 1 + max(int(each.clip_ids[0][1:]) for each in pairs)
    rows: Mapping[type[Record], Sequence[Record]] = {
        Clip: [clip(n) for n in range(count)],
        ClipCaption: captions_of(count),
        QAPair: pairs,
    }
    told = Answers(Journal(Storage(str(folder)), stage.name, "video"), TASK)
    return list(asyncio.run(stage.run(Given(rows, told), TASK))), told


def verify(sender: ByHand | None, **more: Any) -> Verify:
    return Verify(TAXONOMY, (TASK,), annotator(sender) if sender else None, JudgeSettings(**more))


def calibrate(sender: ByHand, **more: Any) -> Calibrate:
    return Calibrate(annotator(sender), TAXONOMY, (TASK,), JudgeSettings(**{"calibrate": 1.0} | more))


def prompts(sender: ByHand) -> list[str]:
    return [request.messages[1]["content"] for request in sender.requests]


def test_a_verdict_holds_what_a_judge_said(tmp_path: Path) -> None:
    pairs = [*both(2), pair(2, "choice", right=False), pair(3, "open", right=False)]
    pairs[3] = pairs[3].model_copy(update={"answer": "Something happens to it."})
    verdicts, told = run(verify(Ruled()), pairs, tmp_path)
    by_pair = [(v.grounded_right, v.judged) for v in verdicts]
    assert by_pair == [(1, None), (None, "right"), (1, None), (None, "vague"), (0, None), (None, "wrong")]
    assert [v.blind_right for v in verdicts if v.grounded_right is None] == [None] * 3
    assert {v.blind_right for v in verdicts if v.grounded_right is not None} <= {0, 1}
    assert {v.unjudged for v in verdicts} == {""} and "unjudged" not in told.lost
    reasons = [GATES.reasons(v.model_copy(update={"blind_right": 0.667})) for v in verdicts]
    assert [each[-1:] for each in reasons] == [(), (), (), ("judged_vague",), ("not_grounded",), ("judged_wrong",)]


def test_without_a_judge_nothing_is_asked_and_nothing_else_changes(tmp_path: Path) -> None:
    offline = verify(None)
    verdicts, _ = run(offline, both(1), tmp_path)
    assert {(v.blind_right, v.grounded_right, v.judged, v.unjudged) for v in verdicts} == {(None, None, None, "")}
    assert ClipCaption not in offline.reads and offline.annotator is None
    assert offline.settings(TASK) == verify(None, orders=1, calibrate=0.5).settings(TASK)
    assert not any(GATES.reasons(v) for v in verdicts)


def test_blind_the_right_option_moves_and_nothing_of_the_video_is_shown(tmp_path: Path) -> None:
    sender, asked = Ruled(), pair(0, "choice")
    run(verify(sender, orders=4), [asked], tmp_path)
    blind = [text for text in prompts(sender) if "There are no notes" in text]
    assert len(blind) == 4 and not any("A person holds" in text for text in blind)
    assert {letter for text in blind for letter in LETTERS if f"{letter}. {asked.answer}\n" in text} == set(LETTERS)


def test_what_a_judge_reads_is_the_cited_clips_first_and_alike_for_all_that_cite_them(tmp_path: Path) -> None:
    sender = Ruled()
    run(verify(sender), both(2), tmp_path)
    seeing = [request for request in sender.requests if request.shared]
    assert len(seeing) == 4 and len({request.shared for request in seeing}) == 2
    for request in seeing:
        assert request.messages[1]["content"].startswith(request.shared)
        assert request.shared.count("A person holds") == 1


def test_more_clips_than_fit_are_told_by_fewer_fields(tmp_path: Path) -> None:
    wide = pair(0, "open").model_copy(update={"clip_ids": tuple(f"c{n:04d}" for n in range(60))})
    sender = Ruled()
    stage = Verify(TAXONOMY, (TASK,), annotator(sender, context_tokens=10240), JudgeSettings())
    (verdict,) = run(stage, [wide, pair(59, "open")], tmp_path)[0][:1]
    (shown,) = [text for text in prompts(sender) if text.count("Core:") > 1]
    assert verdict.judged == "right" and shown.count("Core: A person") == 60 and "(left out)" in shown


def test_a_pair_that_cannot_be_judged_says_why_and_leaves_the_others_theirs(tmp_path: Path) -> None:
    verdicts, told = run(verify(Ruled(refusing="held by person 0?")), both(2), tmp_path)
    assert [v.unjudged for v in verdicts] == ["", "refused", "", ""]
    assert [v.judged for v in verdicts] == [None, None, None, "right"]
    assert told.lost["unjudged"] == 1
    assert "unjudged" in GATES.reasons(verdicts[1]) and "unjudged" not in GATES.reasons(verdicts[3])


def test_where_no_pair_of_a_task_can_be_judged_the_task_fails(tmp_path: Path) -> None:
    for stage in (verify(Ruled(refusing="")), calibrate(Ruled(refusing=""))):
        with pytest.raises(Failed) as failed:
            run(stage, both(2), tmp_path)
        assert (failed.value.reason, failed.value.transient) == ("refused", False)


def test_a_failure_that_passes_is_left_to_the_next_run(tmp_path: Path) -> None:
    mixed = [lambda request: reply('{"reference": "0badc0de"}')] * 3
    with pytest.raises(Failed) as failed:
        run(verify(ByHand(*mixed)), [pair(0, "open")], tmp_path)
    assert failed.value.transient


@hypothesis_settings(max_examples=30)
@given(
    options=st.lists(st.sampled_from(["a", "b", "a b", "A", "", "\n"]), max_size=6),
    answer=st.sampled_from(["a", "b", "nothing"]),
)
def test_pairs_of_any_form_are_verified(options: list[str], answer: str) -> None:
    odd = pair(0, "choice").model_copy(update={"options": tuple(options), "answer": answer})
    with tempfile.TemporaryDirectory() as folder:
        (verdict, _), _ = run(verify(Ruled()), [odd, pair(1, "open")], Path(folder))
    sound = len(options) == 4 and answer in options
    assert (verdict.blind_right is not None) == (verdict.grounded_right is not None) == sound


# --- calibration


COUNT = 40


def tallies(folder: Path, sender: ByHand, count: int = COUNT) -> dict[str, tuple[int, int]]:
    rows, told = run(calibrate(sender), both(count), folder)
    found = {name: (told.tallies[f"{name} accepted"], n) for name, n in told.tallies.items() if "accepted" not in name}
    assert sum(n for _, n in found.values()) == len(rows)
    return found


def test_a_judge_that_errs_nowhere_is_found_to_err_nowhere(tmp_path: Path) -> None:
    assert tallies(tmp_path, Ruled()) == {
        "blind right": (COUNT, COUNT),
        "blind specific": (0, COUNT),
        "grounded right": (COUNT, COUNT),
        "grounded specific": (0, COUNT),
        "grounded vague": (0, COUNT),
        "judged right": (COUNT, COUNT),
        "judged specific": (0, COUNT),
        "judged vague": (0, COUNT),
    }


def test_planted_errors_of_a_tenth_come_out_as_a_tenth(tmp_path: Path) -> None:
    found = tallies(tmp_path, Ruled(miss=0.1, specific=0.1, vague=0.1), 100)
    expected = {"right": 0.9, "specific": 0.1, "vague": 0.1}
    special = {"grounded specific": 0.1 / 4, "blind specific": 0.1 / 3}  # whoever errs there takes any other option
    for name, (accepted, planted) in found.items():
        share = special.get(name, expected[name.split()[1]])
        assert abs(accepted / planted - share) < 3.5 * math.sqrt(share * (1 - share) / planted), name


def ledger_of(folder: Path, **judges: ByHand) -> Dataset:
    """A dataset whose ledger holds what calibrating these judges came to."""
    dataset = Dataset(str(folder / "dataset"), create=True)
    for name, sender in judges.items():
        _, told = run(calibrate(sender), both(COUNT), folder / name)
        of_judge = outcome("calibrate", tallies=dict(told.tallies), judge=told.judge)
        dataset.ledger.append([outcome("verify", judge=told.judge), of_judge])
    return dataset


def outcome(stage: str, part: str = TASK, **fields: object) -> Outcome:
    known = {"video_id": "video", "stage": stage, "part": part, "status": "ok", "fingerprint": "f", "content": stage}
    return Outcome.model_validate(known | fields)


MEASURES = {"blind", "grounded", "judged_right", "judged_vague"}


ALL = {"answered_blind", "not_grounded", "judged_wrong", "judged_vague", "unjudged"}


@pytest.mark.parametrize(
    ("judges", "forgiven", "counting"),
    [
        pytest.param({}, ALL, set(), id="nobody"),
        pytest.param({"sound": Ruled()}, set(), MEASURES, id="sound"),
        pytest.param({"erring": Ruled(miss=0.2, specific=0.2, vague=0.2)}, set(), MEASURES, id="erring"),
        pytest.param({"coin": Tossed()}, ALL, set(), id="coin"),
        pytest.param({"lenient": Ruled(vague=0.95)}, {"not_grounded", "judged_vague"}, {"blind"}, id="lenient"),
        pytest.param({"deaf": Ruled(miss=1.0)}, ALL, set(), id="deaf"),
    ],
)
def test_gates_count_where_the_judge_beats_chance_in_what_they_rest_on(
    judges: dict[str, ByHand], forgiven: set[str], counting: set[str], tmp_path: Path
) -> None:
    dataset = ledger_of(tmp_path, **judges)
    found = in_force(GATES, dataset.ledger)
    assert set(found.items.forgive) == forgiven
    assert {gate.measure for gate in found.dataset} & MEASURES == counting
    assert in_force(found, dataset.ledger) == found


def test_an_interval_of_a_difference_is_the_published_one() -> None:
    """Newcombe 1998, table II (a): 56 of 70 against 48 of 80."""
    assert difference((56, 70), (48, 80), 1.959964) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_calibration_is_in_no_verdicts_fingerprint() -> None:
    other = TAXONOMY.model_copy(update={"plants": TAXONOMY.plants.model_copy(update={"vague": ("Well.",)})})
    with_a_judge = verify(Ruled()).settings(TASK)
    assert with_a_judge == verify(Ruled(), calibrate=0.9).settings(TASK)
    assert with_a_judge == Verify(other, (TASK,), annotator(Ruled()), JudgeSettings()).settings(TASK)
    assert with_a_judge != verify(Ruled(), orders=2).settings(TASK)
    one, two = (Calibrate(annotator(Ruled()), each, (TASK,), JudgeSettings()) for each in (TAXONOMY, other))
    assert one.settings(TASK) != two.settings(TASK)


def test_the_sample_is_chosen_by_hash_and_grows_with_its_share(tmp_path: Path) -> None:
    def chosen(share: float) -> set[str]:
        rows, _ = run(calibrate(Ruled(), calibrate=share), both(60), tmp_path)
        return {row.qa_id for row in rows}

    few, more = chosen(0.1), chosen(0.3)
    assert few < more and 4 <= len(few) <= 24 and chosen(0.0) == set()


# --- the audit


def audited(folder: Path, sender: ByHand, wrong: int = 5) -> Dataset:
    """A finished video of twenty pairs in each format; of the open-ended ones so many are wrong."""
    pairs = [pair(n, "choice") for n in range(20)] + [pair(n, "open", right=n >= wrong) for n in range(20)]
    verdicts, told = run(verify(sender), pairs, folder / "verify")
    rows, calibration = run(calibrate(sender), pairs, folder / "calibrate")
    dataset = Dataset(str(folder / "dataset"), create=True)
    dataset.write_sources([Source(source_id="video", path="/video")])
    for record, own in ((QAPair, pairs), (Verdict, verdicts), (Calibration, rows), (ClipCaption, captions_of(20))):
        dataset.tables.write(record, "video", own, {})  # type: ignore[type-var]
    dataset.tables.write(Event, "video", [], {})
    stages = ("segment", "caption_clips", "caption_events", "summarize")
    dataset.ledger.append(
        [
            outcome("download", "", videos=("video",)),
            *(outcome(stage, "", video_seconds=410) for stage in stages),
            outcome("qa"),
            outcome("verify", judge=told.judge),
            outcome("calibrate", tallies=dict(calibration.tallies), judge=calibration.judge),
        ]
    )
    return dataset


def standards(text: str = "", folder: Path = Path()) -> Standards:
    gates = GATES
    if text:
        (folder / "gates.yaml").write_text(text)
        gates = load_gates(folder / "gates.yaml")
    return Standards(TAXONOMY, gates)


BOUNDS = "dataset: [{measure: judged_right, least: 0.99}, {measure: blind, most: 0.9, by: task}]"


def test_the_report_tells_what_a_judge_said_beside_how_often_it_errs(tmp_path: Path) -> None:
    dataset = audited(tmp_path, Ruled())
    found: Statistics = survey(dataset, standards(BOUNDS, tmp_path))
    assert found.judge and found.judge.model == "test" and found.judge.idle == ()
    (task,) = found.judge.tasks
    assert task.task == TASK and task.judged == {"right": 15, "wrong": 5, "vague": 0} == found.judge.total.judged
    assert task.grounded and (task.grounded.accepted, task.grounded.planted) == (20, 20)
    assert found.judge.corrected == {"grounded": 1.0, "judged": 0.75}
    assert found.problems["judged_wrong"] == 5 and found.tasks[9].accepted <= 35
    assert {check.label: check.state for check in found.checks} == {
        "judged_right": "broken",
        f"blind of task {TASK}": "holds",
    }
    page = (Path(dataset.url) / write_audit(dataset, standards()).html_key).read_text()
    assert "What a judge said" in page and "✓ beats chance" in page and "not shown" not in page
    assert "75 % are right, where it says 75 %" in page
    assert "a model judged the answers by the captions" in page and "What is measured here is form" not in page


def test_errors_of_the_judge_are_taken_out_of_what_it_says(tmp_path: Path) -> None:
    found = survey(audited(tmp_path, Ruled(miss=0.15)), standards()).judge
    assert found
    said = found.total.judged["right"] / 20
    (rates,) = (each for each in found.calibrated if each.measure == "judged")
    assert found.corrected["judged"] == pytest.approx(min(1, said / rates.right.share), abs=1e-5)


def test_a_judge_that_tosses_a_coin_is_found_out_and_rejects_nobody(tmp_path: Path) -> None:
    dataset = audited(tmp_path, Tossed())
    found = survey(dataset, standards(BOUNDS, tmp_path))
    assert found.judge and found.checks == () and found.accepted == found.qa == 40
    of_pairs = ["judged_vague of a pair", "judged_wrong of a pair", "unjudged of a pair"]
    assert list(found.judge.idle[:3]) == of_pairs, "gates without bounds have none for numbers"
    assert [each.partition(":")[0] for each in found.judge.idle[3:]] == ["judged_right", f"blind of task {TASK}"]
    shipped_idle = survey(dataset, standards()).judge
    assert shipped_idle and shipped_idle.idle[:4] == (*of_pairs[:2], "not_grounded of a pair", of_pairs[2])
    assert found.judge.corrected == {}
    page = (Path(dataset.url) / write_audit(dataset, standards(BOUNDS, tmp_path)).html_key).read_text()
    assert "✗ not shown to beat chance" in page and "These gates do not count" in page


def test_a_former_judge_vouches_for_no_other_and_is_not_named(tmp_path: Path) -> None:
    dataset = audited(tmp_path, Ruled())
    write_audit(dataset, standards())
    known = survey(dataset, standards()).judge
    assert known and current_audit(dataset, standards())
    (ended,) = dataset.ledger.of_stage("calibrate")
    dataset.ledger.append([outcome("verify", "temporal_order", judge="other 0123")])
    found = survey(dataset, standards())
    assert current_audit(dataset, standards()) is None
    assert found.judge and found.judge.model == "other" and "judged_wrong of a pair" in found.judge.idle
    assert not any(each.right.planted for each in found.judge.calibrated) and found.accepted == found.qa
    dataset.ledger.append([ended.model_copy(update={"part": "temporal_order", "judge": "other 0123"})])
    again = survey(dataset, standards()).judge
    assert again and again.calibrated == known.calibrated and again.idle == ()
    dataset.ledger.append([outcome("verify", judge=ended.judge)])
    dataset.ledger.flush()
    last = survey(Dataset(dataset.url), standards()).judge
    assert last and last.model == "test" and last.calibrated == known.calibrated


def test_a_release_follows_which_gates_count(tmp_path: Path) -> None:
    dataset = audited(tmp_path, Ruled())
    dataset.tables.write(Video, "video", [], {})

    def fingerprint(gates: Gates) -> str:
        settings = ReleaseSettings(media=False)
        rules = ReleaseRules(settings, TAXONOMY, in_force(gates, dataset.ledger))
        return planned_release(dataset, rules).parts[f"qa/{TASK}"]

    counting = fingerprint(GATES)
    dataset.ledger.append([outcome("calibrate", tallies={})])
    assert fingerprint(GATES) != counting


def test_a_dataset_that_nobody_judged_says_nothing_of_judges(tmp_path: Path) -> None:
    dataset = audited(tmp_path, Ruled())
    bare = [v.model_copy(update={"blind_right": None, "grounded_right": None, "judged": None}) for v in
            dataset.tables.read(Verdict, "video")]  # fmt: skip
    dataset.tables.write(Verdict, "video", bare, {})
    assert survey(dataset, standards()).judge is None
    assert "What a judge said" not in (Path(dataset.url) / write_audit(dataset, standards()).html_key).read_text()


@pytest.mark.parametrize("judging", ["measured", "nobody", "''"])
def test_only_a_model_of_the_job_can_judge(judging: str) -> None:
    text = f"dataset: d\nmodels: {{m: {{model: m, endpoints: [http://h/v1]}}}}\nannotators: {{judge: {judging}}}"
    with pytest.raises(UserError, match=r"annotators\.judge: .* is none of `models` \(m\)"):
        parse_job(text, "job", [])
    assert parse_job(text.replace(f"judge: {judging}", "judge: m"), "job", []).asks_models
