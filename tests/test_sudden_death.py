"""Killed, stopped, full, read-only, damaged: what stands then, what the next run makes of it, what the user is told."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from chaos import is_kind, published
from conftest import Command, Running, done_twice

from marathon_pipeline.ffmpeg import ffmpeg_binary

pytestmark = pytest.mark.slow  # each starts and stops several runs

JOB = """
dataset: out
synthetic: {folder: VIDEOS, videos: 4, minutes: 1, seed: 3}
segment: {min_seconds: 0}
events: {min_events: 0}
release: {name: test}
run: {workers: 1}
"""


@pytest.fixture
def copied(done: Path, tmp_path: Path) -> Command:
    """A copy of what is done, which a test may damage."""
    shutil.copytree(done / "out", tmp_path / "out")
    shutil.copy(done / "job.yaml", tmp_path)
    return Command(tmp_path)


def below(process: Running, kind: str) -> list[psutil.Process]:
    return [each for each in psutil.Process(process.pid).children(recursive=True) if is_kind(each, kind)]


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def until(holds: Callable[[], object], process: Running) -> None:
    while not holds():
        assert process.poll() is None, f"the run ended before it could be disturbed: {process.communicate()}"
        time.sleep(0.01)


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def in_a_terminal(folder: Path) -> Running:
    """The command as the leader of a process group: what a terminal sends goes to all of it."""
    command = [sys.executable, "-m", "marathon_pipeline", "run", "job.yaml"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=folder, text=True, start_new_session=True, **pipes)


@contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[None]:
    """A file system there for a while, or the test is skipped."""
    folder.mkdir(exist_ok=True)
    if os.geteuid() or subprocess.run(["mount", *arguments, folder], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_run_that_is_stopped_in_every_way_and_loses_a_worker_gives_the_same_release(
    done: Path, begun: Command
) -> None:
    for number, times in ((signal.SIGINT, 1), (signal.SIGINT, 2)):
        process = in_a_terminal(begun.folder)
        until(lambda process=process: below(process, "ffmpeg"), process)
        for _ in range(times):
            os.killpg(process.pid, number)
            time.sleep(0.1)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 3, (number, times, out, err)
        assert "Traceback" not in out + err
        assert err.splitlines()[-1].startswith("marathon: stopped") and "run the same command again" in err
    process = begun.start("run", "job.yaml")
    until(lambda: below(process, "worker"), process)
    kill(below(process, "worker"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert published(begun.folder) == published(done)
    assert done_twice(begun.folder) == []


def test_sigterm_to_every_process_of_a_run_lets_the_work_in_flight_end_and_fails_no_video(
    done: Path, begun: Command
) -> None:
    for whom in ("its group", "all below it"):  # `kill -TERM -GROUP`; systemd and Slurm, which also reach the workers
        process = in_a_terminal(begun.folder)
        until(lambda process=process: below(process, "ffmpeg"), process)
        for each in psutil.Process(process.pid).children(recursive=True) if whom == "all below it" else ():
            with suppress(psutil.NoSuchProcess):
                each.terminate()
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 3, (whom, out, err)
        assert "failed" not in out
        assert err.splitlines()[-1].startswith("marathon: stopped with work left; run the same command again")
    begun("run", "job.yaml")
    assert published(begun.folder) == published(done)
    assert done_twice(begun.folder) == []


@pytest.mark.parametrize("started", ["gcs_server", "raylet"])
def test_sigterm_while_ray_starts_stops_the_run_and_says_so(begun: Command, started: str) -> None:
    process = begun.start("run", "job.yaml")
    until(lambda: below(process, started), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, out + err
    assert "run the same command again" in err.splitlines()[-1]


def test_a_worker_that_dies_as_it_starts_does_not_hold_up_the_run(begun: Command) -> None:
    def starting() -> list[psutil.Process]:
        every = psutil.Process(process.pid).children(recursive=True)
        return [each for each in every if any(word.endswith("/default_worker.py") for word in words(each))]

    process = begun.start("run", "job.yaml")
    until(starting, process)
    kill(starting())
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, out + err


def test_a_video_that_kills_its_worker_each_time_fails_alone_and_is_tried_by_one_later_run(
    done: Path, begun: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = begun.folder / "bin/ffmpeg"
    decoder.parent.mkdir()
    decoder.write_text(f"""#!/bin/sh
