"""Sudden death, again and again: `make chaos`. No part of the test suite, since it takes half an hour.

One undisturbed run is the reference. Then every run gets a fresh dataset and suffers a kill -9 of the command itself,
of a worker and of an ffmpeg, in a random order, each at a random moment; the death of the command ends it, so it is
started again. The release and its media have to be the reference's, byte for byte, and the ledger may record nothing
as done twice.
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

from marathon_pipeline.pipeline.stage_list import STAGE_NAMES

JOB = """
dataset: out
synthetic: {{folder: {videos}, videos: {count}, minutes: {minutes}, seed: 11}}
segment: {{min_seconds: 0}}
events: {{min_events: 0}}
release: {{name: chaos}}
run: {{workers: {workers}}}
"""
KINDS = ("driver", "worker", "ffmpeg")
KILLED = ("worker_died", "decoder_killed")
# Ray's own agents are `ray::` too: with one of them Ray itself dies.
_WORKERS = ("ray::IDLE", "ray::Caller", *(f"ray::{stage}" for stage in STAGE_NAMES))


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
            order, gap, line = rng.sample(KINDS, len(KINDS)), undisturbed / 4, None
            folder = base / f"{index:03}"
            while line is None:
                waits = [rng.uniform(0, gap) for _ in order]
                line, wrong = one(fresh(folder, job), dict(zip(order, waits, strict=True)), rng, wanted)
                gap *= 0.8  # it had ended before the last kill: again, and earlier
            hit.update(order)
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


def one(
    folder: Path, waits: dict[str, float], rng: random.Random, wanted: dict[str, str]
) -> tuple[str | None, list[str]]:
    """Run with kills, each so long after the one before. What happened and what is wrong; None: not all of them hit."""
    marathon, wrong, began = Command(folder), [], time.monotonic()
    process, said = marathon.start("run", "job.yaml"), []
    for kind, wait in waits.items():
        if not killed(psutil.Process(process.pid), kind, wait, rng):
            break
        said.append(f"{kind} {time.monotonic() - began:4.1f} s")
        if kind == "driver":
            process.communicate()
            process = marathon.start("run", "job.yaml")
    out, err = process.communicate()
    if any(reason in out for reason in KILLED):  # a worker and an ffmpeg of the same video: a failure, and rightly so
        return None, []
    if process.returncode == 0 and len(said) < len(waits):
        return None, []
    what = f"killed: {', '.join(said)}; ended after {time.monotonic() - began:4.1f} s"
    if process.returncode != 0:
        return what, [f"exit {process.returncode}: {(out + err).strip()[-300:]}"]
    found = published(folder)
    if found != wanted:
        differ = sorted(path for path in found.keys() | wanted.keys() if found.get(path) != wanted.get(path))
        wrong.append(f"{len(differ)} files differ, such as {differ[0]}")
    if twice := done_twice(folder):
        wrong.append(f"{len(twice)} done twice, such as {twice[0]}")
    return what, wrong


def killed(driver: psutil.Process, kind: str, wait: float, rng: random.Random) -> bool:
    """Kill one of a kind after a while, or as soon as there is one; False if the run ended before."""
    end = time.monotonic() + wait
    while time.monotonic() < end and alive(driver):
        time.sleep(0.01)
    while alive(driver):
        try:
            below = driver.children(recursive=True)
        except psutil.Error:
            continue
        if victims := [driver] if kind == "driver" else [each for each in below if is_kind(each, kind)]:
            try:
                rng.choice(victims).kill()
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
