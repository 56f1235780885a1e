"""A stage whose output changes has to change its version, or datasets would mix the old output with the new.

`golden.json` holds each stage's version, and the content hash of what it writes from the rows of the stage before.
After a change that is meant, raise the version and write the file again:

    MARATHON_WRITE_GOLDEN=1 .venv/bin/pytest tests/test_golden.py
"""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from stage_rows import rows_of

from marathon_pipeline.annotators.measured import Measured
from marathon_pipeline.config import parse_job
from marathon_pipeline.dataset import parquet
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.media.probe import probe
from marathon_pipeline.pipeline.stage_list import ANNOTATED, build_stages
from marathon_pipeline.records import Clip, Record, Signals, Video, content_hash
from marathon_pipeline.stages.stage import Stage
from marathon_pipeline.synthetic.director import write_script
from marathon_pipeline.synthetic.render import render
from marathon_pipeline.taxonomy import TASK_IDS, load_taxonomy

GOLDEN = Path(__file__).parent / "golden"
JOB = parse_job("dataset: none\nsegment: {min_seconds: 0}\nevents: {min_events: 0}", "golden", [])


def stages(folder: Path) -> dict[str, Stage]:
    built = build_stages(
        JOB.stage_settings(), dict.fromkeys(ANNOTATED, Measured()), load_taxonomy(), TASK_IDS, Storage(str(folder))
    )
    return {stage.name: stage for stage in built}


def version(stage: Stage) -> str:
    return f"{Measured.name} {stage.version}"


def check(name: str, stage: Stage, rows: Sequence[Record]) -> None:
    file = GOLDEN / "golden.json"
    golden = json.loads(file.read_text()) if file.exists() else {}
    if os.environ.get("MARATHON_WRITE_GOLDEN"):
        golden[name] = {"version": version(stage), "content": content_hash(rows)}
        file.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
        return
    assert golden[name]["version"] == version(stage), "the version changed: write golden.json again"
    assert golden[name]["content"] == content_hash(rows), (
        f"{name} writes other rows than before: raise its version (`Measured.name`, or the stage's), write golden.json"
    )


def test_what_is_written_from_signals_changes_only_with_its_version(tmp_path: Path) -> None:
    given: dict[type[Record], Sequence[Record]] = {
        Clip: parquet.decode(Clip, (GOLDEN / "clips.parquet").read_bytes()),
        Signals: parquet.decode(Signals, (GOLDEN / "signals.parquet").read_bytes()),
    }
    by_name = stages(tmp_path)
    for name in ("caption_clips", "caption_events", "summarize", "qa", "verify"):
        rows = rows_of(by_name[name], given, Storage(str(tmp_path)))
        given[by_name[name].writes[-1]] = rows
        check(name, by_name[name], rows)


def test_what_is_measured_changes_only_with_its_version(tmp_path: Path) -> None:
    """With the one ffmpeg that the golden rows were made with: another decoder may round otherwise."""
    banner = subprocess.run([ffmpeg_binary(), "-version"], capture_output=True, text=True, check=True).stdout
    if "version n9.0.2" not in banner:
        pytest.skip("the golden rows were measured with ffmpeg 9.0.2")
    path = tmp_path / "v.mp4"
    render(write_script(seed=11, minutes=3), path)
    found = probe(path)
    video = Video(
        video_id="v", source_id="v", start=0, end=found.seconds, file=str(path), sha256="", bytes=0,
        width=found.width, height=found.height, fps=found.fps, codec=found.codec,
    )  # fmt: skip
    stage = stages(tmp_path)["segment"]
    rows = rows_of(stage, {Video: [video]}, Storage(str(tmp_path)))
    if os.environ.get("MARATHON_WRITE_GOLDEN"):
        for record, name in ((Clip, "clips"), (Signals, "signals")):
            of_it = [row for row in rows if isinstance(row, record)]
            (GOLDEN / f"{name}.parquet").write_bytes(parquet.encode(record, of_it))
    check("segment", stage, rows)
