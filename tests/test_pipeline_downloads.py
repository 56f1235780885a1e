"""Downloads in a run by the command, against a real server: killed, limited by disk, selected, purged meanwhile."""

import functools
import hashlib
import io
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import duckdb
import psutil
import pytest
from conftest import Command, Running
from ray_nodes import cluster
from rich.console import Console

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.media.settings import DecodeSettings
from marathon_pipeline.pipeline.downloads import Downloads
from marathon_pipeline.pipeline.plan import Work
from marathon_pipeline.pipeline.progress import RunProgress
from marathon_pipeline.pipeline.standing import Account, run_status
from marathon_pipeline.pipeline.watcher import Load
from marathon_pipeline.records import Outcome, Source
from marathon_pipeline.sources.settings import DownloadSettings, LimitSettings
from marathon_pipeline.stages.download import Download, PartSettings

JOB = "dataset: out\ninputs: [m.jsonl]\nsegment: {min_seconds: 0}\nevents: {min_events: 0}\nrun: {workers: 1}\n"
_PATIENCE = 200.0  # a slow machine is no failure


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(3):
        graph = ["-f", "lavfi", "-i", f"testsrc2=duration={4 + number}:size=320x240:rate=5"]
        graph += ["-pix_fmt", "yuv420p", "-crf", "8"]
        subprocess.run([ffmpeg_binary(), "-loglevel", "error", *graph, folder / f"{number}.mp4"], check=True)
    return folder


class Site(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, dataset: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Answer, directory=str(folder)))
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.dataset = dataset
        self.held = threading.Event()  # somebody waits for the second half of a video under `/held/`
        self.go_on = threading.Event()
        self.later = threading.Event()  # what is under `/later/` is given
        self.ports: list[int] = []  # of those that wait under `/held/`, the last one last
        self.asked: list[tuple[str, str, int]] = []  # path, Range, originals on the disk by then


