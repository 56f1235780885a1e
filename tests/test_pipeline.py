"""The run and what it decides: parts of sources, downloads and their originals, retries."""

import asyncio
import contextlib
import functools
import itertools
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest
from conftest import Command
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.pipeline.ingest import sample
from marathon_pipeline.pipeline.stage_list import StageSettings
from marathon_pipeline.pipeline.work import Order, carry_out
from marathon_pipeline.records import Outcome, Source, Span
from marathon_pipeline.stages.download import Download, parts_of

JOB = "dataset: out\ninputs: [m.jsonl]\nsegment: {min_seconds: 0}\nevents: {min_events: 0}\n"


@pytest.fixture(scope="session")
def small_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "small.mp4"
    graph = ["-f", "lavfi", "-i", "testsrc2=duration=40:size=128x96:rate=10", "-pix_fmt", "yuv420p"]
    subprocess.run([ffmpeg_binary(), "-loglevel", "error", *graph, str(path)], check=True)
    return path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Into the tests' output nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of a server of what lies in it."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def manifest(folder: Path, *rows: dict[str, object]) -> None:
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def outcomes(folder: Path) -> list[dict[str, object]]:
    return [
        json.loads(line) for path in sorted((folder / "out/ledger").iterdir()) for line in path.read_text().splitlines()
    ]


def source(segments: tuple[Span, ...] = ()) -> Source:
    return Source(source_id="s", url="https://a.example/v", segments=segments)


@given(st.floats(1, 40_000), st.floats(30, 4_000))
def test_parts_cover_a_source_and_none_is_too_long(seconds: float, most: float) -> None:
    parts = [span for _, span in parts_of(source(), seconds, most)]
    assert parts[0].start == 0 and abs(parts[-1].end - seconds) < 1e-6
    assert all(abs(a.end - b.start) < 1e-6 for a, b in itertools.pairwise(parts))
    assert max(span.end - span.start for span in parts) <= most + 1e-6


def test_a_source_of_one_part_keeps_its_id_and_parts_have_their_own() -> None:
    assert [i for i, _ in parts_of(source(), 100, 3600)] == ["s"]
    assert [i for i, _ in parts_of(source(), 100, 60)] == ["s_00000000-00050000", "s_00050000-00100000"]
    assert [i for i, _ in parts_of(source((Span(start=1.5, end=20),)), 100, 60)] == ["s_00001500-00020000"]


def test_segments_that_end_behind_the_end_are_one_video_where_they_come_to_the_same() -> None:
    segments = (Span(start=50, end=120), Span(start=50, end=300), Span(start=80, end=300))
    assert parts_of(source(segments), 100, 60) == [
        ("s_00050000-00100000", Span(start=50, end=100)),
        ("s_00080000-00100000", Span(start=80, end=100)),
    ]


def test_a_segment_behind_the_end_fails_none_of_the_others_and_is_counted(
    small_video: Path, marathon: Command, site: tuple[Path, str]
) -> None:
    folder, address = site
    (folder / "v.mp4").write_bytes(small_video.read_bytes())  # of 40 s
    dataset, settings = Dataset(str(marathon.folder / "out"), create=True), StageSettings()
    stage = Download(settings.download, settings.parts, settings.segment.decode, dataset.storage)

    def download(source_id: str, *starts: float) -> Outcome:
        segments = tuple(Span(start=start, end=start + 20) for start in starts)
        source = Source(source_id=source_id, url=f"{address}/v.mp4", segments=segments)
        order = Order(source_id, source_id, {"": "f"}, {}, True, True, source)
        (outcome,) = asyncio.run(carry_out(stage, dataset, order))
        dataset.ledger.append([outcome])
        return outcome

    assert download("a", 10, 30, 40, 50).videos == ("a_00010000-00030000", "a_00030000-00040000")
    assert download("b", 50).reason == "out_of_range"
    assert [path.name for path in (marathon.folder / "out/originals").rglob("*.mp4")] == ["a.mp4"]
    dataset.ledger.flush()
    assert "2 (out_of_range 2)" in marathon("status", "out")


def test_a_sample_keeps_its_members_when_sources_come() -> None:
    sources = [Source(source_id=f"s{number}", url="https://a.example") for number in range(100)]
    small, large = sample(sources[:90], 20, seed=1), sample(sources, 20, seed=1)
    assert {s.source_id for s in large} - {s.source_id for s in small} <= {s.source_id for s in sources[90:]}
    assert sample(sources, 20, seed=2) != large


