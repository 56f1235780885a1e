"""Gates: what they let through, what they say, and what they stop, without anything being measured again."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import JOB, Command
from test_end_to_end import copy_of, ledger_lines

from marathon_pipeline.audit.checks import Cell, judged
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates, load_gates
from marathon_pipeline.records import Verdict
from marathon_pipeline.shipped import shipped
from marathon_pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()


def gates(text: str, folder: Path) -> Gates:
    path = folder / "gates.yaml"
    path.write_text(text)
    return load_gates(path)


def verdict(*problems: str, **numbers: float) -> Verdict:
    fields = {"question_words": 9, "answer_words": 3, "option_length_ratio": 1.5, "evidence_seconds": 12.0} | numbers
    return Verdict.model_validate(fields | {"qa_id": "q", "video_id": "v", "task": "t", "problems": problems})


def test_a_pair_is_rejected_for_its_problems_and_for_numbers_out_of_bounds(tmp_path: Path) -> None:
    found = gates(
        "items: {forgive: [pipeline_word], bounds: {evidence_seconds: {least: 2, most: 60}, answer_words: {most: 5}}}",
        tmp_path,
    )
    assert found.reasons(verdict()) == ()
    assert found.reasons(verdict("pipeline_word")) == ()
    assert found.reasons(verdict("pipeline_word", "wrong_id")) == ("wrong_id",)
    assert found.reasons(verdict(evidence_seconds=1.9)) == ("evidence_seconds",)
    assert found.reasons(verdict("wrong_id", evidence_seconds=61, answer_words=6)) == (
        "wrong_id",
        "evidence_seconds",
        "answer_words",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("items: [", "while parsing"),
        ("itmes: {}", "itmes: Extra inputs"),
        ("items: {bounds: {evidence: {least: 1}}}", "none of the numbers of a verdict"),
        ("items: {bounds: {answer_words: {}}}", "neither `least` nor `most`"),
        ("dataset: [{measure: nothing, most: 0}]", "dataset #1 measure"),
        ("dataset: [{measure: accepted}]", "neither `least` nor `most`"),
        ("dataset: [{measure: accepted, least: .nan}]", "finite number"),
        ("dataset: [{measure: accepted, least: 1, by: colour}]", "dataset #1 by"),
        ("dataset: [{measure: waiting, most: 0, by: task}]", "over the whole dataset only"),
        ("dataset: [{measure: delivered, least: 0.5, by: source}]", "is not counted by source: write `by: topic`"),
        ("- a list", "dictionary"),
        ("items: &all {}\ndataset: *all", "aliases (*name) are not read"),
    ],
)
def test_a_file_that_holds_no_gates_is_said_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        gates(text, tmp_path)
    line = str(error.value)
    assert said in line and "gates.yaml: " in line and "docs/gates.md" in line and "\n" not in line


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load_gates(tmp_path / "nowhere.yaml")


def test_each_group_is_judged_for_itself_where_it_counts_enough(tmp_path: Path) -> None:
    cells = {
        Cell("temporal_order", "open", "ego4d", 1): Counter(qa=100, accepted=95),
        Cell("temporal_order", "choice", "ego4d", 2): Counter(qa=100, accepted=50),
        Cell("scene_recognition", "open", "", 1): Counter(qa=9, accepted=0),
    }

    def checks(gate: str) -> dict[str, tuple[float, int, bool]]:
        """What each group comes to, what that rests on, and whether the gate lets it pass."""
        found = judged(gates(f"dataset: [{gate}]", tmp_path), cells, Counter(waiting=3), TAXONOMY)
        return {check.label: (check.value, check.counted, not check.broken) for check in found}

    assert checks("{measure: accepted, least: 0.5}") == {"accepted": (0.69378, 209, True)}
    assert checks("{measure: accepted, least: 0.5, by: task}") == {
        "accepted of task temporal_order": (0.725, 200, True),
        "accepted of task scene_recognition": (0.0, 9, False),
    }
    assert checks("{measure: accepted, least: 0.5, by: task, fewest: 10}").keys() == {"accepted of task temporal_order"}
    assert checks("{measure: accepted, least: 0.8, by: format}") == {
        "accepted of format open": (0.87156, 109, True),
        "accepted of format choice": (0.5, 100, False),
    }
    assert checks("{measure: accepted, least: 0.8, by: template, fewest: 10}") == {
        "accepted of template temporal_order 1": (0.95, 100, True),
        "accepted of template temporal_order 2": (0.5, 100, False),
    }
    assert set(checks("{measure: accepted, least: 0.8, by: topic}")) == {
        "accepted of topic temporality",
        "accepted of topic scene",
    }
    assert set(checks("{measure: accepted, least: 0.8, by: source}")) == {
        "accepted of source not stated",
        "accepted of source ego4d",
    }
    assert checks("{measure: waiting, most: 2}") == {"waiting": (3, 1, False)}
    assert checks("{measure: accepted, least: 0.9, fewest: 1000}") == {"accepted": (0.69378, 209, True)}


@pytest.mark.parametrize(("asked", "ok"), [(20, True), (2000, False)])
def test_a_guesser_breaks_a_gate_only_where_chance_does_not_explain_it(asked: int, ok: bool, tmp_path: Path) -> None:
    cells = {Cell("temporal_order", "choice", "", 1): Counter(longest=asked, longest_right=asked // 2)}
    bound = gates("dataset: [{measure: longest_option, most: 0.4}]", tmp_path)
    (check,) = judged(bound, cells, Counter(), TAXONOMY)
    assert (check.value, not check.broken) == (0.5, ok) and check.found.startswith("50 % (")


@pytest.mark.parametrize(
    ("letters", "broken"),
    [
        ((402_400, 399_200, 399_200, 399_200), False),  # 25.15 %: p is 0.0002, and nobody learns anything from it
        ((16, 11, 12, 11), False),
        ((480_000, 373_333, 373_333, 373_334), True),  # 30 %
        ((60, 20, 20, 20), True),
    ],
)
def test_letters_break_a_gate_where_they_are_surely_uneven_and_by_much(letters: tuple[int, ...], broken: bool) -> None:
    cells = {Cell("temporal_order", "choice", "", 1): Counter(dict(zip("ABCD", letters, strict=True)))}
    checks = judged(load_gates(shipped("jobs/gates.yaml")), cells, Counter(), TAXONOMY)
    assert {check.name: check.broken for check in checks if not check.by}["letter_share"] is broken
    assert not any(check.name == "letters" for check in checks)


@pytest.mark.parametrize(
    ("commonest", "clips", "broken"),
    [
        (20, 1_000, set()),
        (80, 1_000, {"commonest_caption"}),
        (900, 1_700_000, set()),
        (85_000, 1_700_000, {"commonest_clips"}),  # 5 %
    ],
)
def test_a_caption_that_stands_at_very_many_clips_breaks_a_gate_however_large_the_dataset(
    commonest: int, clips: int, broken: set[str]
) -> None:
    whole = Counter(commonest=commonest, captions=clips)
    checks = judged(load_gates(shipped("jobs/gates.yaml")), {}, whole, TAXONOMY)
    assert {check.name for check in checks if check.broken and check.name.startswith("commonest")} == broken


def test_a_release_below_its_gates_is_not_made_unless_a_reason_is_given(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    before = ledger_lines(tmp_path)
    (tmp_path / "strict.yaml").write_text(
        "items: {bounds: {evidence_seconds: {most: 20}}}\n"
        "dataset: [{measure: accepted, least: 0.99}, {measure: accepted, by: task, least: 0.99, fewest: 5}]\n"
    )
    shown = marathon("audit", "out", "--gates", "strict.yaml", code=1)
    assert "BROKEN  accepted: " in shown and "BROKEN  accepted of task " in shown

    strict = ("run", "job.yaml", "--set", "gates=strict.yaml")
    out = marathon.here(*strict, code=1)
    assert "release  test-2 is not made, for a gate is broken: accepted: " in out and "report " in out
    assert [path.name for path in (tmp_path / "out/releases").iterdir()] == ["test-1"]
    assert "is not made" in marathon("release", "out", "mine", code=2)
    marathon("release", "out", "mine", "--despite", "for a demonstration")
    marathon.here(*strict, "--set", "release.despite=for a demonstration")

    for name in ("mine", "test-2"):
        release = json.loads((tmp_path / "out/releases" / name / "release.json").read_text())
        assert release["approval"]["despite"] == "for a demonstration"
        assert release["approval"]["broken"][0].startswith("accepted: ")
        assert sum(task["left_out"].get("evidence_seconds", 0) for task in release["tasks"].values()) > 0
        assert "for a demonstration" in (tmp_path / "out/releases" / name / "README.md").read_text()
    assert ledger_lines(tmp_path) == before, "something was measured again"


def test_a_run_says_that_a_gate_is_broken_now_although_its_release_stands(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    shipped_ones = shipped("jobs/gates.yaml").read_text()
    (tmp_path / "strict.yaml").write_text(f"{shipped_ones}  - {{measure: mean_events, least: 1000}}\n")
    strict = ("run", "job.yaml", "--set", "gates=strict.yaml")
    for _ in range(2):  # the second one finds its report, and measures nothing
        out = marathon.here(*strict, code=1)
        assert "release  test-1 stands, but a gate is broken now: mean_events: " in out and "report " in out
    assert "test-1 stands, but a gate is broken now" in marathon("release", "out", "test-1", code=2)
    out = marathon.here(*strict, "--set", "release.despite=for a demonstration")
    assert "releases/test-1" in out and ", unchanged" in out
    assert [path.name for path in (tmp_path / "out/releases").iterdir()] == ["test-1"]


def test_a_release_that_was_approved_despite_a_gate_stands_without_a_word(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    shutil.rmtree(tmp_path / "out/releases")
    (tmp_path / "strict.yaml").write_text("dataset: [{measure: mean_events, least: 1000}]")
    strict = ("run", "job.yaml", "--set", "gates=strict.yaml")
    marathon.here(*strict, "--set", "release.despite=for a demonstration")
    assert ", unchanged" in marathon.here(*strict)


def test_the_command_names_what_was_not_judged_and_the_report_the_lists_that_were_given(
    built: Path, tmp_path: Path
) -> None:
    marathon = copy_of(built, tmp_path)
    assert "no      benchmark_videos: not judged, no list given" in marathon("audit", "out")
    rows = [json.dumps({"url": f"https://videos.example.org/{name}.mp4"}) for name in "ab"]
    (tmp_path / "lvbench.jsonl").write_text("\n".join(rows))
    marathon.here("run", "job.yaml", "--set", "audit.benchmarks=[lvbench.jsonl]")
    report = json.loads((tmp_path / "out/audit/report.json").read_text())["statistics"]
    assert (report["benchmark_lists"], report["benchmarks"]) == ({"lvbench": 2}, {})
    assert next(c for c in report["checks"] if c["name"] == "benchmark_videos")["state"] == "holds"


def test_a_problem_that_nobody_knows_cannot_be_forgiven(built: Path, tmp_path: Path) -> None:
    marathon: Command = copy_of(built, tmp_path)
    (tmp_path / "gates.yaml").write_text("items: {forgive: [bad_luck]}")
    assert "`bad_luck` is no problem of a QA pair" in marathon("audit", "out", "--gates", "gates.yaml", code=2)


@pytest.mark.parametrize(
    ("setting", "said"),
    [("gates=nowhere.yaml", "nowhere.yaml: "), ("audit.benchmarks=[nowhere.jsonl]", "nowhere.jsonl")],
)
def test_what_a_dataset_is_held_against_is_read_before_anything_is_begun(
    setting: str, said: str, marathon: Command
) -> None:
    (marathon.folder / "job.yaml").write_text(JOB)
    for command in ("run", "plan"):
        assert said in marathon.here(command, "job.yaml", "--set", setting, code=2)
    assert [path.name for path in marathon.folder.iterdir()] == ["job.yaml"]


def test_the_shipped_gates_are_read() -> None:
    assert load_gates(shipped("jobs/gates.yaml")).dataset
