"""Everything fails, again and again, while one run goes on: `make chaos`. No part of the test suite: it takes a while.

A job of many short videos on three Ray hosts, each in a network namespace of its own where that is allowed, with the
dataset in an object store and its text by a served model. Every few seconds something happens, drawn at random: a kill
-9 of the command, a worker, the process that asks, an ffmpeg, a raylet, the cluster's head, the model's server or the
object store; a network cut between the hosts and the model, the store, or one host and all the others; a full disk.
What dies comes back a little later; the command is started again whenever it ends with work left. It has to end with
all done; the release and its media have to be those of an undisturbed run on this machine alone, byte for byte; and no
video may have been condemned, since none is to blame.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import served
from conftest import Command
from hostile_media import ffmpeg
from hosts import Hosts, address_here, hosts, may_have_namespaces
from object_store import BUCKET, environment

from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.pipeline.stage_list import STAGE_NAMES

JOB = """
dataset: DATASET
inputs: [FOLDER/videos.jsonl]
segment: {min_seconds: 0}
events: {min_events: 0}
tasks: [temporal_order, object_existence, scene_recognition, overall_summarization]
models: {test: {model: test, endpoints: ["ENDPOINT"], frames: {count: 2, height: 48}}}
annotators: {caption_clips: test, caption_events: test, summarize: test, qa: test}
release: {name: chaos, despite: films of six seconds have one event}
run: {workers: 4, served_at_once: 16}
"""
SECONDS = 6  # of a video
TRIES = 100  # starts of the command
# Ray's own agents are `ray::` too: with one of them Ray itself dies.
_WORKERS = ("ray::IDLE", "ray::Caller", *(f"ray::{stage}" for stage in STAGE_NAMES))


class Line:
    """What connections to a port go through, until it is cut: then nothing comes through, nor a word that it is so."""

    def __init__(self, to: int) -> None:
        self._to, self._whole, self._open = to, threading.Event(), list[socket.socket]()
        self._whole.set()
        self._listening = socket.create_server(("0.0.0.0", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, seconds: float) -> None:
        self._whole.clear()
        time.sleep(seconds)
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._open.clear()
        self._whole.set()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        self._whole.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self._to), timeout=5)
            server.settimeout(None)
        except OSError:
            client.close()
            return
        self._open += [client, server]
        for one, other in ((client, server), (server, client)):
            threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                self._whole.wait()
                other.sendall(data)
        for each in (one, other):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


class Store:
    """The object store's process."""

    def __init__(self, folder: Path) -> None:
        (folder / BUCKET).mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._folder = folder
        self.restart()

    def restart(self) -> None:
        command = [sys.executable, "-m", "kept_store", str(self._folder), str(self.port)]
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Chaos:
    """What can happen. An event returns False where there is nothing for it to hit just now."""

    def __init__(
        self, cluster: Hosts, server: served.Server, store: Store, lines: dict[str, Line], rng: random.Random
    ) -> None:
        self.cluster, self._server, self._store, self._lines, self.rng = cluster, server, store, lines, rng
        self.driver: subprocess.Popen[str] | None = None
        self.kinds: dict[str, Callable[[], bool]] = {
            "command": self._command,
            "worker": lambda: self._kill("worker"),
            "asker": lambda: self._kill("asker"),
            "ffmpeg": lambda: self._kill("ffmpeg"),
            "raylet": self._raylet,
            "head": self._head,
            "model": lambda: self._restarts(self._server.kill, self._server.restart),
            "store": lambda: self._restarts(self._store.kill, self._store.restart),
            "cut model": lambda: self._cut("model"),
            "cut store": lambda: self._cut("store"),
        }
        if cluster.apart:
            self.kinds |= {"cut host": self._cut_host}
        if all(each.scratch.is_mount() for each in cluster.workers):
            self.kinds |= {"disk full": self._full}

    def _command(self) -> bool:
        if self.driver is None or self.driver.poll() is not None:
            return False
        self.driver.kill()
        return True

    def _kill(self, kind: str) -> bool:
        victims = [each for host in self.cluster.workers for each in host.below() if is_kind(each, kind)]
        for _ in range(300):
            if victims:
                break
            time.sleep(0.01)
            victims = [each for host in self.cluster.workers for each in host.below() if is_kind(each, kind)]
        if victims:
            with suppress(psutil.NoSuchProcess):
                self.rng.choice(victims).kill()
                return True
        return False

    def _raylet(self) -> bool:
        host = self.rng.choice(self.cluster.workers)
        for each in host.raylet():
            each.kill()
        time.sleep(self.rng.uniform(0.5, 3))
        return True

    def _head(self) -> bool:
        self.cluster.head.kill()
        return True

    def _restarts(self, kill: Callable[[], None], restart: Callable[[], None]) -> bool:
        kill()
        time.sleep(self.rng.uniform(0.5, 4))
        restart()
        return True

    def _cut(self, line: str) -> bool:
        self._lines[line].cut(self.rng.uniform(1, 6))
        return True

    def _cut_host(self) -> bool:
        host = self.rng.choice(self.cluster.workers)
        host.link("down")
        time.sleep(self.rng.uniform(1, 12))  # it is given up after six
        host.link("up")
        return True

    def _full(self) -> bool:
        ballast = self.rng.choice(self.cluster.workers).scratch / "ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        time.sleep(self.rng.uniform(1, 4))
        ballast.unlink()
        return True


