"""Whole runs with a judge: what is asked when, what is released, and what a change of the gates or the sample does."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
import served
from conftest import Command
from test_served_faults import asked, journal, ledger

pytestmark = pytest.mark.slow

JOB = """
dataset: out
synthetic: {folder: videos, videos: 2, minutes: 2, seed: 5}
segment: {min_seconds: 0}
events: {min_events: 0}
tasks: [object_recognition, object_existence, action_recognition, temporal_order, overall_summarization]
gates: gates.yaml
models: {arbiter: {model: test, endpoints: [URL]}}
annotators: {judge: arbiter}
judge: {calibrate: 0.9}
release: {name: judged, media: false}
audit: {}
"""
GATES = """
items: {forgive: [not_grounded, judged_wrong, judged_vague], bounds: {blind_right: {most: BLIND}}}
dataset: [{measure: judged_right, least: 0}, {measure: blind, most: 0.9}]
"""


def start(marathon: Command, server: served.Server, blind: float = 0.99) -> None:
    (marathon.folder / "job.yaml").write_text(JOB.replace("URL", server.url))
    (marathon.folder / "gates.yaml").write_text(GATES.replace("BLIND", str(blind)))


def rows(folder: Path, what: str, table: str, where: str = "true") -> list[Any]:
    return duckdb.sql(f"select {what} from '{folder}/out/tables/{table}/*/*.parquet' where {where}").fetchall()


def released(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((folder / "out/releases" / name / "release.json").read_text()))


def pairs(release: dict[str, Any]) -> int:
    return sum(task["qa"] for task in release["tasks"].values())


def report(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "out/audit/report.json").read_text())["statistics"])


def test_what_a_judge_is_asked_is_asked_once_and_gates_judge_it_again(marathon: Command) -> None:
    folder = marathon.folder
    with served.running(model="test", judge='{"miss": 0.05, "specific": 0.05, "vague": 0.05}') as server:
        start(marathon, server)
        plan = json.loads(marathon("plan", "job.yaml", "--json"))
        estimated = {row["stage"] for row in plan if row["estimate"] and row["estimate"]["requests"]}
        assert estimated <= {"verify", "calibrate"}
        out = marathon("run", "job.yaml")
        assert "calibrate" in out and "judged-1" in out

        choice = rows(folder, "count(*)", "verdicts", "blind_right is not null")[0][0]
        opened = rows(folder, "count(*)", "verdicts", "judged is not null")[0][0]
        assert choice and opened and choice + opened == rows(folder, "count(*)", "qa")[0][0]
        calibrations = rows(folder, "count(*)", "calibrations")[0][0]
        units = [answer["unit"] for answer in journal(folder)]
        assert len(units) == len(asked(server)) == 4 * choice + opened + calibrations
        ended = [line for (stage, *_), line in ledger(folder).items() if stage == "calibrate"]
        tallies = [line["tallies"] for line in ended if "tallies" in line]
        assert sum(n for each in tallies for name, n in each.items() if "accepted" not in name) == calibrations

        judge = report(folder)["judge"]
        assert judge["model"] == "test"
        assert all(wrong["low"] > 0 for each in judge["calibrated"] for wrong in each["wrong"]) and not judge["idle"]
        first = released(folder, "judged-1")
        left_out = sum(task["left_out"].get("answered_blind", 0) for task in first["tasks"].values())
        assert left_out == rows(folder, "count(*)", "verdicts", "blind_right = 1")[0][0]

        before = len(asked(server))
        assert "judged-1" in marathon("run", "job.yaml") and len(asked(server)) == before
        start(marathon, server, blind=1)
        marathon("run", "job.yaml")
        assert pairs(released(folder, "judged-2")) == pairs(first) + left_out and len(asked(server)) == before

        verdicts = {key: line["content"] for key, line in ledger(folder).items() if key[0] == "verify"}
        marathon("run", "job.yaml", "--set", "judge.calibrate=1")
        more = rows(folder, "count(*)", "calibrations")[0][0] - calibrations
        assert len(asked(server)) == before + more
        assert verdicts == {key: line["content"] for key, line in ledger(folder).items() if key[0] == "verify"}

        marathon("run", "job.yaml", "--set", "annotators.judge=")
        assert len(asked(server)) == before + more
        assert rows(folder, "count(*)", "verdicts", "blind_right is not null or judged is not null") == [(0,)]
        assert report(folder)["judge"] is None


def test_a_judge_that_tosses_a_coin_is_said_to_and_keeps_nothing_out(marathon: Command) -> None:
    with served.running(model="test") as server:
        start(marathon, server)
        marathon("run", "job.yaml")
        out = marathon("audit", "out")
        assert "no      blind: " in out and "does not count, the judge is not shown to beat chance" in out
        release = released(marathon.folder, "judged-1")
        assert not any(task["left_out"] for task in release["tasks"].values()), "measured writes nothing bad"
        assert rows(marathon.folder, "count(*)", "verdicts", "judged = 'wrong'")[0][0] > 0


def test_a_judge_whose_server_refuses_everything_fails_the_tasks_and_can_be_asked_again(marathon: Command) -> None:
    with served.running(model="test", judge="{}", faults={"refuse": 1.0}) as server:
        start(marathon, server)
        assert "verify/object_recognition: refused" in marathon("run", "job.yaml", code=1)
    with served.running(model="test", judge="{}") as server:
        start(marathon, server)
        marathon("run", "job.yaml", "--retry-failed", "refused")
        assert rows(marathon.folder, "distinct unjudged", "verdicts") == [("",)]
