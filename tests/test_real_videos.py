"""The folder of real test videos through the whole chain: what becomes of each file."""

from collections import defaultdict
from pathlib import Path

import duckdb
import pytest
from conftest import JOB, Command
from test_end_to_end import STAGES, ledger_lines

EXPECTED = {  # stage and reason in which a file ends; None: it comes through
    "zero_byte.webm": ("download", "failed", "empty"),
    "audio_only_eac3.mp4": ("download", "failed", "no_video"),
    "fragment_no_init.mp4": ("download", "failed", "unreadable"),
}


@pytest.mark.slow
def test_every_real_video_ends_as_expected(real_videos: Path, tmp_path: Path) -> None:
    files = sorted(path for path in real_videos.iterdir() if path.suffix != ".md")
    (tmp_path / "job.yaml").write_text(JOB.replace("synthetic:", "#"))
    inputs = [argument for file in files for argument in ("--input", file)]
    out = Command(tmp_path)("run", "job.yaml", *inputs, code=1)
    name_of = dict(
        duckdb.sql(f"select source_id, parse_filename(path) from '{tmp_path}/out/sources.parquet'").fetchall()
    )
    ends: dict[str, tuple[str, str, str]] = {}
    through = defaultdict(set)
    for line in ledger_lines(tmp_path):
        name = name_of[line["video_id"]]
        if line["status"] == "ok" or line.get("part"):
            through[name].add(line["stage"])
        else:
            ends[name] = (str(line["stage"]), str(line["status"]), str(line["reason"]))
    assert ends == dict(EXPECTED.items())
    assert set(name_of.values()) == {file.name for file in files}
    for name in {file.name for file in files} - set(EXPECTED):
        assert through[name] >= set(STAGES[:-1]), name
    for name, (stage, _, reason) in EXPECTED.items():
        assert f"{stage}: {reason}: " in out and name in out
    assert "release" in out
