"""What the benchmarks share: what a command uses, tables, and the JSON they leave in out/bench."""

import json
import os
import platform
import resource
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

OUT = Path("out/bench")


def cpu_of(command: Sequence[str]) -> float:
    """CPU seconds (user and system) of a command and its children. They are the caller's only children meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ...: exit status {done.returncode}\n{done.stdout[-2000:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Used(NamedTuple):
    """Memory in MB, pages shared by several processes counted once, and CPU seconds."""

    memory: float
    cpu: float


def used(pid: int) -> tuple[Used, Used]:
    """What a process uses, and what all its descendants do, with the CPU seconds of those that have ended."""
    own, others = Used(0.0, 0.0), Used(0.0, 0.0)
    with suppress(psutil.Error):
        for process in (found := psutil.Process(pid), *found.children(recursive=True)):
            with suppress(psutil.Error):  # it ended meanwhile: its seconds are then among its parent's children's
                times, memory = process.cpu_times(), process.memory_full_info().pss / 1e6
                cpu, ended = times.user + times.system, times.children_user + times.children_system
                if process is found:
                    own, others = Used(memory, cpu), Used(0.0, ended)
                else:
                    others = Used(others.memory + memory, others.cpu + cpu + ended)
    return own, others


def measured(command: Sequence[str], ends: Sequence[int] = (0,)) -> dict[str, float]:
    """Run a command: its seconds, and of it and all its descendants the CPU seconds and the peak of memory in MB."""
    load, began = os.getloadavg()[0], time.monotonic()
    peak, cpu = 0.0, 0.0
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT, text=True)
        while process.poll() is None:
            own, others = used(process.pid)
            peak, cpu = max(peak, own.memory + others.memory), max(cpu, own.cpu + others.cpu)
            time.sleep(0.5)
        seconds = time.monotonic() - began
        printed.seek(0)
        said = printed.read()
    if process.returncode not in ends:
        raise SystemExit(f"{' '.join(command[:4])} ...: exit status {process.returncode}\n{said[-2000:]}")
    print(said)
    return {"seconds": seconds, "cpu": cpu, "memory": peak, "load before": load}


def copies(video: Path, folder: Path, count: int) -> None:
    """`v0000.mp4` and so on: the same pictures, each with a content of its own by a `free` box behind it."""
    folder.mkdir(exist_ok=True)
    data = video.read_bytes()
    for number in range(count):
        (folder / f"v{number:04}.mp4").write_bytes(data + struct.pack(">I4sQ", 16, b"free", number))


def machine() -> dict[str, Any]:
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    return {"cores": os.cpu_count(), "cpu": model, "python": platform.python_version(), "load": os.getloadavg()[0]}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows with the same keys as a table."""
    print(f"\n{title}")
    head = list(rows[0])
    cells = [head, *([_text(row[name]) for name in head] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    for line in cells:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)), flush=True)


def _text(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def save(name: str, found: dict[str, Any]) -> None:
    """Write out/bench/<name>.json."""
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / f"{name}.json").write_text(json.dumps({"machine": machine()} | found, indent=1) + "\n")
    print(f"\n{OUT / name}.json")