class Answer(SimpleHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        originals = [path for path in (self.server.dataset / "originals").rglob("*") if path.is_file()]
        self.server.asked.append((self.path, self.headers.get("Range", ""), len(originals)))
        if self.path.startswith("/later/"):
            self.server.later.wait(_PATIENCE)
            self.path = self.path.removeprefix("/later")
        if not self.path.startswith("/held/"):
            return super().do_GET()
        body = Path(self.directory, self.path.rpartition("/")[2]).read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        self.wfile.write(body[start : len(body) // 2])
        self.server.held.set()
        self.server.ports.append(self.client_address[1])
        self.server.go_on.wait(_PATIENCE)
        try:
            self.wfile.write(body[max(start, len(body) // 2) :])
        except OSError:
            self.close_connection = True
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Into the tests' output nothing."""


@pytest.fixture
def site(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Site(videos, tmp_path / "out") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.go_on.set()
        server.later.set()
        server.shutdown()


def job(marathon: Command, *rows: dict[str, object]) -> None:
    (marathon.folder / "job.yaml").write_text(JOB)
    (marathon.folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def ledger(marathon: Command) -> list[dict[str, object]]:
    files = sorted((marathon.folder / "out/ledger").glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def wait_for(happened: Callable[[], object]) -> None:
    end = time.monotonic() + _PATIENCE
    while not happened():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def resumed(site: Site) -> bool:
    return any(path == "/held/0.mp4" and wanted for path, wanted, _ in site.asked)


@pytest.mark.slow
def test_a_killed_run_resumes_its_downloads_and_a_limit_of_local_bytes_holds(
    marathon: Command, site: Site, videos: Path
) -> None:
    rows = [{"url": f"{site.address}/{'held/' if n == 0 else ''}{n}.mp4", "id": f"v{n}"} for n in range(3)]
    job(marathon, *rows)
    limit = ["--set", "run.max_local_bytes=1", "--until", "segment"]

    killed = marathon.start("run", "job.yaml", *limit)
    partial = marathon.folder / "out/.partial"
    wait_for(lambda: any(path.stat().st_size for path in partial.glob("v0.*/*.part")))
    killed.kill()
    killed.communicate(timeout=_PATIENCE)

    process = marathon.start("run", "job.yaml", *limit, "--set", "run.keep_originals=true")
    wait_for(
        lambda: process.poll() is not None or any(path == "/held/0.mp4" and range for path, range, _ in site.asked)
    )
    site.go_on.set()
    out, err = process.communicate(timeout=_PATIENCE)
    assert (process.returncode, "run.max_local_bytes, 1 bytes" in out) == (3, True), out + err
    assert resumed(site), "it began anew"
    kept = [path.name for path in (marathon.folder / "out/originals").rglob("*.mp4")]
    assert len(kept) == 1, "more was fetched than the limit lets lie here"

    marathon("run", "job.yaml", *limit)
    assert {line["video_id"] for line in ledger(marathon) if line["stage"] == "segment"} == {"v0", "v1", "v2"}
    assert {originals for path, _, originals in site.asked if Path(path).stem not in kept[0]} == {0}
    assert not any(path.is_file() for path in (marathon.folder / "out/originals").rglob("*"))
    found = dict(
        duckdb.sql(f"select video_id, sha256 from '{marathon.folder}/out/tables/videos/*/*.parquet'").fetchall()
    )
    assert found == {f"v{n}": hashlib.sha256((videos / f"{n}.mp4").read_bytes()).hexdigest() for n in range(3)}


def waiting(marathon: Command) -> int:
    """Downloads that a run says are waiting, at its last heartbeat."""
    status = run_status(Storage(str(marathon.folder / "out")))
    return status.standing.stages["download"].waiting if status and status.standing and status.standing.stages else 0


def connected(process: Running, port: int) -> list[psutil.Process]:
    """Those of a run's processes that ask from a port."""
    found = []
    for each in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):
            found += [each for connection in each.net_connections() if connection.laddr.port == port]
    return found


@pytest.mark.slow
def test_a_download_that_loses_its_worker_again_and_again_stops_nothing_else_and_is_tried_by_the_next_run(
    marathon: Command, site: Site
) -> None:
    rows = [{"url": f"{site.address}/held/0.mp4", "id": "v0"}, {"url": f"{site.address}/later/1.mp4", "id": "v1"}]
    job(marathon, *rows)
    process = marathon.start("run", "job.yaml", "--until", "segment", "--set", "run.workers=2")
    for deaths in range(3):
        wait_for(lambda deaths=deaths: len(set(site.ports)) > deaths and connected(process, site.ports[-1]))
        if deaths == 2:  # its last try is under way
            site.later.set()
            wait_for(lambda: any((line["video_id"], line["stage"]) == ("v1", "segment") for line in ledger(marathon)))
        for each in connected(process, site.ports[-1]):
            each.kill()
    out, err = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 1 and "v0  download: worker_died: its worker died each time (" in out, out + err
    assert [line["transient"] for line in ledger(marathon) if line.get("reason") == "worker_died"] == [True]
    site.go_on.set()
    marathon("run", "job.yaml", "--until", "segment")


@pytest.mark.slow
def test_downloads_wait_for_a_node_with_cpus_and_those_of_one_that_is_lost_begin_on_another(
    marathon: Command, site: Site
) -> None:
    job(marathon, *({"url": f"{site.address}/held/{n}.mp4", "id": f"v{n}"} for n in range(3)))
    with cluster() as nodes:  # whose head has no CPUs
        settings = ("download.limits.egress=node", "run.workers=3", f"run.ray_address={nodes.address}")
        sets = [f"--set={setting}" for setting in settings]
        process = marathon.start("run", "job.yaml", "--until", "download", *sets)
        wait_for(lambda: process.poll() is not None or waiting(marathon) == 3)
        lost = nodes.add(num_cpus=1)
        wait_for(site.held.is_set)
        nodes.kill(lost)  # one was under way there, and two were to follow
        nodes.add(num_cpus=1)
        site.go_on.set()
        out, err = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, out + err
    log = "".join(path.read_text() for path in (marathon.folder / "out/logs").rglob("*.jsonl"))
    assert log.count('"work_killed"') == 1


@pytest.mark.slow
def test_a_purge_reaches_a_run_at_work_and_the_same_video_by_another_name(marathon: Command, site: Site) -> None:
    job(marathon, {"url": f"{site.address}/held/0.mp4", "id": "away"}, {"url": f"{site.address}/1.mp4", "id": "stays"})
    process = marathon.start("run", "job.yaml", "--until", "segment", "--set", "run.workers=2")
    wait_for(site.held.is_set)
    said = marathon("purge", "out", "away")
    assert "away: on the removal list, will be removed" in said and f"process {process.pid}" in said
    site.go_on.set()
    out, err = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0 and "purge    removed away" in out, out + err
    assert {line["video_id"] for line in ledger(marathon) if "stage" in line} == {"stays"}
    assert not list(marathon.folder.rglob("*away*"))

    part = marathon.folder / "out/.partial/stays.0123.parts/video.mp4.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"half")
    assert "removed stays" in marathon("purge", "out", f"{site.address}/1.mp4")
    assert not part.exists()
    assert "stays: on the removal list, nothing of it is here" in marathon("purge", "out", "stays")

    again = {"url": f"{site.address}/held/0.mp4", "id": "same-url"}, {"url": f"{site.address}/1.mp4?copy", "id": "same"}
    job(marathon, *again, {"url": f"{site.address}/2.mp4", "id": "other"})
    out = marathon("run", "job.yaml", "--until", "segment")
    assert "purge    removed same, videos same" in out
    sources = duckdb.sql(f"select source_id from '{marathon.folder}/out/sources.parquet'").fetchall()
    assert sources == [("other",)]
    assert list((marathon.folder / "out/tables").rglob("same*")) == []


@pytest.mark.slow
def test_a_sample_and_retries_select_what_is_run(marathon: Command, site: Site) -> None:
    job(marathon, *({"url": f"{site.address}/gone{n}.mp4", "id": f"g{n}"} for n in range(5)))
    sample = ["--sample", 2, "--seed", 3]

    def stale(*more: object) -> int:
        return sum(row["stale"] for row in json.loads(marathon("plan", "job.yaml", "--json", *more)))

    assert (stale(*sample), stale()) == (2, 5)
    marathon("run", "job.yaml", *sample, code=1)
    assert [line["reason"] for line in ledger(marathon)] == ["http_404"] * 2
    assert (stale(*sample), stale()) == (0, 3)
    assert stale(*sample, "--retry-failed", "all") == stale(*sample, "--retry-failed", "http_404") == 2
    assert stale(*sample, "--retry-failed", "http_410") == 0


def test_the_display_shows_what_is_being_fetched() -> None:
    screen = io.StringIO()
    account = Account()
    with RunProgress(Console(file=screen, force_terminal=True, width=100), account.standing):
        account.loaded(Load(downloads=2, downloaded_bytes=34_000_000))
    assert "2 under way, 34.0 MB so far" in screen.getvalue()


def test_a_clock_that_is_set_while_a_run_lasts_opens_no_site_that_is_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset(str(tmp_path), create=True)
    urls = {f"v{number}": f"http://a.org/{number}.mp4" for number in range(2)}
    sources = {name: Source(source_id=name, url=url) for name, url in urls.items()}
    downloads = Downloads(dataset, sources, LimitSettings())
    stage = Download(DownloadSettings(), PartSettings(), DecodeSettings(), dataset.storage)
    for name in sources:
        downloads.push((0, 0.0, name, Work(stage, name, name, {"": ""})))
    refused = Outcome(
        video_id="v0", stage="download", status="failed", reason="http_429", transient=True, fingerprint=""
    )
    work = downloads.next()
    assert work is not None
    downloads.goes_on(work, refused.model_copy(update={"retry_after": 3000}), last=False)
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    assert downloads.next() is None and downloads.wakes() > 1000
