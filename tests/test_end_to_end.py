"""From videos to a released, audited dataset by the command, and what becomes of it when things change or die."""

import asyncio
import hashlib
import itertools
import json
import shutil
import signal
import time
from pathlib import Path

import duckdb
import pytest
import yaml
from conftest import JOB, Command

from marathon_pipeline.annotators.measured.annotator import Measured
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.pipeline.stage_list import ANNOTATED, StageSettings, build_stages
from marathon_pipeline.pipeline.work import Order, carry_out
from marathon_pipeline.shipped import shipped
from marathon_pipeline.taxonomy import TASK_IDS, load_taxonomy

STAGES = ("download", "segment", "caption_clips", "caption_events", "summarize", "qa", "verify")


def copy_of(built: Path, to: Path) -> Command:
    shutil.copytree(built, to, dirs_exist_ok=True)
    return Command(to)


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def plan(marathon: Command, *arguments: object) -> dict[tuple[str, str], dict[str, int]]:
    rows = json.loads(marathon("plan", "job.yaml", "--json", *arguments))
    return {(row["stage"], row["part"]): {"stale": row["stale"], "waiting": row["waiting"]} for row in rows}


def ledger_lines(folder: Path) -> list[dict[str, object]]:
    return [
        json.loads(line) for path in sorted((folder / "out/ledger").iterdir()) for line in path.read_text().splitlines()
    ]


def test_a_dataset_holds_all_tasks_in_both_formats(built: Path) -> None:
    found = duckdb.sql(f"select distinct task, format from '{built}/out/tables/qa/*/*.parquet'").fetchall()
    expected = {(task, format) for task in TASK_IDS for format in ("open", "choice")}
    assert set(found) == expected - {("overall_summarization", "choice")}


def test_every_answer_is_released_unless_it_has_a_problem(built: Path) -> None:
    released = duckdb.sql(f"select count(*) from '{built}/out/releases/test-1/qa/*/*.parquet'").fetchall()
    sound = duckdb.sql(f"select count(*) from '{built}/out/tables/verdicts/*/*.parquet' where len(problems) = 0")
    assert released == sound.fetchall() != [(0,)]


def test_what_enters_a_stage_leaves_it(built: Path) -> None:
    stages = {row["stage"]: row for row in json.loads(Command(built)("status", "out", "--json"))["stages"]}
    left = {
        name: row["ok"] + sum(row["filtered"].values()) + sum(row["failed"].values()) for name, row in stages.items()
    }
    assert left["download"] == 3
    for before, after in itertools.pairwise(STAGES[:5]):
        assert left[after] == stages[before]["ok"]
    assert left["qa"] == stages["summarize"]["ok"] * len(TASK_IDS)
    assert left["verify"] == stages["qa"]["ok"]


