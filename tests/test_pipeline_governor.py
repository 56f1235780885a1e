"""Paced downloads in a run by the command, against real servers: who refuses is left alone, the others go on."""

import functools
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Command

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.pipeline.yields import dead_links, yields
from marathon_pipeline.records import Outcome, Source

JOB = (
    "dataset: out\ninputs: [m.jsonl]\nrun: {workers: 2}\ndownload: {cookies: cookies.txt, limits: {backoff_seconds: 0.2"
)
JOB += ", others: {at_once: 1}}}\n"
SECRET = "s3cret-session"


class Site(ThreadingHTTPServer):
    """Two sites of one server, by their names: 127.0.0.1 refuses as often as it is told to, localhost never."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Answer, directory=str(folder)))
        self.refuses: list[str] = []  # with these values of Retry-After
        self.asked: list[tuple[float, str, str]] = []

    def url(self, host: str, name: str) -> str:
        return f"http://{host}:{self.server_port}/{name}"


class Answer(SimpleHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        host = self.headers["Host"].partition(":")[0]
        self.server.asked.append((time.time(), host, self.path))
        if host == "127.0.0.1" and self.server.refuses:
            self.send_response(429)
            self.send_header("Retry-After", self.server.refuses.pop(0))
            self.end_headers()
            return None
        return super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Into the tests' output nothing."""


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    graph = ["-f", "lavfi", "-i", "testsrc2=duration=2:size=160x120:rate=5", "-pix_fmt", "yuv420p"]
    subprocess.run([ffmpeg_binary(), "-loglevel", "error", *graph, folder / "0.mp4"], check=True)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with Site(folder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def job(marathon: Command, *rows: dict[str, object]) -> None:
    (marathon.folder / "job.yaml").write_text(JOB)
    (marathon.folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cookie = "\t".join(["127.0.0.1", "FALSE", "/", "FALSE", "2147483647", "session", SECRET])
    (marathon.folder / "cookies.txt").write_text(f"# Netscape HTTP Cookie File\n{cookie}\n")


@pytest.mark.slow
def test_a_site_that_refuses_is_left_alone_and_the_others_go_on(marathon: Command, site: Site) -> None:
    site.refuses = ["3", "999999"]
    rows = [{"url": site.url("127.0.0.1", f"0.mp4?{n}"), "id": f"r{n}", "data_source": "refusing"} for n in range(3)]
    rows += [{"url": site.url("localhost", f"0.mp4?{n}"), "id": f"f{n}", "data_source": "fine"} for n in range(3)]
    rows += [{"url": site.url("localhost", f"gone{n}.mp4"), "id": f"g{n}", "data_source": "fine"} for n in range(2)]
    rows += [{"url": site.url("localhost", "0.mp4?no"), "id": "no", "data_source": "fine", "opt_out": "mail of May"}]
    job(marathon, *rows)
    process = marathon.start("run", "job.yaml", "--until", "download")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 3, out + err
    assert "paused   127.0.0.1 refuses (http_429)" in out

    refused = [when for when, host, _ in site.asked if host == "127.0.0.1"]
    assert len(refused) == 2 and refused[1] - refused[0] >= 3
    assert not any("no" in path for _, _, path in site.asked), "who opted out is not even asked for"
    found = {row.source: row for row in yields(Dataset(str(marathon.folder / "out")))}
    fine, refusing = found["fine"], found["refusing"]
    assert (fine.ok, fine.failed, fine.filtered, fine.share) == (3, {"http_404": 2}, {"opted_out": 1}, 0.6)
    assert (fine.rules, refusing.ok) == ({"http_404": "request"}, 0)
    assert refusing.waiting + sum(refusing.failed.values()) == 3
    written = b"".join(path.read_bytes() for path in (marathon.folder / "out").rglob("*") if path.is_file())
    assert SECRET.encode() not in written + (out + err).encode()


@pytest.mark.slow
def test_a_later_run_remembers_who_refuses_and_since_when_a_link_is_dead(marathon: Command, site: Site) -> None:
    site.refuses = ["999999"]
    rows = [{"url": site.url("127.0.0.1", "0.mp4"), "id": "r"}, {"url": site.url("localhost", "gone.mp4"), "id": "g"}]
    job(marathon, *rows)
    marathon("run", "job.yaml", "--until", "download", code=3)
    dead = json.loads(marathon("status", "out", "--dead-links", "--json"))
    assert [(link["source_id"], link["reason"]) for link in dead] == [("g", "http_404")]
    assert dead[0]["first_seen"] == dead[0]["last_seen"]
    asked = len(site.asked)
    marathon("run", "job.yaml", "--until", "download", "--retry-failed", "http_404", code=3)
    assert {host for _, host, _ in site.asked[asked:]} == {"localhost"}
    later = json.loads(marathon("status", "out", "--dead-links", "--json"))
    assert later[0]["first_seen"] == dead[0]["first_seen"] < later[0]["last_seen"]
    assert "g  http_404" in marathon("status", "out", "--dead-links")


def test_what_says_nothing_about_an_address_makes_no_dead_link_of_it(tmp_path: Path) -> None:
    dataset = Dataset(str(tmp_path / "out"), create=True)
    dead = ["http_404", "removed", "no_video_found", "unreadable"]
    alive = ["defect", "bad_input", "too_large", "too_long", "out_of_range", "unknown_codec", "decoder_crashed"]
    dataset.write_sources(Source(source_id=reason, url=f"https://a.example/{reason}") for reason in dead + alive)
    ended = {"stage": "download", "status": "failed", "fingerprint": "f"}
    dataset.ledger.append(Outcome(video_id=reason, reason=reason, **ended) for reason in dead + alive)
    assert {link.reason for link in dead_links(dataset)} == {*dead}


@pytest.mark.slow
def test_a_rate_holds_over_a_kill_and_no_worker_waits_for_it(marathon: Command, site: Site) -> None:
    rows = [{"url": site.url("127.0.0.1", f"0.mp4?{n}"), "id": f"r{n}"} for n in range(9)]
    rows += [{"url": site.url("localhost", f"0.mp4?{n}"), "id": f"f{n}"} for n in range(9)]
    job(marathon, *rows)
    limit = "download.limits.sites={slow: {hosts: [127.0.0.1], downloads: 3, per_seconds: 20}}"  # and no others
    command = ("run", "job.yaml", "--until", "download", "--set", limit)
    killed = marathon.start(*command)
    end = time.time() + 200
    while sum(host == "127.0.0.1" for _, host, _ in site.asked) < 2:
        assert killed.poll() is None and time.time() < end
        time.sleep(0.05)
    killed.kill()
    killed.communicate(timeout=200)
    marathon(*command)
    # yt-dlp looks at an address before it downloads it: what counts is the first request for each
    firsts = {path: when for when, host, path in reversed(site.asked) if host == "127.0.0.1"}
    slow = sorted(firsts.values())
    assert len(slow) == 9
    gaps = [later - earlier for earlier, later in zip(slow, slow[3:], strict=False)]
    assert all(gap >= 19 for gap in gaps), gaps  # a second for the way of a request
    others = [when for when, host, _ in site.asked if host == "localhost"]
    assert max(others) < slow[6], "they did not wait for the slow site"
