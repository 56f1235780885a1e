"""Odd and hostile media end ok or by a typed reason, within their limits, and open nothing else."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hostile_media import MEDIA, gif, references, text, video
from traced import Touched, strace, touched

from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.media.probe import OPEN_OPTIONS

LIMIT = 600 * 2**20  # bytes of one process
SETTINGS = {
    "parts": {"max_seconds": 300},
    "segment": {
        "min_seconds": 0,
        "decode": {"timeout_seconds": 60, "timeout_per_second": 0, "max_memory": 1536 * 2**20},
    },
}


def work(
    folder: Path,
    inputs: Sequence[Path | str],
    most: int = 2,
    seconds: int = 200,
    wrap: Sequence[str] = (),
    **decode: object,
) -> dict[str, dict]:
    """What a worker makes of files and URLs, by name: `ends`, `message`, `peaks` (bytes; its own, its processes').

    wrap: the command that runs the worker's.
    """
    settings = json.loads(json.dumps(SETTINGS))
    settings["segment"]["decode"] |= decode
    worker = Path(__file__).with_name("hostile_worker.py")
    done = subprocess.run(
        [*wrap, sys.executable, worker, folder, json.dumps(settings), str(most)],
        input="\n".join(map(str, inputs)),
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    unit = 1 if sys.platform == "darwin" else 1024
    return {line["name"]: line | {"peaks": [unit * peak for peak in line["peaks"]]} for line in lines}


class Canaries:
    """A pipe that a thread waits to have opened, and a server that counts who asks."""

    def __init__(self, folder: Path) -> None:
        self.touched: list[str] = []
        canaries = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                canaries.touched.append(self.path)
                self.send_error(404)

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}/secret.ts"
        self.secret = folder / "secret.ts"
        os.mkfifo(self.secret)
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        end = os.open(self.secret, os.O_WRONLY)  # returns once somebody opens it to read
        self.touched.append("file")
        os.close(end)

    def close(self) -> None:
        if "file" not in self.touched:
            os.close(os.open(self.secret, os.O_RDONLY))
        self._server.shutdown()


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    made = Canaries(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("hostile")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: MEDIA[name].make(folder / name), MEDIA))
    return work(folder / "dataset", [folder / name for name in MEDIA])


@pytest.mark.parametrize("name", MEDIA)
def test_it_ends_ok_or_by_a_typed_reason(worked: dict[str, dict], name: str) -> None:
    ends, message = worked[name]["ends"], worked[name]["message"]
    bad = [end for end in ends if end != "ok"]
    assert {*bad, *(["ok"] if not bad else [])} <= set(MEDIA[name].ends), message
    assert len(message.splitlines()) <= 1


def test_no_file_takes_more_memory_than_its_limit(worked: dict[str, dict]) -> None:
    last = worked[list(MEDIA)[-1]]
    assert max(last["peaks"]) < LIMIT


def test_a_picture_that_fits_max_pixels_but_not_max_memory_is_a_typed_failure(tmp_path: Path) -> None:
    text(gif(30_000, 16_000))(tmp_path / "vast.mp4")
    text(gif(65_535, 16_000))(tmp_path / "vaster.mp4")
    found = work(tmp_path / "d", [tmp_path / "vast.mp4", tmp_path / "vaster.mp4"], max_pixels=2**31, max_memory=2**28)
    ends = {end for line in found.values() for end in line["ends"]}
    assert ends <= {"failed memory", "failed picture_size", "failed no_frames"}
    assert max(found["vaster.mp4"]["peaks"]) < LIMIT


def test_what_a_file_names_is_never_opened(tmp_path: Path, canaries: Canaries) -> None:
    media = references(canaries.secret, canaries.address)
    for name, make in media.items():
        make(tmp_path / name)
    found = work(tmp_path / "dataset", [tmp_path / name for name in media], timeout_seconds=20)
    ends = {name: set(line["ends"]) for name, line in found.items()}
    own = {"url_reference.mp4", "alias_file.mp4", "alias_address.mp4"}  # they hold media of their own as well
    assert {name: end for name, end in ends.items() if name not in own and end != {"failed unreadable"}} == {}
    assert canaries.touched == []


def test_the_decoder_refuses_them_by_itself(tmp_path: Path, canaries: Canaries) -> None:
    media = references(canaries.secret, canaries.address)
    options = [word for name, value in OPEN_OPTIONS.items() for word in (f"-{name}", value)]
    for name, make in media.items():
        make(tmp_path / name)
        command = [ffmpeg_binary(), "-v", "error", "-nostdin", *options, "-i", tmp_path / name, "-f", "null", "-"]
        subprocess.run(command, capture_output=True, timeout=20)
    assert canaries.touched == []


@pytest.mark.parametrize(
    ("name", "options", "touched"),
    [
        ("hls_address.mp4", ["-f", "hls", "-protocol_whitelist", "file,http,tcp"], "/secret.ts"),
        ("concat_file.mp4", ["-f", "concat", "-safe", "0"], "file"),
        ("alias_file.mp4", ["-enable_drefs", "1", "-use_absolute_path", "1"], "file"),
    ],
)
def test_the_canaries_notice_a_decoder_that_follows(
    tmp_path: Path, canaries: Canaries, name: str, options: list[str], touched: str
) -> None:
    references(canaries.secret, canaries.address)[name](tmp_path / name)
    command = [ffmpeg_binary(), "-v", "error", "-nostdin", *options, "-i", tmp_path / name, "-f", "null", "-"]
    subprocess.run(command, capture_output=True, timeout=60)
    assert touched in canaries.touched


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_trace_tells_what_was_opened_and_who_was_asked(tmp_path: Path, canaries: Canaries) -> None:
    references(canaries.secret, canaries.address)["hls_address.mp4"](tmp_path / "hls.mp4")
    secret = tmp_path / "elsewhere/secret"
    secret.parent.mkdir()
    secret.write_text("secret")
    follow = ["-f", "hls", "-protocol_whitelist", "file,http,tcp", "-i", tmp_path / "hls.mp4", "-f", "null", "-"]
    log = tmp_path / "log"
    command = [*strace(log), "sh", "-c", 'cd elsewhere; cat secret; "$@"', "sh", ffmpeg_binary(), "-nostdin", *follow]
    subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
    asked = urlsplit(canaries.address).netloc
    found = touched(log).beyond(Touched(), tmp_path / "folder", "")
    assert {f"{secret} was opened", f"{asked} was asked"} <= set(found)
    assert f"{asked} was asked" not in touched(log).beyond(Touched(), tmp_path / "folder", asked)


def test_a_decoder_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video("-pix_fmt", "yuv420p")(tmp_path / "v.mp4")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    fake = bin_folder / "ffmpeg"
    fake.write_text("#!/bin/sh\n[ $# -gt 4 ] || exit 0  # scenedetect asks for it\nexec sleep 600\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    found = work(tmp_path / "dataset", [tmp_path / "v.mp4"], timeout_seconds=4)
    assert found["v.mp4"]["ends"][-1] == "failed decoder_timeout"
    fake.write_text("#!/bin/sh\n[ $# -gt 4 ] || exit 0\nkill -SEGV $$\n")
    found = work(tmp_path / "dataset", [tmp_path / "v.mp4"])
    assert found["v.mp4"]["ends"] == ["ok", "failed decoder_crashed"]
