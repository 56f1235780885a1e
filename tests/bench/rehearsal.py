"""A build of the paper's size without its pixels and its models: what the pipeline itself costs, stage by stage.

    PYTHONPATH=tests:tests/bench python tests/bench/rehearsal.py --videos 280     # a first look, minutes
    PYTHONPATH=tests:tests/bench python tests/bench/rehearsal.py --videos 2800    # a tenth
    PYTHONPATH=tests:tests/bench python tests/bench/rehearsal.py                  # 28,000 videos: hours, 20 GB of disk
    PYTHONPATH=tests:tests/bench python tests/bench/rehearsal.py --videos 280 --served   # with texts by the test server
    PYTHONPATH=tests:tests/bench python tests/bench/rehearsal.py --compare 280 2800      # by how much each stage grows
    PYTHONPATH=tests:tests/bench python tests/bench/rehearsal.py --compare 280 280-served   # what asking servers adds

The command is the real one, with videos and texts by `generated.py`, and goes stage by stage, so that each has its own
wall time, CPU and memory. Then come report and release, the trainer's join of media and QA, a run that finds nothing to
do, `plan` and `status`; the last and the run on a slow object store too. What is measured is kept: a rehearsal that was
stopped goes on where it was (`--minutes`: it stops itself), and times of its pieces add up.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import served
import yaml
from figures import OUT, save, table, used
from large import VIDEOS, collections
from object_store import BUCKET, environment, in_front, object_store

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.pipeline.stage_list import ANNOTATED

ROOT = OUT / "rehearsal"
STAGES = ("download", "segment", "caption_clips", "caption_events", "summarize", "qa", "verify")
GENERATED = [sys.executable, str(Path(__file__).with_name("generated.py"))]
MARATHON = [sys.executable, "-m", "marathon_pipeline"]
SLOW = 0.02  # seconds to each answer of the object store
JOB = {
    "inputs": ["manifest.jsonl"],
    "segment": {"min_seconds": 0},
    "events": {"min_events": 0},
    "release": {"name": "bench", "shards": 16, "media_shards": 16},
    "audit": {"sample_per_task": 0},
    "run": {"workers": 2},
}
JOIN = """
import sys
from marathon_pipeline.hour_llava.data.loader import Loader
from marathon_pipeline.hour_llava.data.settings import LoaderSettings
print(Loader(LoaderSettings(releases=(sys.argv[1],), workers=0)).batches(), "batches")
"""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--videos", type=int, default=VIDEOS)
    options.add_argument("--served", action="store_true", help="up to the verdicts, with texts by the test server")
    options.add_argument("--compare", nargs=2, metavar=("FEW", "MANY"), help="of what was measured")
    options.add_argument("--minutes", type=float, default=1e9)
    chosen = options.parse_args()
    if chosen.compare:
        return compare(*chosen.compare)
    folder = ROOT / str(chosen.videos)
    if chosen.served:
        return asking(folder.with_name(f"{folder.name}-served").resolve(), chosen.videos)
    rehearsal = Rehearsal(folder.resolve(), time.monotonic() + 60 * chosen.minutes)
    prepare(folder, chosen.videos, JOB, film_seconds=30)
    rehearsal.stages()
    rehearsal.step("report and release", [*GENERATED, "run", "job.yaml"])
    rehearsal.step("join", [sys.executable, "-c", JOIN, "dataset/releases/bench-1"])
    rehearsal.step("nothing to do", [*GENERATED, "run", "job.yaml"])
    rehearsal.step("plan", [*GENERATED, "plan", "job.yaml"])
    rehearsal.step("status", [*MARATHON, "status", "dataset"])
    rehearsal.in_a_store()
    rehearsal.show()


def asking(folder: Path, videos: int) -> None:
    """A build whose texts are those of the test server, which answers at once: what the client costs, in its CPU."""
    with served.running(model="test", slots=64) as server:
        model = {"model": "test", "endpoints": [server.url], "frames": {"count": 4, "height": 36}}
        job = JOB | {"models": {"test": model}, "annotators": dict.fromkeys(ANNOTATED, "test")}
        prepare(folder, videos, job, film_seconds=3600)
        rehearsal = Rehearsal(folder)
        rehearsal.stages()
        asked = Counter(entry["schema"] for entry in server.requests())
    rehearsal.show()
    print(f"requests: {', '.join(f'{schema} {count}' for schema, count in asked.items())}")


def prepare(folder: Path, videos: int, job: Mapping[str, Any], film_seconds: int) -> None:
    """The manifest, the job, and the film that stands for every proxy: a picture a second."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "job.yaml").exists():
        rows = ({"url": f"https://v.example/{number}.mp4", "data_source": collection, "licence": "CC0-1.0"}
                for number, collection in enumerate(collections(videos)))  # fmt: skip
        (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "gates.yaml").write_text("dataset: []\n")
        (folder / "job.yaml").write_text(yaml.safe_dump({"dataset": "dataset", "gates": "gates.yaml"} | job))
    film = folder / "film.mp4"
    if not film.exists():
        picture = ["-f", "lavfi", "-i", f"testsrc2=size=64x36:rate=1:duration={film_seconds}"]
        encode = ["-pix_fmt", "yuv420p", "-g", "1", "-crf", "40"]
        subprocess.run([ffmpeg_binary(), "-v", "error", *picture, *encode, str(film)], check=True)
    os.environ["FILM"] = str(film.resolve())


