"""Runs against a server that fails in every way, is killed, or whose caller is killed: what the dataset holds then."""

import gzip
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest
import served
import yaml
from conftest import Command, those_that_ask

from marathon_pipeline.shipped import shipped

JOB = """
dataset: out
synthetic: {folder: VIDEOS, videos: 2, minutes: 1, seed: 5}
segment: {min_seconds: 0}
captions: {max_lost: 0}
events: {min_events: 0}
models:
  one: {model: test, endpoints: [URL], timeout_seconds: 2, max_in_flight: 8, frames: {count: 4, height: 96}}
annotators: {caption_clips: one, caption_events: one, summarize: one, qa: one}
"""
TABLES = ("clip_captions", "events", "summaries", "qa")
STAGES = ("caption_clips", "caption_events", "summarize", "qa")


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job whose videos are cut into clips, and whose server nobody has asked yet."""
    folder = tmp_path_factory.mktemp("segmented")
    (folder / "job.yaml").write_text(JOB.replace("VIDEOS", str(folder / "videos")))
    Command(folder)("run", "job.yaml", "--until", "segment", "--set", "models.one.endpoints=[http://127.0.0.1:9/v1]")
    return folder


@pytest.fixture(scope="module")
def undisturbed(segmented: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with a dataset that nothing went wrong with, and how many requests that took."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with serving(latency=0.02) as server:
        copied(segmented, folder, server)("run", "job.yaml")
        return folder, len(asked(server))


@contextmanager
def serving(**options: Any) -> Iterator[served.Server]:
    with served.running(**({"model": "test"} | options)) as server:
        yield server


def asked(server: served.Server) -> list[dict[str, Any]]:
    """What has ended, but for the question that every run begins with."""
    return [entry for entry in server.requests() if entry["schema"] != "support_check"]


def copied(folder: Path, to: Path, server: served.Server, *others: served.Server, **model: Any) -> Command:
    """The same job and dataset, for other servers."""
    shutil.copytree(folder / "out", to / "out")
    job = yaml.safe_load((folder / "job.yaml").read_text())
    job["models"]["one"] |= {"endpoints": [each.url for each in (server, *others)]} | model
    (to / "job.yaml").write_text(yaml.safe_dump(job))
    return Command(to)


def rows(folder: Path, table: str) -> list[Any]:
    files = f"{folder}/out/tables/{table}/*/*.parquet"
    return duckdb.sql(f"select * exclude (binding) from '{files}' order by all").fetchall()


def ledger(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """How each piece of work ended last."""
    lines = [line for path in sorted((folder / "out/ledger").iterdir()) for line in path.read_text().splitlines()]
    return {(line["stage"], line["video_id"], line.get("part", "")): line for line in map(json.loads, lines)}


def journal(folder: Path) -> list[dict[str, Any]]:
    """Every answer on record."""
    lines: list[str] = []
    for path in sorted((folder / "out/journal").rglob("*")):
        if path.suffix == ".gz":
            lines += gzip.decompress(path.read_bytes()).decode().splitlines()
        elif path.is_file():
            lines += path.read_text().splitlines()
    return [line for line in map(json.loads, lines) if "request" in line]


def answered_well(server: served.Server) -> Counter[str]:
    return Counter(
        entry["body"]
        for entry in asked(server)
        if entry["status"] == 200 and entry["finish"] == "stop" and entry["fault"] in ("", "late") and not entry["gone"]
    )


def once(holds: Callable[[], bool], process: Any) -> None:
    while not holds():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture
def marathon_on(segmented: Path, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    yield lambda *servers, **model: copied(segmented, tmp_path, *servers, **model)


MIX = {
    "late": 0.06,
    "rate_limit": 0.06,
    "error": 0.05,
    "unavailable": 0.05,
    "cut": 0.05,
    "hang": 0.01,
    "truncate": 0.05,
    "schema": 0.05,
    "refuse": 0.01,
    "repeat": 0.04,
    "swap": 0.07,
    "late_seconds": 0.5,
}


@pytest.mark.slow
def test_all_faults_at_once_and_a_server_that_dies_and_comes_back_change_nothing_that_was_answered(
    undisturbed: tuple[Path, int], marathon_on: Callable[..., Command], tmp_path: Path
) -> None:
    with serving(latency=0.05, jitter=0.05, faults=MIX) as server:
        process = marathon_on(server).start("run", "job.yaml")
        once(lambda: server.stats()["answered"] > 30, process)
        server.kill()
        struck = Counter(entry["fault"] for entry in asked(server) if entry["fault"])
        time.sleep(1)
        server.restart()
        out, err = process.communicate(timeout=150)
        assert process.returncode in (0, 1) and "Traceback" not in out + err, out + err
        for _ in range(4):
            reasons = {line["reason"] for line in ledger(tmp_path).values() if line["status"] == "failed"}
            assert reasons <= {
                "refused",
                "bad_answer",
                "mixed_up",
                "timeout",
                "server_error",
                "server_busy",
            }
            if not reasons:
                break
            again = Command(tmp_path).start("run", "job.yaml", "--retry-failed", "all")
            out, err = again.communicate(timeout=150)
            assert again.returncode in (0, 1) and "Traceback" not in out + err, out + err
        assert set(struck + Counter(server.stats()["faults"])) >= set(MIX) - {"late_seconds", "hang", "refuse"}
        assert [body for body, count in answered_well(server).items() if count > 1] == []
    for table in TABLES[:3]:
        assert rows(tmp_path, table) == rows(undisturbed[0], table)
    lost = sum((Counter(line.get("lost", {})) for line in ledger(tmp_path).values()), Counter())
    assert set(lost) <= {"refused", "bad_answer"}  # a format that its task went without
    there, whole = rows(tmp_path, "qa"), rows(undisturbed[0], "qa")
    assert set(map(str, there)) <= set(map(str, whole))
    assert len(there) == len(whole) if not lost else len(there) >= len(whole) - 3 * sum(lost.values())


@pytest.mark.slow
def test_swapped_answers_are_all_found(
    undisturbed: tuple[Path, int], marathon_on: Callable[..., Command], tmp_path: Path
) -> None:
    with serving(latency=0.02, jitter=0.05, faults={"swap": 0.3}) as server:
        marathon_on(server)("run", "job.yaml")
        assert server.stats()["faults"]["swap"] > 10
        swapped = sum(entry["fault"] == "swap" for entry in asked(server))
    for table in TABLES:
        assert rows(tmp_path, table) == rows(undisturbed[0], table)
    assert len(journal(tmp_path)) == undisturbed[1] + swapped  # what was mixed up is on record too


@pytest.mark.slow
def test_what_is_asked_again_when_templates_change_is_what_they_concern(
    undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    shutil.copytree(shipped("task_templates"), tmp_path / "templates")

    def edit(file: str, old: str, new: str) -> None:
        path = tmp_path / "templates" / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    with serving() as server:
        marathon = copied(undisturbed[0], tmp_path, server)
        job = yaml.safe_load((tmp_path / "job.yaml").read_text()) | {"templates": "templates"}
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
        edit("captions/clip.yaml", "asks: ", "# looked at twice\nasks: once more ")
        assert json.loads(marathon("plan", "job.yaml", "--json")) == []

        edit("captions/clip.yaml", "version: 1", "version: 2")  # the prompts stay the same
        edit("qa/temporality/temporal_order.yaml", "instructions: |\n", "instructions: |\n  Prefer long spans.\n")
        marathon("run", "job.yaml")
        assert Counter(entry["task"] for entry in asked(server)) == {"temporal_order": 4}  # two videos, two formats
        before = len(asked(server))

        marathon("run", "job.yaml", "--force", "--until", "caption_clips")  # asked anew, and the same captions
        assert {entry["schema"] for entry in asked(server)[before:]} == {"clip_caption"}
        assert json.loads(marathon("plan", "job.yaml", "--json")) == []


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.timeout(1500))])
def test_a_run_that_is_killed_again_and_again_asks_only_what_was_in_flight_twice(
    kills: int, undisturbed: tuple[Path, int], marathon_on: Callable[..., Command], tmp_path: Path
) -> None:
    chance, known, ends = random.Random(kills), 0, []
    with serving(latency=0.4, jitter=0.1) as server:
        marathon = marathon_on(server)
        for number in range(1, kills + 1):
            process, begun = marathon.start("run", "job.yaml"), len(asked(server))
            more = begun + chance.randrange(1, max(3, undisturbed[1] // (kills + 2)))
            once(lambda more=more: len(asked(server)) >= more, process)
            time.sleep(chance.uniform(0, 0.1))
            command = psutil.Process(process.pid)
            below, killed = command.children(recursive=True), time.time()
            command.kill()
            time.sleep(chance.uniform(0, 0.3) if number % 2 else 0)  # its caller may live on for a while
            for each in below:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            process.communicate()
            psutil.wait_procs(below, timeout=60)
            ends.append((killed - 1, time.time()))
            kept = journal(tmp_path)
            assert len({line["request"] for line in kept}) == len(kept) >= known
            known = len(kept)
        marathon("run", "job.yaml")
        kept, sent = journal(tmp_path), asked(server)
    assert len({line["request"] for line in kept}) == len(kept) == undisturbed[1]
    cut_off = [entry for entry in sent if entry["gone"]]
    answers = {entry["body"]: entry for entry in sent if not entry["gone"]}  # the last to each request
    again = [entry for entry in sent if not entry["gone"] and entry is not answers[entry["body"]]]
    print(f"{kills} kills: {len(sent)} requests, {undisturbed[1]} undisturbed, {len(cut_off)} cut off in flight,")
    print(f"{len(again)} answered in the moment of a kill, and not on record yet")
    assert len(sent) == undisturbed[1] + len(cut_off) + len(again) <= undisturbed[1] + 8 * kills
    assert all(any(first <= entry["ended"] <= last for first, last in ends) for entry in again)
    for table in TABLES:
        assert rows(tmp_path, table) == rows(undisturbed[0], table)


@pytest.mark.slow
def test_a_budget_that_is_reached_drains_the_run_and_a_raised_one_lets_it_go_on(
    undisturbed: tuple[Path, int], marathon_on: Callable[..., Command], tmp_path: Path
) -> None:
    with serving(latency=0.3) as server:
        marathon = marathon_on(server)
        said = marathon("run", "job.yaml", "--set", "budget.requests=12", code=3)
        assert "budget.requests is reached: " in said and "raise it to go on" in said
        spent = json.loads(marathon("status", "out", "--json"))
        assert sum(row["usage"]["requests"] for row in spent["spent"]) == len(journal(tmp_path)) == len(asked(server))
        assert spent["left"]["requests"] == 12 - len(asked(server)) <= 0
        assert len(asked(server)) <= 12 + 2 * 8  # what is in flight for two videos
        marathon("run", "job.yaml", "--set", "budget.requests=100000")
        assert len(asked(server)) == undisturbed[1]
    for table in TABLES:
        assert rows(tmp_path, table) == rows(undisturbed[0], table)


@pytest.mark.slow
def test_what_was_spent_is_told_and_what_it_will_be_is_reckoned_from_it(
    undisturbed: tuple[Path, int], segmented: Path
) -> None:
    def estimates(folder: Path, *more: object) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for row in json.loads(Command(folder)("plan", "job.yaml", "--json", *more)):
            if row["estimate"]:
                cost = found.setdefault(row["stage"], {"requests": 0.0, "tokens": 0.0, "measured": True})
                cost["requests"] += row["estimate"]["requests"]
                cost["tokens"] += row["estimate"]["tokens"]
                cost["measured"] &= row["estimate"]["measured"]
        return found

    folder, requests = undisturbed
    priced = ("--set", "models.one.price={prompt: 1, completion: 10}")
    status = json.loads(Command(folder)("status", "out", "--json"))
    assert sum(row["usage"]["requests"] for row in status["spent"]) == requests
    accepted = sum(stage["items"] for stage in status["stages"] if stage["stage"] == "verify")
    assert status["per_thousand_qa"]["requests"] == pytest.approx(1000 * requests / accepted, rel=0.2)
    assert status["per_video_hour"]["requests"] == pytest.approx(requests * 3600 / 120, rel=0.01)

    blind = estimates(segmented, "--set", "models.one.endpoints=[http://127.0.0.1:9/v1]")
    assert set(blind) >= set(STAGES) and not any(blind[stage]["measured"] for stage in STAGES)
    assert estimates(folder) == {}
    more = estimates(folder, *priced, "--force")
    assert set(more) >= set(STAGES) and all(cost["measured"] for cost in more.values())
    assert sum(cost["requests"] for cost in more.values()) == pytest.approx(requests)


def test_a_server_that_cannot_serve_the_job_is_said_before_anything_is_begun(
    marathon_on: Callable[..., Command], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "a-wrong-secret")
    with serving(key="right") as server:  # so that no run begins
        said = marathon_on(server, api_key_env="SOME_KEY").here("run", "job.yaml", code=2)
    assert len(said.splitlines()) == 1 and "api_key_env" in said and "secret" not in said
    with serving(model="another") as server:
        said = Command(tmp_path).here("run", "job.yaml", "--set", f"models.one.endpoints=[{server.url}]", code=2)
        assert len(said.splitlines()) == 1 and "another" in said
    assert {line["stage"] for line in ledger(tmp_path).values()} == {"download", "segment"}


@pytest.mark.slow
def test_a_run_goes_on_when_one_of_two_servers_dies(
    undisturbed: tuple[Path, int], marathon_on: Callable[..., Command], tmp_path: Path
) -> None:
    with serving(latency=0.1) as one, serving(latency=0.1) as other:
        process = marathon_on(one, other).start("run", "job.yaml")
        once(lambda: len(asked(one)) > 5, process)
        one.kill()
        out, err = process.communicate(timeout=150)
        assert process.returncode == 0, out + err
        assert len(asked(one)) + len(asked(other)) <= undisturbed[1] + 8
    for table in TABLES:
        assert rows(tmp_path, table) == rows(undisturbed[0], table)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_processes_that_ask_share_what_a_server_is_to_be_sent(
    segmented: Path, undisturbed: tuple[Path, int], tmp_path: Path
) -> None:
    with serving(latency=0.2) as server:
        command = copied(segmented, tmp_path, server, max_in_flight=6)
        process = command.start("run", "job.yaml", "--set=run.callers=2", "--set=run.served_at_once=2")
        once(lambda: len(those_that_ask(process)) == 2, process)
        out, err = process.communicate()
        assert process.returncode == 0, out + err
        assert 3 < server.stats()["most_in_flight"] <= 6
    assert all(rows(tmp_path, table) == rows(undisturbed[0], table) for table in TABLES)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_file_of_endpoints_is_read_again_while_a_run_asks(
    undisturbed: tuple[Path, int], marathon_on: Callable[..., Command], tmp_path: Path
) -> None:
    with serving(latency=3.0) as one, serving(latency=0.1) as other:  # the file is read again every ten seconds
        listed = tmp_path / "endpoints.txt"
        listed.write_text(one.url + "\n")
        process = marathon_on(one, endpoints="endpoints.txt").start("run", "job.yaml")
        once(lambda: len(asked(one)) > 5, process)
        listed.write_text(f"# moved\n{other.url}\n")
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        assert len(asked(other)) > 5
    for table in TABLES:
        assert rows(tmp_path, table) == rows(undisturbed[0], table)
