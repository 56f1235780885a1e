"""The sample in the formats of Argilla and Label Studio, and their judgements back."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline import cli
from marathon_pipeline.audit.survey import Standards
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.reviews import REASONS, Judged, Judgement
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates
from marathon_pipeline.review.deal import Dealt, deal
from marathon_pipeline.review.exchange import Tool, export_sample, take_in
from marathon_pipeline.taxonomy import load_taxonomy

TOOLS = ("argilla", "label-studio")
WHO = {"argilla": "3fa85f64-5717-4562-b3fc-2c963f66afa6", "label-studio": "7"}


@pytest.fixture
def dataset(built: Path, tmp_path: Path) -> Dataset:
    for part in ("dataset.json", "job.yaml", "sources.parquet"):
        (tmp_path / "out").mkdir(exist_ok=True)
        shutil.copy(built / "out" / part, tmp_path / "out")
    for part in ("ledger", "tables/qa", "tables/verdicts"):
        shutil.copytree(built / "out" / part, tmp_path / "out" / part)
    return Dataset(str(tmp_path / "out"))


def sample(dataset: Dataset) -> tuple[Dealt, ...]:
    standards = Standards(load_taxonomy(), Gates())
    return deal(dataset, standards, dataset.reviews(), 1, 0, lambda done, total: None).dealt


def judge(dataset: Dataset, dealt: Dealt, name: str, verdict: str, reason: str = "", note: str = "") -> None:
    judgement = Judgement.model_validate(
        dealt.judged._asdict()
        | {"video_id": dealt.pair.video_id, "reviewer": name, "verdict": verdict, "reason": reason, "note": note}
        | {"at": "2026-01-02T03:04:05Z"}
    )
    dataset.reviews().add(judgement)


def exported(dataset: Dataset, tool: Tool, folder: Path, judged: bool = False) -> Path:
    path = folder / ("sample" if tool == "argilla" else "sample.json")
    export_sample(sample(dataset), dataset.reviews(), tool, path, "https://videos.example.org/", judged)
    return path


def said(dataset: Dataset) -> set[tuple[str, ...]]:
    return {
        (judged.qa_id, each.reviewer, each.verdict, each.reason, each.note)
        for of_video in dataset.reviews().standings.values()
        for judged, standing in of_video.items()
        for each in standing.reviews
    }


def answered(path: Path, tool: Tool, qa_id: str, verdict: str, reason: str = "", note: str = "", who: str = "") -> Path:
    """The export as the tool gives it back once a person answered."""
    who = who or WHO[tool]
    file = path / "records.json" if tool == "argilla" else path
    rows: list[Any] = json.loads(file.read_text())
    for row in rows:
        if tool == "argilla" and row["id"] == qa_id:
            values = {"verdict": verdict, "reason": reason, "note": note}
            row["responses"] = {name: [{"value": v, "user_id": who}] for name, v in values.items() if v}
        if tool == "label-studio" and row["data"]["qa_id"] == qa_id:
            result = [
                {"from_name": name, "to_name": "question", "type": "choices", "value": {"choices": [v]}}
                for name, v in (("verdict", verdict), ("reason", reason))
                if v
            ]
            result += [{"from_name": "note", "to_name": "question", "type": "textarea", "value": {"text": [note]}}]
            row["annotations"] = [{"id": 1, "completed_by": int(who), "was_cancelled": False, "result": result}]
    file.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("tool", TOOLS)
def test_what_was_judged_comes_back_as_it_was(tool: Tool, dataset: Dataset, tmp_path: Path) -> None:
    first, second, *_ = sample(dataset)
    judge(dataset, first, "Ada", "accept")
    judge(dataset, first, "Ben", "reject", "other", 'it is "grün",\nnot red <b>')
    judge(dataset, second, "Ada", "reject", "unclear")
    before, path = said(dataset), exported(dataset, tool, tmp_path, judged=True)
    again = take_in(dataset, path, tool, {})
    assert (again.new, again.known, again.gone) == ({}, 3, 0)

    names = {each: each for each in ("Ada", "Ben")} if tool == "label-studio" else {}
    shutil.move(dataset.url + "/reviews", tmp_path / "away")
    judge(dataset, sample(dataset)[2], "Ada", "accept")  # so that its people are known
    judge(dataset, sample(dataset)[2], "Ben", "accept")
    assert take_in(dataset, path, tool, names).new == {"Ada": 2, "Ben": 1}
    assert before <= said(dataset)


@pytest.mark.parametrize("tool", TOOLS)
def test_an_export_is_blind_and_gives_back_what_a_person_says_there(
    tool: Tool, dataset: Dataset, tmp_path: Path
) -> None:
    first, second, *_ = sample(dataset)
    judge(dataset, first, "Ada", "reject", "other", "a secret of Ada")
    path = exported(dataset, tool, tmp_path)
    file = path / "records.json" if tool == "argilla" else path
    assert "secret" not in file.read_text() and "problems" not in file.read_text()
    assert "https://videos.example.org/proxies/" in file.read_text()

    answered(path, tool, first.pair.qa_id, "reject", "wrong_answer")
    with pytest.raises(UserError, match=f"who is `{WHO[tool]}`. give --name"):
        take_in(dataset, path, tool, {})
    assert take_in(dataset, path, tool, {WHO[tool]: "Ben"}).new == {"Ben": 1}
    assert (first.pair.qa_id, "Ben", "reject", "wrong_answer", "") in said(dataset)
    assert dataset.reviews().rejected(first.pair.video_id) == {first.judged}

    answered(path, tool, second.pair.qa_id, "reject")  # the tool was asked for no reason
    take_in(dataset, path, tool, {WHO[tool]: "Ben"})
    assert (second.pair.qa_id, "Ben", "reject", "other", "no reason given") in said(dataset)


@pytest.mark.parametrize("tool", TOOLS)
def test_an_older_export_does_not_undo_a_later_change_of_mind(tool: Tool, dataset: Dataset, tmp_path: Path) -> None:
    first, *_ = sample(dataset)
    path = answered(exported(dataset, tool, tmp_path), tool, first.pair.qa_id, "accept")
    assert take_in(dataset, path, tool, {WHO[tool]: "Ada"}).new == {"Ada": 1}
    judge(dataset, first, "Ada", "reject", "unclear")
    again = take_in(dataset, path, tool, {WHO[tool]: "Ada"})
    assert (again.new, again.known) == ({}, 1)
    assert said(dataset) == {(first.pair.qa_id, "Ada", "reject", "unclear", "")}


@pytest.mark.parametrize("tool", TOOLS)
def test_judgements_of_pairs_that_are_gone_are_told_and_left_out(tool: Tool, dataset: Dataset, tmp_path: Path) -> None:
    first, *_ = sample(dataset)
    path = answered(exported(dataset, tool, tmp_path), tool, first.pair.qa_id, "accept")
    file = path / "records.json" if tool == "argilla" else path
    file.write_text(file.read_text().replace(first.judged.shown, "another"))
    taken = take_in(dataset, path, tool, {WHO[tool]: "Ben"})
    assert (taken.new, taken.gone) == ({}, 1)


@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_is_written_over(tool: Tool, dataset: Dataset, tmp_path: Path) -> None:
    exported(dataset, tool, tmp_path)
    with pytest.raises(UserError, match="is there already"):
        exported(dataset, tool, tmp_path)
    assert not list(tmp_path.glob(".review-*"))


texts = st.text(max_size=20)
shapes = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "annotations", "id", "metadata", "responses", "verdict"]) | texts, inner
        )
    ),
    max_leaves=12,
)


@given(st.one_of(shapes.map(json.dumps), texts), st.sampled_from(TOOLS))
def test_a_file_of_another_kind_is_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str, tool: Tool
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "odd.json").write_text(text, encoding="utf-8")
    dataset = Dataset(str(folder / "out"), create=True)
    try:
        assert take_in(dataset, folder / "odd.json", tool, {}).new == {}
    except UserError as error:
        assert "\n" not in str(error) and "odd.json" in str(error)


def test_the_command_writes_and_reads_them(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def review(*arguments: str) -> str:
        cli.app(["review", dataset.url, *arguments], standalone_mode=False)
        return capsys.readouterr().out

    path = str(tmp_path / "sample.json")
    assert "22 QA pairs" in review("--per-task", "1", "--export", "label-studio", path)
    assert "judgements taken in: none" in review("--import", "label-studio", path)
    with pytest.raises(UserError, match="give one of argilla, label-studio"):
        review("--export", "prodigy", path)


def test_argilla_itself_reads_the_folder_and_writes_it_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import argilla
    from argilla._models import DatasetModel
    from argilla.records._io import JsonIO

    first, *_ = sample(dataset)
    judge(dataset, first, "Ada", "reject", "unclear", "says nothing")
    path = exported(dataset, "argilla", tmp_path, judged=True)
    monkeypatch.setattr(argilla.Argilla, "_get_default", lambda: MagicMock())  # no server is asked
    settings = argilla.Settings.from_json(path / ".argilla/settings.json")
    assert [question.name for question in settings.questions] == ["verdict", "reason", "note"]
    assert settings.questions["reason"].labels == list(REASONS)
    assert DatasetModel(**json.loads((path / ".argilla/dataset.json").read_text())).name == "sample"
    records = JsonIO._records_from_json(path / "records.json")
    JsonIO.to_json(records, tmp_path / "records.json")
    assert take_in(dataset, tmp_path / "records.json", "argilla", {}).known == 1
    assert {record.id for record in records} == {Judged.of(each.pair).qa_id for each in sample(dataset)}
