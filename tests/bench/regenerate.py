"""What one template's change costs beside the whole: 1,000 videos, 22 tasks, QA by the test server.

    PYTHONPATH=tests python tests/bench/regenerate.py
    PYTHONPATH=tests python tests/bench/regenerate.py --videos 100     # a first look

The videos are rows up to their summaries, which a pilot asks about. All QA is written, verified and released; then one
template is edited, and the same command is run again. Compared are the tars, the requests that the server got, by task,
and the wall time of both runs without their start-up, which is that of a run on one video.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import served
import yaml
from figures import save, table
from rows_of_base import base_of_rows

from marathon_pipeline.shipped import shipped

TASK, TEMPLATE = "temporal_order", "qa/temporality/temporal_order.yaml"
SLOTS = 64
JOB = {
    "dataset": "base",
    "templates": "templates",
    "annotators": {"qa": "writer"},
    "release": {"name": "bench"},
    "gates": "gates.yaml",
}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--videos", type=int, default=1000)
    options.add_argument(
        "--latency", type=float, default=0.5, help="of the server, in seconds; below 0.3 who asks is the limit"
    )
    chosen = options.parse_args()
    videos = chosen.videos
    serving = served.running(slots=SLOTS, latency=chosen.latency, model="test")
    with tempfile.TemporaryDirectory() as temporary, serving as server:
        folder = Path(temporary)
        shutil.copytree(shipped("task_templates"), folder / "templates")
        base_of_rows(folder / "base", videos, clips=30, words=30)
        model = {"model": "test", "endpoints": [server.url], "max_in_flight": SLOTS}
        (folder / "gates.yaml").write_text("dataset: []\n")
        (folder / "job.yaml").write_text(yaml.safe_dump(JOB | {"models": {"writer": model}}))

        def run(pilot: str, *arguments: str) -> float:
            began = time.monotonic()
            command = [sys.executable, "-m", "marathon_pipeline", "run", "job.yaml", "--base", "base", "--into", pilot]
            subprocess.run([*command, *arguments], cwd=folder, stdout=subprocess.DEVNULL, check=True)
            return time.monotonic() - began

        def asked() -> Counter[str]:
            """Requests by task; not the one by which a run sees at its start whether the server obeys schemas."""
            return Counter(entry["task"] for entry in server.requests() if entry["task"])

        run("one", "--sample", "1", "--until", "qa", "--tasks", TASK)
        start = run("one", "--sample", "1", "--until", "qa", "--tasks", TASK, "--force")
        run("pilot", "--until", "qa", "--tasks", "overall_summarization")  # copies the rows, and asks nothing
        known = asked()
        whole = {"qa": run("pilot", "--until", "qa") - start}
        of_whole, known = asked() - known, asked()
        whole["verify"] = run("pilot", "--until", "verify") - start
        whole["release"] = run("pilot")
        before = _tars(folder / "pilot/releases/bench-1")
        template = folder / "templates" / TEMPLATE
        template.write_text(
            template.read_text().replace("instructions: |\n", "instructions: |\n  Prefer long spans.\n")
        )
        one = {"qa": run("pilot", "--until", "qa", "--tasks", TASK) - start}
        of_one = asked() - known
        one["verify"] = run("pilot", "--until", "verify", "--tasks", TASK) - start
        one["release"] = run("pilot")
        after = _tars(folder / "pilot/releases/bench-2")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    found: dict[str, Any] = {
        "videos": videos,
        "latency": chosen.latency,
        "requests of the whole": of_whole.total(),
        "requests of one task": dict(of_one),
        "tars changed": sorted(changed),
        "tars kept": len(before.keys() - changed),
        "start-up": start,
        "share of the full QA stage": one["qa"] / whole["qa"],
        "share with verify and release": sum(one.values()) / sum(whole.values()),
    }
    table("Seconds without start-up", [{"": "whole"} | whole, {"": "one task"} | one])
    for name, value in found.items():
        print(f"{name}: {value}")
    save("regenerate", found | {"whole": whole, "one": one})
    if set(of_one) != {TASK} or any(not name.startswith(f"{TASK}/") for name in changed):
        raise SystemExit("something else than the one task was asked, or released")


def _tars(release: Path) -> dict[str, str]:
    folder = release / "qa"
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.tar"))
    }


if __name__ == "__main__":
    main()
