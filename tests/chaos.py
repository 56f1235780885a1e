"""Sudden death, again and again: `make chaos`. No part of the test suite, since it takes a quarter of an hour.

One undisturbed run is the reference. Then every run gets a fresh dataset and is killed at a random moment (kill -9, in
turn: the command itself, a worker, an ffmpeg), and run again to its end. The release and its media have to be the
reference's, byte for byte, and the ledger may record nothing as done twice.
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
from conftest import Command

JOB = """
dataset: out
synthetic: {{folder: {videos}, videos: {count}, minutes: {minutes}, seed: 11}}
segment: {{min_seconds: 0}}
events: {{min_events: 0}}
release: {{name: chaos}}
run: {{workers: {workers}}}
"""
KINDS = ("driver", "worker", "ffmpeg")
_WORKERS = ("ray::IDLE", "ray::carry_out")  # Ray's own agents are `ray::` too: with one of them Ray itself dies


def main() -> int:
    options = arguments()
    base = Path(tempfile.mkdtemp(prefix="marathon-chaos-"))
    job = JOB.format(
        videos=base / "videos", count=options.videos, minutes=options.minutes, workers=options.workers
    ).lstrip()
    rng = random.Random(options.seed)
    try:
        Command(base)("synth", "videos", "--videos", options.videos, "--minutes", options.minutes, "--seed", 11)
        reference = fresh(base / "reference", job)
        began = time.monotonic()
        Command(reference)("run", "job.yaml")
        undisturbed = time.monotonic() - began
        wanted = published(reference)
        print(f"undisturbed  {undisturbed:5.1f} s  {len(wanted)} files in releases/ and media/", flush=True)
        faults: list[str] = []
        hit: Counter[str] = Counter()
        began = time.monotonic()
        for index in range(options.runs):
            kind = KINDS[index % len(KINDS)]
            folder, moment, line = base / f"{index:03}", rng.uniform(0, undisturbed), None
            while line is None:  # it had ended by then: again, and earlier
                line, wrong = one(fresh(folder, job), kind, moment, wanted)
                moment *= 0.7
            hit[kind] += 1
            faults += [f"run {index + 1}: {each}" for each in wrong]
            left = (time.monotonic() - began) / (index + 1) * (options.runs - index - 1)
            verdict = "; ".join(wrong) or "identical"
            print(f"{index + 1:3}/{options.runs}  {line}  {verdict}  ({left / 60:.1f} min left)", flush=True)
            if not wrong:
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(base / "videos", ignore_errors=True)
    killed = ", ".join(f"{kind} {hit[kind]}" for kind in KINDS)
    minutes = (time.monotonic() - began) / 60
    print(f"{options.runs} runs in {minutes:.1f} min; killed: {killed}; {len(faults)} faults", flush=True)
    for fault in faults:
        print(f"FAULT {fault}")
    if faults:
        print(f"the datasets of these runs lie in {base}")
        return 1
    shutil.rmtree(base)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--videos", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each video")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    return parser.parse_args()


def fresh(folder: Path, job: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "job.yaml").write_text(job)
    return folder


def one(folder: Path, kind: str, moment: float, wanted: dict[str, str]) -> tuple[str | None, list[str]]:
    """Start, kill, run again. What happened (None: the run ended before it could be killed), and what is wrong."""
    marathon, wrong = Command(folder), []
    process = marathon.start("run", "job.yaml")
    hit = killed(psutil.Process(process.pid), kind, moment)
    out, err = process.communicate()
    if not hit:
        return None, []
    what = f"{kind:6} killed at {moment:4.1f} s, exit {process.returncode:3}"
    if kind != "driver" and process.returncode != 0:
        wrong.append(f"did not go on by itself: {(out + err).strip()[-200:]}")
    began = time.monotonic()
    again = marathon.start("run", "job.yaml")
    out, err = again.communicate()
    what += f", again {time.monotonic() - began:4.1f} s"
    if again.returncode != 0:
        return what, [*wrong, f"the second run: exit {again.returncode}: {(out + err).strip()[-300:]}"]
    found = published(folder)
    if found != wanted:
        differ = sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))
        wrong.append(f"{len(differ)} files differ, such as {differ[0]}")
    if twice := done_twice(folder):
        wrong.append(f"{len(twice)} done twice, such as {twice[0]}")
    return what, wrong


def killed(driver: psutil.Process, kind: str, moment: float) -> bool:
    """Kill one of a kind at a moment, or as soon as there is one; False if the run ended before."""
    end = time.monotonic() + moment
    while time.monotonic() < end and alive(driver):
        time.sleep(0.01)
    while alive(driver):
        try:
            below = driver.children(recursive=True)
        except psutil.Error:
            continue
        for victim in [driver] if kind == "driver" else [each for each in below if is_kind(each, kind)][:1]:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
            return True
        time.sleep(0.005)
    return False


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_kind(process: psutil.Process, kind: str) -> bool:
    try:
        if kind == "worker":
            return process.cmdline()[0].startswith(_WORKERS)
        return process.name().startswith("ffmpeg") and "-version" not in process.cmdline()
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


def done_twice(folder: Path) -> list[str]:
    lines = [json.loads(line) for path in (folder / "out/ledger").iterdir() for line in path.read_text().splitlines()]
    keys = Counter(
        (line["stage"], line["video_id"], line.get("part", ""), line["fingerprint"])
        for line in lines
        if line["status"] == "ok"
    )
    return sorted("/".join(key) for key, count in keys.items() if count > 1)


if __name__ == "__main__":
    sys.exit(main())