case "$*" in *synthetic_3_001*) echo >> {begun.folder}/deaths; kill -KILL $PPID; exit 1 ;; esac
exec {ffmpeg_binary()} "$@"
""")
    decoder.chmod(0o755)
    deaths = begun.folder / "deaths"
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{decoder.parent}:{os.environ['PATH']}")
        for total in (3, 6):
            out = begun("run", "job.yaml", code=1)
            assert "3 ok  1 failed (worker_died 1)" in out and "its worker died each time" in out
            assert len(deaths.read_text().splitlines()) == total
        assert "unchanged" in begun("run", "job.yaml")  # and no third time
        assert len(deaths.read_text().splitlines()) == 6
    begun("run", "job.yaml", "--retry-failed", "worker_died")
    last = {path.removeprefix("out/releases/test-2/"): hash for path, hash in published(begun.folder).items()}
    whole = {path.removeprefix("out/releases/test-1/"): hash for path, hash in published(done).items()}
    assert {path: last[path] for path in whole if path.startswith("qa/")} == {
        path: hash for path, hash in whole.items() if path.startswith("qa/")
    }


def test_a_full_disk_fails_nothing_for_good_and_a_later_run_gives_the_same_release(done: Path, begun: Command) -> None:
    with mounted(begun.folder / "out", "-t", "tmpfs", "-o", "size=600k", "tmpfs"):
        process = begun.start("run", "job.yaml")
        until(lambda: below(process, "ffmpeg"), process)
        ballast = begun.folder / "out/ballast"
        with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        out, err = process.communicate(timeout=120)
        assert "Traceback" not in out + err
        assert process.returncode == (1 if "disk_full" in out else 2), out + err
        assert "disk_full" in out or ("the disk is full" in err and "run the same command again" in err)
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=50m", begun.folder / "out"], check=True)
        begun("run", "job.yaml")
        assert published(begun.folder) == published(done)


def test_a_dataset_that_cannot_be_written_is_said_in_one_line(copied: Command) -> None:
    out = copied.folder / "out"
    with mounted(out, "--bind", str(out)):
        subprocess.run(["mount", "-o", "remount,ro,bind", out], check=True)
        for command in (["run", "job.yaml"], ["release", "out", "other"], ["purge", "out", "synthetic_3_000"]):
            said = copied(*command, code=2)
            assert len(said.splitlines()) == 1 and "read-only: make it writable" in said and str(out) in said
        copied("status", "out")  # what only reads still does


def test_a_lease_that_nobody_holds_and_a_half_written_release_stop_nobody(done: Path, copied: Command) -> None:
    out = copied.folder / "out"
    dead = {
        "host": os.uname().nodename,
        "pid": 2**22 + 1,
        "process_started": 0.0,
        "since": "then",
        "alive": time.time(),
    }
    for stale in (json.dumps(dead), "{}", "[]", '{"host": '):
        (max((out / "lease").iterdir())).write_text(stale)
        assert "unchanged" in copied("run", "job.yaml")
    release = out / "releases/test-1"
    (release / "README.md#1").write_text("what obstore was writing when it was killed")
    (max((out / "lease").iterdir())).write_text(json.dumps(dead))
    (release / "release.json").unlink()
    (release / "README.md").write_text("half of i")
    (release / "left-over").write_text("")
    copied("run", "job.yaml")
    assert published(copied.folder) == published(done)
    (release / "release.json").write_text('{"name": ')
    said = copied("run", "job.yaml", code=2)
    assert len(said.splitlines()) == 1 and "remove its folder" in said


def test_a_damaged_ledger_segment_is_made_good_from_the_tables(done: Path, copied: Command) -> None:
    segments = sorted((copied.folder / "out/ledger").iterdir())
    segments[-1].write_bytes(
        b"\xff\x00 5\n5\n[]\nnull\n" + segments[-1].read_bytes()[: segments[-1].stat().st_size // 2]
    )
    segments[0].write_bytes(b"")
    copied("run", "job.yaml")
    assert published(copied.folder) == published(done)


@pytest.mark.parametrize("damage", ["cut", "page"])
def test_a_damaged_table_file_is_named_and_made_anew_when_asked(done: Path, copied: Command, damage: str) -> None:
    (file,) = (copied.folder / "out/tables/qa").glob("*/synthetic_3_001.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else whole[:4] + bytes(200) + whole[204:])
    shutil.rmtree(copied.folder / "out/releases")
    said = copied("run", "job.yaml", code=2)
    assert len(said.splitlines()) == 1 and file.name in said and "--force --video synthetic_3_001" in said
    if damage == "page":  # the other one needs the same
        copied("run", "job.yaml", "--force", "--video", "synthetic_3_001")
        assert published(copied.folder) == published(done)


def test_a_damaged_list_of_sources_is_said_in_one_line(copied: Command) -> None:
    sources = copied.folder / "out/sources.parquet"
    sources.write_bytes(b"PAR1 and no more")
    said = copied("run", "job.yaml", code=2)
    assert len(said.splitlines()) == 1 and "sources.parquet is damaged" in said and "remove it" in said
    sources.unlink()
    assert "unchanged" in copied("run", "job.yaml")


def test_a_second_run_is_refused_and_told_what_to_do(copied: Command) -> None:
    from marathon_pipeline.dataset.dataset import Dataset

    with Dataset(str(copied.folder / "out")).lease():
        for command in (["run", "job.yaml"], ["release", "out", "other"]):
            said = copied(*command, code=2)
            assert len(said.splitlines()) == 1 and f"process {os.getpid()}" in said and "wait until it ends" in said