def main() -> int:
    options = arguments()
    base = options.folder or Path(tempfile.mkdtemp(prefix="mc-"))
    base.mkdir(exist_ok=True)
    rng = random.Random(options.seed)
    render(base / "videos", options.videos)
    with served.running(model="test", latency=0.02, slots=64) as server:
        began = time.monotonic()
        wanted = reference(base, options.videos, server.url)
        print(f"undisturbed  {time.monotonic() - began:.0f} s  {len(wanted)} files to be the same", flush=True)
        began = time.monotonic()
        happened, ends, faults = disturbed(base, server, rng, options)
    faults += wrong(base, wanted)
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(happened.items()))
    print(f"{options.videos} videos, {happened.total()} events ({told}) in {time.monotonic() - began:.0f} s")
    print(f"the command ended {len(ends)} times: {', '.join(f'{end} {count}' for end, count in Counter(ends).items())}")
    failed, twice = again(base)
    print(f"failed, and done again: {', '.join(f'{reason} {count}' for reason, count in failed.items()) or 'none'}")
    killed = len(logged(base, "work_killed"))
    print(f"killed over its work: {killed}; done, but not yet on record when the command died: {twice}")
    for fault in faults:
        print(f"FAULT {fault}")
    if faults:
        print(f"all of it lies in {base}")
        return 1
    print("complete, no video condemned, identical")
    shutil.rmtree(base)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--gap", type=float, default=5.0, help="seconds from one event to the next, on average")
    parser.add_argument("--only", nargs="*", default=[], help="kinds of events")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="to work in; an undisturbed run that it holds is taken as it is")
    return parser.parse_args()


def render(folder: Path, count: int) -> None:
    """Pieces of one long test picture, none like another."""
    if (folder / "videos.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2=s=96x64:r=5:d={SECONDS * count}", "-pix_fmt", "yuv420p"),
        *("-force_key_frames", f"expr:gte(t,n_forced*{SECONDS})", "-f", "segment", "-segment_time", SECONDS),
        *("-reset_timestamps", 1, folder / "v%04d.mp4"),
    )
    lines = [json.dumps({"path": path.name, "licence": "CC0-1.0"}) for path in sorted(folder.glob("*.mp4"))[:count]]
    (folder / "videos.jsonl").write_text("\n".join(lines) + "\n")


def job(base: Path, dataset: str, endpoint: str) -> str:
    return JOB.replace("DATASET", dataset).replace("FOLDER", str(base / "videos")).replace("ENDPOINT", endpoint)


def reference(base: Path, videos: int, endpoint: str) -> dict[str, str]:
    folder = base / "reference"
    folder.mkdir(exist_ok=True)
    if not (folder / "out/releases").exists():
        (folder / "job.yaml").write_text(job(base, "out", endpoint))
        process = Command(folder).start("run", "job.yaml", "--set=run.workers=2")
        out, err = process.communicate()
        assert process.returncode == 0, out + err
    return published(folder)


