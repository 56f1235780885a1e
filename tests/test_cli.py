"""The command's manners: one line for a mistake, the right exit code, never a traceback."""

import json
from collections.abc import Iterator, Mapping
from typing import get_origin

import pytest
from conftest import CHECKOUT, Command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from marathon_pipeline.config import JobConfig, parse_job
from marathon_pipeline.errors import Failed, UserError

JOB = "dataset: out\n"


def one_line(err: str) -> str:
    (line,) = err.splitlines()
    assert line.startswith("marathon: ")
    return line


@pytest.mark.parametrize(
    ("job", "arguments", "said"),
    [
        (None, [], "no such job file (shipped ones: jobs/demo.yaml"),
        ("- a list", [], "holds no settings; begin with `dataset: FOLDER`"),
        ("a: [1", [], "job.yaml line 1: not YAML"),
        ("inputs: []", [], "dataset: is missing"),
        (JOB + "inptus: []", [], "inptus: no such setting"),
        (JOB + "segment: {min_seconds: soon}", [], "segment.min_seconds: "),
        (JOB + "tasks: [temporal_ordr]", [], "`temporal_ordr` is none of the 22 tasks"),
        (JOB + "release: {name: a/b}", [], "release.name: "),
        (JOB, ["--set", "dataset"], "--set dataset: not of the form key=value"),
        (JOB, ["--set", "segment.nothing=1"], "segment.nothing: no such setting"),
        (JOB, ["--tasks", "nope"], "`nope` is none of the 22 tasks"),
        (JOB, ["--until", "nope"], "`nope` is no stage"),
        (JOB, ["--input", "nowhere.mp4"], "--input nowhere.mp4 does not exist"),
        (JOB, ["--video", "nope"], "--video nope: the job has no such video"),
        (JOB, ["--sample", "0"], "--sample"),
        (JOB, ["--nonsense"], "No such option"),
        (JOB + "templates: nowhere", [], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(marathon: Command, job: str | None, arguments: list[str], said: str) -> None:
    if job is not None:
        (marathon.folder / "job.yaml").write_text(job)
    assert said in one_line(marathon("plan", "job.yaml", *arguments, code=2))


@pytest.mark.parametrize("command", [["status"], ["show", "v"], ["audit"], ["release", "r"], ["purge", "v"]])
def test_a_command_on_no_dataset_says_so_and_makes_none(marathon: Command, command: list[str]) -> None:
    name, *rest = command
    assert "no dataset there" in one_line(marathon.apart(name, "nowhere", *rest, code=2))
    assert list(marathon.folder.iterdir()) == []


def test_a_dataset_that_cannot_be_opened_is_not_planned_as_an_empty_one(marathon: Command) -> None:
    (marathon.folder / "job.yaml").write_text("dataset: hdfs://namenode/data\n")
    assert "hdfs://namenode/data" in one_line(marathon("plan", "job.yaml", code=2))


def test_plan_writes_nothing(marathon: Command) -> None:
    (marathon.folder / "job.yaml").write_text(JOB + "synthetic: {folder: videos, videos: 2, minutes: 3}\n")
    (row,) = json.loads(marathon("plan", "job.yaml", "--json"))
    assert (row["stage"], row["stale"]) == ("render", 2)
    assert [path.name for path in marathon.folder.iterdir()] == ["job.yaml"]


def test_a_wrong_manifest_row_is_reported_and_stops_nothing(marathon: Command) -> None:
    (marathon.folder / "m.jsonl").write_text('{"url": "https://a.example/v.mp4"}\n{"url": ""}\n')
    err = marathon.apart("manifest", "check", "m.jsonl", code=2)
    assert "m.jsonl line 2: " in one_line(err)


def test_tasks_lists_the_22(marathon: Command) -> None:
    assert len(json.loads(marathon.apart("tasks", "--json"))) == 22
    assert "the templates are sound" in marathon("tasks", "--check")
    assert json.loads(marathon("tasks", "--show", "temporal_order"))["topic"] == "temporality"


def settings_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = [a for a in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(a, type)]
        models = [a for a in inner if issubclass(a, BaseModel)]
        inside = f"{prefix}{name}.NAME." if get_origin(field.annotation) is Mapping else f"{prefix}{name}."
        yield from settings_of(models[0], inside) if models else [prefix + name]


def test_the_jobs_page_lists_every_setting() -> None:
    page = (CHECKOUT / "docs/jobs.md").read_text()
    assert [name for name in settings_of(JobConfig) if f"`{name}`" not in page] == []


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=80), st.lists(st.text(max_size=20), max_size=2))
def test_no_job_text_is_more_than_a_user_error(text: str, sets: list[str]) -> None:
    try:
        parse_job(text, "job", sets)
    except UserError as error:
        assert len(str(error).splitlines()) == 1


def test_a_name_that_steers_the_terminal_is_shown_and_not_obeyed() -> None:
    assert str(UserError("a\x1b[2J\x1e\u2028b\ud800 c")) == r"a\x1b[2J\x1e\u2028b\ud800 c"
    assert Failed("http_404", "gone\r\x07").message == r"gone\r\x07"