def test_a_second_run_has_nothing_to_do(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    assert plan(marathon) == {}
    before, began = ledger_lines(tmp_path), time.monotonic()
    assert "unchanged" in marathon.here("run", "job.yaml")
    assert ledger_lines(tmp_path) == before
    assert [path.name for path in (tmp_path / "out/releases").iterdir()] == ["test-1"]
    assert time.monotonic() - began < 60  # no stage ran, no cluster was started


def test_editing_one_template_reruns_only_that_task(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    shutil.copytree(shipped("task_templates"), tmp_path / "templates")
    job = yaml.safe_load(JOB) | {"templates": "templates"}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert plan(marathon) == {}

    template = tmp_path / "templates/qa/temporality/temporal_order.yaml"
    template.write_text(template.read_text().replace("instructions: |\n", "instructions: |\n  Prefer long spans.\n"))
    videos = 3
    assert plan(marathon) == {
        ("qa", "temporal_order"): {"stale": videos, "waiting": 0},
        ("verify", "temporal_order"): {"stale": 0, "waiting": videos},
        ("release", "temporal_order"): {"stale": 0, "waiting": 1},
    }

    before = len(ledger_lines(tmp_path))
    assert "changed  against test-1: no pair differs" in marathon("run", "job.yaml")  # `measured` reads no instructions
    done = ledger_lines(tmp_path)[before:]
    assert {(line["stage"], line["part"]) for line in done} <= {("qa", "temporal_order"), ("verify", "temporal_order")}
    assert sum(line["stage"] == "qa" for line in done) == videos
    first, second = (hashes(tmp_path / f"out/releases/test-{number}/qa") for number in (1, 2))
    assert {name: sha for name, sha in first.items() if "temporal_order" not in name} == {
        name: sha for name, sha in second.items() if "temporal_order" not in name
    }
    assert plan(marathon) == {}


def test_each_task_is_told_its_own_time(built: Path, tmp_path: Path) -> None:
    copy_of(built, tmp_path)
    dataset = Dataset(str(tmp_path / "out"))
    annotators = dict.fromkeys(ANNOTATED, Measured())
    (qa,) = (
        stage
        for stage in build_stages(StageSettings(), annotators, load_taxonomy(), TASK_IDS, dataset.storage)
        if stage.name == "qa"
    )
    video = next(dataset.finished())
    order = Order(video.video_id, video.source_id, dict.fromkeys(qa.parts, "f"), {}, True, True, None)
    began = time.monotonic()
    outcomes = asyncio.run(carry_out(qa, dataset, order))
    assert len(outcomes) == len(TASK_IDS)
    assert 0 < sum(outcome.seconds for outcome in outcomes) <= time.monotonic() - began


def test_a_comment_in_a_template_changes_nothing(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    shutil.copytree(shipped("task_templates"), tmp_path / "templates")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(yaml.safe_load(JOB) | {"templates": "templates"}))
    template = tmp_path / "templates/qa/temporality/temporal_order.yaml"
    template.write_text("# checked by two readers\n" + template.read_text())
    assert plan(marathon) == {}


def forced(marathon: Command, *selection: str) -> list[dict[str, object]]:
    """What the ledger says of a run that does again what is done, up to the QA."""
    before = len(ledger_lines(marathon.folder))
    marathon("run", "job.yaml", "--force", "--until", "qa", *selection)
    return ledger_lines(marathon.folder)[before:]


@pytest.mark.slow
def test_what_is_selected_is_done_again_alone_and_the_same_rows_disturb_nothing_behind_them(
    built: Path, tmp_path: Path
) -> None:
    marathon = copy_of(built, tmp_path)
    video = sorted(path.stem for path in (tmp_path / "videos").glob("*.mp4"))[1]
    done = forced(marathon, "--video", video)
    assert {line["stage"] for line in done} == set(STAGES[:6])
    of_task = forced(marathon, "--video", video, "--tasks", "temporal_order")
    assert [(line["stage"], line.get("part", "")) for line in of_task] == [("qa", "temporal_order")]
    assert {line["video_id"] for line in (*done, *of_task)} == {video}
    assert plan(marathon) == {}


@pytest.mark.slow
def test_a_release_has_the_same_bytes_with_one_worker_and_after_a_kill(built: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    shutil.copytree(built / "videos", tmp_path / "videos")
    marathon = Command(tmp_path)
    process = marathon.start("run", "job.yaml", "--set", "run.workers=1")
    tables = tmp_path / "out/tables/clip_captions"
    while process.poll() is None and not tables.exists():
        time.sleep(0.05)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out/releases").exists()
    marathon("run", "job.yaml", "--set", "run.workers=1")
    assert hashes(tmp_path / "out/releases") == hashes(built / "out/releases")
    assert hashes(tmp_path / "out/media") == hashes(built / "out/media")


@pytest.mark.slow
def test_a_terminated_run_drains_and_can_be_resumed(built: Path, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    shutil.copytree(built / "videos", tmp_path / "videos")
    marathon = Command(tmp_path)
    process = marathon.start("run", "job.yaml", "--set", "run.workers=1")
    while process.poll() is None and not (tmp_path / "out/tables/clips").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "run the same command again" in err
    done = len(ledger_lines(tmp_path))
    marathon("run", "job.yaml")
    assert hashes(tmp_path / "out/releases") == hashes(built / "out/releases")
    keys = [(line["stage"], line["video_id"], line.get("part", "")) for line in ledger_lines(tmp_path)]
    assert done and len(keys) == len(set(keys)), "something was done twice"


def test_a_lost_ledger_is_read_back_from_the_tables(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    shutil.rmtree(tmp_path / "out/ledger")
    assert "unchanged" in marathon.here("run", "job.yaml")
    assert plan(marathon) == {}


def test_purge_takes_a_video_out_for_good(built: Path, tmp_path: Path) -> None:
    marathon = copy_of(built, tmp_path)
    gone = sorted(path.stem for path in (tmp_path / "videos").glob("*.mp4"))[0]
    marathon("purge", "out", gone)
    assert not list((tmp_path / "out").rglob(f"*{gone}*"))
    marathon.here("run", "job.yaml")
    rows = duckdb.sql(f"select distinct video_id from '{tmp_path}/out/releases/test-2/videos.parquet'").fetchall()
    assert len(rows) == 2 and (gone,) not in rows


def test_show_prints_a_videos_captions_and_qa(built: Path) -> None:
    marathon = Command(built)
    video = sorted(path.stem for path in (built / "videos").glob("*.mp4"))[0]
    shown = marathon("show", "out", video)
    assert "Q: " in shown and "A: " in shown and "A. " in shown
    tree = json.loads(marathon("show", "out", video, "--json"))
    assert {pair["task"] for pair in tree["qa"]} == set(TASK_IDS)