def disturbed(
    base: Path, server: served.Server, rng: random.Random, options: argparse.Namespace
) -> tuple[Counter[str], list[str], list[str]]:
    """What happened, how the command ended each time, and what was wrong with that."""
    happened: Counter[str] = Counter()
    ends: list[str] = []
    faults: list[str] = []
    folder = base / "disturbed"
    for each in (folder, base / "store"):
        shutil.rmtree(each, ignore_errors=True)
    folder.mkdir()
    apart, rested = may_have_namespaces(), threading.Event()
    with ExitStack() as stack:
        store = Store(base / "store")
        stack.callback(store.kill)
        lines = {"model": Line(server.port), "store": Line(store.port)}
        urls = {name: f"http://{address_here(apart=apart)}:{line.port}" for name, line in lines.items()}
        found = environment(urls["store"]) | {"RAY_AUTH_MODE": "disabled"}
        found["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        for number in (1, 2):
            stack.enter_context(small_disk(base / f"host{number}"))
        cluster = stack.enter_context(hosts(2, 2, base, found, apart=apart))
        chaos = Chaos(cluster, server, store, lines, rng)
        (folder / "job.yaml").write_text(job(base, f"s3://{BUCKET}/out", f"{urls['model']}/v1"))
        trouble = threading.Thread(target=make_trouble, args=(chaos, options, happened, rested), daemon=True)
        trouble.start()
        stack.callback(trouble.join)
        stack.callback(rested.set)
        with patched(found):
            steps = [["--until", "verify"], []]  # a release that lacks what failed for now would get a name of its own
            for _ in range(TRIES):
                cluster.wait()
                arguments = ["run", "job.yaml", f"--set=run.ray_address={cluster.address}", *steps[0]]
                chaos.driver = Command(folder).start(*arguments)
                out, err = chaos.driver.communicate()
                code = chaos.driver.returncode
                ends.append(str(code))
                said = [
                    line for line in (*out.splitlines(), *err.splitlines()) if "failed" in line or "marathon:" in line
                ]
                print(f"       the command ended: {code}  {(said or [''])[-1][:160]}", flush=True)
                if "Traceback" in out + err:
                    faults.append(f"a traceback: {(out + err)[-500:]}")
                if code == 0:
                    del steps[0]
                if not steps:
                    return happened, ends, faults
                time.sleep(1)
    return happened, ends, [*faults, f"not done after {TRIES} starts"]


@contextmanager
def patched(found: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(found)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def make_trouble(chaos: Chaos, options: argparse.Namespace, happened: Counter[str], rested: threading.Event) -> None:
    """One event after another, each kind once before any comes again. What is dead after one comes back."""
    deck: list[str] = []
    began = time.monotonic()
    rested.wait(15)  # until the first command is at work
    while happened.total() < options.events and not rested.wait(chaos.rng.uniform(0.4, 1.6) * options.gap):
        if not deck:
            deck = [kind for kind in chaos.kinds if not options.only or kind in options.only]
            chaos.rng.shuffle(deck)
        kind = deck.pop()
        if chaos.kinds[kind]():
            happened[kind] += 1
            print(f"{happened.total():3}  {time.monotonic() - began:4.0f} s  {kind}", flush=True)
        chaos.cluster.restore()


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Where this may mount one; else it is as large as any."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)]
    mounted = not os.geteuid() and not subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def logged(base: Path, event: str) -> list[dict[str, Any]]:
    """What the runs logged: all but the last ten seconds of each that was killed."""
    paths = sorted((base / "store" / BUCKET / "out/logs").glob("*/*.jsonl"))
    lines = (json.loads(line) for path in paths for line in path.read_text().splitlines())
    return [line for line in lines if line["event"] == event]


def again(base: Path) -> tuple[Counter[str], int]:
    """What work failed of and was done again, and how often it was done though it had been."""
    ended = logged(base, "work_ended")
    failed: Counter[str] = Counter()
    for line in ended:
        failed.update(line.get("failed", {}))
    done = Counter((line["stage"], line["video_id"]) for line in ended if line["ok"] and "failed" not in line)
    return failed, sum(count - 1 for count in done.values())


def wrong(base: Path, wanted: Mapping[str, str]) -> list[str]:
    faults = []
    for outcome in Ledger(Storage(str(base / "store" / BUCKET / "out"))):
        if outcome.status == "failed":
            faults.append(f"{outcome.video_id} condemned in {outcome.stage}: {outcome.reason}: {outcome.message}")
    found = published(base / "store" / BUCKET)
    if found != wanted:
        differ = sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))
        faults.append(f"{len(differ)} files differ, such as {differ[0]}")
    return faults


def is_kind(process: psutil.Process, kind: str) -> bool:
    try:
        if kind == "worker":
            return process.cmdline()[0].startswith(_WORKERS)
        if kind == "asker":
            return process.cmdline()[0].startswith("ray::Caller")
        return process.name().startswith("ffmpeg") and "-i" in process.cmdline()  # not one that is only looked for
    except (psutil.Error, IndexError):
        return False


def published(folder: Path) -> dict[str, str]:
    """The sha256 of every file that a reader of the dataset gets."""
    files = [path for part in ("releases", "media") for path in sorted((folder / "out" / part).rglob("*"))]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