@dataclass
class Rehearsal:
    """Steps that are measured, each once, in a folder. `until`: when to stop, of the monotonic clock."""

    folder: Path
    until: float = float("inf")
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.folder / "measured.json").exists():
            self.rows = json.loads((self.folder / "measured.json").read_text())

    def stages(self) -> None:
        for stage in STAGES:
            self.step(stage, [*GENERATED, "run", "job.yaml", "--until", stage])

    def step(self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        row = self.rows.setdefault(name, {"done": False, "pieces": 0, "wall": 0.0, "driver": 0.0, "others": 0.0})
        if not row["done"]:
            code = self._piece(name, command, env)
            if code == 3:
                raise SystemExit(f"{name}: stopped, go on with the same command")
            row["done"] = True
            self._keep()
            print(f"{name}: {row['wall']:.1f} s", flush=True)

    def _piece(self, name: str, command: Sequence[str], env: Mapping[str, str] | None) -> int:
        before, began = dict(self.rows[name]), time.monotonic()
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, env=env)
        row, told, driver_cpu, others_cpu = self.rows[name], False, 0.0, 0.0
        while process.poll() is None:
            own, others = used(process.pid)
            driver_cpu, others_cpu = max(driver_cpu, own.cpu), max(others_cpu, others.cpu)
            row["pieces"], row["wall"] = before["pieces"] + 1, before["wall"] + time.monotonic() - began
            row["driver"], row["others"] = before["driver"] + driver_cpu, before["others"] + others_cpu
            for kind, now in (("driver MB", own.memory), ("all MB", own.memory + others.memory)):
                row[kind] = max(row.get(kind, 0.0), now)
            self._keep()
            if time.monotonic() > self.until and not told:
                told = True
                process.send_signal(signal.SIGTERM)
            time.sleep(0.5 if row["wall"] < 30 else 3)  # a look takes a tenth of a second of CPU
        if process.returncode not in (0, 3):
            raise SystemExit(f"{name}: exit {process.returncode}\n{(self.folder / f'{name}.log').read_text()[-2000:]}")
        return process.returncode

    def _keep(self) -> None:
        (self.folder / "measured.json.new").write_text(json.dumps(self.rows, indent=1))
        (self.folder / "measured.json.new").rename(self.folder / "measured.json")

    def in_a_store(self) -> None:
        """What only reads the ledger and what was made of it, from a store that takes its time."""
        with object_store() as store, in_front(store, latency=SLOW) as front:
            os.environ.update({name: value for name, value in environment(store).items() if name.startswith("AWS")})
            here, there = Storage(str(self.folder / "dataset")), Storage(f"s3://{BUCKET}/d")
            for key in here.keys(""):
                if key.startswith(("ledger/", "audit/report.json")) or key.endswith("release.json") or "/" not in key:
                    there.write(key, here.read(key))
            job = yaml.safe_load((self.folder / "job.yaml").read_text()) | {"dataset": there.url}
            (self.folder / "stored.yaml").write_text(yaml.safe_dump(job))
            env = environment(front.url)
            for name, arguments in (
                ("status, store", [*MARATHON, "status", there.url]),
                ("nothing to do, store", [*GENERATED, "run", "stored.yaml"]),
            ):
                asked = front.answered.total()
                self.step(name, arguments, env)
                self.rows[name].setdefault("requests", front.answered.total() - asked)
            self._keep()

    def show(self) -> None:
        rows = [{"step": name, **row} for name, row in self.rows.items()]
        columns = ("step", "pieces", "wall", "driver", "others", "driver MB", "all MB", "requests")
        table("Seconds, CPU seconds of the driver and of all others, peak memory", [
            {name: row.get(name, "") for name in columns} for row in rows
        ])  # fmt: skip
        save(f"rehearsal-{self.folder.name}", {"rows": rows})


def compare(few: str, many: str) -> None:
    """How each step grows beside the number of videos: 1 is linear, less is better."""
    of = {name: json.loads((ROOT / name / "measured.json").read_text()) for name in (few, many)}
    videos = {name: int(name.partition("-")[0]) for name in of}
    table(f"{many} beside {few}, for each video", [
        {
            "step": step,
            **{f"ms of CPU, {name}": 1000 * _cpu(of[name][step]) / videos[name] for name in of},
            "CPU": _cpu(of[many][step]) / videos[many] / (_cpu(of[few][step]) / videos[few]),
            "wall": of[many][step]["wall"] / videos[many] / (of[few][step]["wall"] / videos[few]),
        }
        for step in of[few] if step in of[many]
    ])  # fmt: skip


def _cpu(row: Mapping[str, Any]) -> float:
    return float(row["driver"] + row["others"])


if __name__ == "__main__":
    main()