class Run(NamedTuple):
    """A run of two segments of a video on a terminal, and what a second command was told meanwhile."""

    folder: Path
    process: int
    ended: int
    shown: str
    refused: str


@pytest.fixture(scope="module")
def on_a_terminal(small_video: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    marathon = Command(tmp_path_factory.mktemp("terminal"))
    (marathon.folder / "job.yaml").write_text(JOB)
    rows = [{"path": str(small_video), "id": "v", "start": start, "end": end} for start, end in ((0, 10), (20, 35))]
    manifest(marathon.folder, *rows)
    process, terminal = pty.fork()
    if process == 0:  # the child: a process with a terminal of its own
        os.chdir(marathon.folder)
        os.execv(sys.executable, [sys.executable, "-m", "marathon_pipeline", "run", "job.yaml"])
    shown, refused, deadline = b"", "", time.monotonic() + 120
    with contextlib.suppress(OSError):  # Linux says so where the other end is closed
        while time.monotonic() < deadline and (
            read := os.read(terminal, 65536)
        ):  # the bar moves even where nothing does
            shown += read
            if not refused and b"ETA" in shown:
                refused = marathon.here("run", "job.yaml", code=2)
    if time.monotonic() >= deadline:
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return Run(marathon.folder, process, os.waitstatus_to_exitcode(status), shown.decode(errors="replace"), refused)


def test_known_segments_become_videos_of_their_own(on_a_terminal: Run) -> None:
    clips = f"'{on_a_terminal.folder}/out/tables/clips/*/*.parquet'"
    found = duckdb.sql(f'select video_id, max("end") from {clips} group by 1 order by 1').fetchall()
    assert [(video, round(end)) for video, end in found] == [("v_00000000-00010000", 10), ("v_00020000-00035000", 15)]


def test_a_second_run_on_a_dataset_is_refused(on_a_terminal: Run) -> None:
    assert f"process {on_a_terminal.process}" in on_a_terminal.refused


def test_a_run_on_a_terminal_is_not_stopped_by_it(on_a_terminal: Run) -> None:
    assert on_a_terminal.ended == 0, on_a_terminal.shown[-2000:]
    assert "ETA" in on_a_terminal.shown


@pytest.mark.slow
def test_a_download_is_deleted_once_cut_and_fetched_again_when_needed(
    small_video: Path, marathon: Command, site: tuple[Path, str]
) -> None:
    folder, address = site
    (folder / "v.mp4").write_bytes(small_video.read_bytes())
    (marathon.folder / "job.yaml").write_text(JOB)
    manifest(marathon.folder, {"url": f"{address}/v.mp4"}, {"url": f"{address}/gone.mp4"})

    out = marathon("run", "job.yaml", "--until", "segment", code=1)
    assert "download: http_404: " in out
    assert Storage(str(marathon.folder / "out")).keys("originals") == []
    assert [(o["stage"], o["status"]) for o in outcomes(marathon.folder)].count(("segment", "ok")) == 1
    assert [o["host"] for o in outcomes(marathon.folder) if o["status"] == "failed"] == [socket.gethostname()]

    before = len(outcomes(marathon.folder))
    marathon("run", "job.yaml", "--until", "segment")
    assert len(outcomes(marathon.folder)) == before, "a permanent failure was tried again unasked"

    change = ["--set", "segment.clip_seconds=25", "--set", "run.keep_originals=true"]
    marathon("run", "job.yaml", "--until", "segment", *change)
    assert [o["stage"] for o in outcomes(marathon.folder)[before:]] == ["download", "segment"]
    assert len(Storage(str(marathon.folder / "out")).keys("originals")) == 1

    (folder / "gone.mp4").write_bytes(small_video.read_bytes())
    retry = ["--retry-failed", "http_404"]
    marathon("run", "job.yaml", "--until", "download", *change, *retry)
    assert outcomes(marathon.folder)[-1]["status"] == "ok"
    assert outcomes(marathon.folder)[-1]["attempts"] == 2


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "nonsense"])
def test_a_ray_cluster_that_is_not_there_is_said_in_one_line(
    marathon: Command, small_video: Path, address: str
) -> None:
    (marathon.folder / "job.yaml").write_text(
        f"dataset: out\ninputs: [{small_video}]\nrun: {{ray_address: {address}}}\n"
    )
    said = marathon.here("run", "job.yaml", code=2)
    assert len(said.splitlines()) == 1 and f"run.ray_address {address}: no Ray cluster answers" in said
    assert "start it, or correct the address" in said and "defect" not in said
