"""Fixtures that test files share. A run is a process of its own, as a user's is; all else is called in this one."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import psutil
import pytest
from filelock import FileLock
from hypothesis import settings

from marathon_pipeline.cli import main

if TYPE_CHECKING:
    from serve import Server

settings.register_profile("marathon", deadline=None, derandomize=True)  # a slow machine is no failure
settings.load_profile("marathon")

Running = subprocess.Popen[str]
CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """The folder of real test videos, which is no part of the project."""
    folder = Path(os.environ.get("MARATHON_TEST_VIDEOS", CHECKOUT.parent / "shared" / "videos"))
    if not folder.is_dir():
        pytest.skip("no real videos: set MARATHON_TEST_VIDEOS to a folder that holds them")
    return folder


@dataclass(frozen=True)
class Command:
    """The `marathon` command in a working folder of its own."""

    folder: Path

    def start(self, *arguments: object) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "marathon_pipeline", *map(str, arguments)]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """Run it to its end; returns what it printed on stdout, on stderr where it was to fail by bad input.

        A process takes two seconds to start, so that only a run is one. One that has no work for Ray may be had `here`.
        """
        ended = self.apart if arguments[0] == "run" else self.here
        return ended(*arguments, code=code)

    def apart(self, *arguments: object, code: int = 0) -> str:
        """In a process of its own."""
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return _said(process.returncode, out, err, code)

    def here(self, *arguments: object, code: int = 0) -> str:
        """In this process."""
        out, err = io.StringIO(), io.StringIO()
        argv, before = ["marathon", *map(str, arguments)], signal.getsignal(signal.SIGTERM)
        try:
            with chdir(self.folder), redirect_stdout(out), redirect_stderr(err), patch.object(sys, "argv", argv):
                main()
        except SystemExit as end:
            return _said(end.code, out.getvalue(), err.getvalue(), code)
        finally:
            signal.signal(signal.SIGTERM, before)
        raise AssertionError("it returned")


def _said(ended: object, out: str, err: str, code: int) -> str:
    assert "Traceback" not in out + err, err
    assert (ended or 0) == code, f"exit {ended}\n{out}\n{err}"
    return err if code == 2 else out


@pytest.fixture
def marathon(tmp_path: Path) -> Command:
    return Command(tmp_path)


JOB = """
dataset: out
synthetic: {folder: videos, videos: 3, minutes: 3, seed: 5}
segment: {min_seconds: 0}
events: {min_events: 0}
release: {name: test}
audit: {sample_per_task: 1}
"""


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that is filled once, whatever the number of test processes (whose folders lie side by side)."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "whole").touch()
    return folder


@pytest.fixture(scope="module")
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the test file's `JOB` and the dataset and release that an undisturbed run here makes of it."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "job.yaml").write_text(request.module.JOB.replace("VIDEOS", str(folder / "videos")))
    Command(folder)("run", "job.yaml")
    return folder


@pytest.fixture
def begun(done: Path, tmp_path: Path) -> Command:
    """The same job with nothing done yet."""
    shutil.copy(done / "job.yaml", tmp_path)
    return Command(tmp_path)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `job.yaml` and the dataset, release and report that it gives. Read it, or copy it."""

    def build(folder: Path) -> None:
        (folder / "job.yaml").write_text(JOB)
        Command(folder)("run", "job.yaml")

    return made_once(tmp_path_factory, "built", build)


@pytest.fixture(scope="session")
def vllm_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models for the tests in tests/vllm: a `captioner`, which sees, and a `writer`."""
    from serve import make_models  # stands beside those tests

    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def vllm_servers(
    vllm_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[dict[str, Server]]":
    """Real vLLMs that serve them, shared by all tests: compare counters before and after."""
    from serve import serve_all

    with serve_all(vllm_models.values(), tmp_path_factory.mktemp("servers")) as servers:
        yield servers


def done_twice(folder: Path) -> list[str]:
    """Work on record as done more than once, in a job's folder; of a ledger so small that it is all lines."""
    lines = [json.loads(line) for path in (folder / "out/ledger").iterdir() for line in path.read_text().splitlines()]
    keys = Counter(
        (line["stage"], line["video_id"], line.get("part", ""), line["fingerprint"])
        for line in lines
        if line["status"] == "ok"
    )
    return sorted("/".join(key) for key, count in keys.items() if count > 1)


def those_that_ask(command: Running) -> list[psutil.Process]:
    """The processes of a run that ask servers."""
    found = []
    for each in psutil.Process(command.pid).children(recursive=True):
        with suppress(psutil.Error, IndexError):
            found += [each] if each.cmdline()[0].startswith("ray::Caller") else []
    return found
