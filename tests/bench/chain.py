"""The whole offline chain on many short videos: what a video costs by stage and by count, and the driver's memory.

    python tests/bench/chain.py                    # 10, 100 and 300 videos
    python tests/bench/chain.py --counts 10 40     # a first look

One rendered video is copied under other contents (a `free` box behind it), so that every video costs the same. Each
count builds a dataset of its own in a process of its own; CPU seconds are those of the driver and of all that Ray
starts.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

from figures import OUT, copies, save, table

from marathon_pipeline.config import parse_job
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.pipeline.plan import Selection
from marathon_pipeline.pipeline.status import status

WORKERS = 2


def main() -> None:
    if sys.argv[1:2] == ["--build"]:
        print(json.dumps(_build(Path(sys.argv[2]), Path(sys.argv[3]))))
        return
    options = argparse.ArgumentParser()
    options.add_argument("--counts", type=int, nargs="+", default=[10, 100, 300])
    options.add_argument("--minutes", type=float, default=1.0)
    chosen = options.parse_args()
    master = _master(chosen.minutes)
    rows, stages = [], []
    for count in sorted(chosen.counts):
        with tempfile.TemporaryDirectory() as folder:
            videos = Path(folder) / "videos"
            copies(master, videos, count)
            found = _run(videos, Path(folder) / "dataset")
        stages = found.pop("stages")
        rows.append({"videos": count} | found)
        print(rows[-1], flush=True)
    table("By count: CPU seconds, and the driver's memory in MB", rows)
    slopes = [_slope(few, many) for few, many in pairwise(rows)]
    if slopes:
        table("One more video costs: CPU seconds, and the driver's memory in MB", slopes)
    table(f"By stage, {rows[-1]['videos']} videos: seconds of work in a worker (wall)", stages)
    save("chain", {"minutes": chosen.minutes, "counts": rows, "one more": slopes, "stages": stages})


def _master(minutes: float) -> Path:
    from marathon_pipeline.synthetic.videos import write_videos

    (path,) = write_videos(OUT / f"media/synthetic-{minutes:g}", 1, minutes, seed=11)
    return path


def _run(videos: Path, dataset: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--build", str(videos), str(dataset)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _build(videos: Path, folder: Path) -> dict[str, Any]:
    """Build a dataset up to its verdicts, in this process as the driver."""
    import psutil
    from rich.console import Console

    from marathon_pipeline.job import run_job

    text = f"dataset: {folder}\nsegment: {{min_seconds: 0}}\nevents: {{min_events: 0}}\nrun: {{workers: {WORKERS}}}\n"
    config = parse_job(text, "bench", [])
    seen: dict[int, float] = {}
    stop = threading.Event()

    def watch() -> None:
        """Remember what each process has used so far: the last look counts."""
        while not stop.wait(0.25):
            for child in psutil.Process().children(recursive=True):
                try:
                    times = child.cpu_times()
                    # A worker's decoders are gone too soon to be seen: they are in its children's times.
                    seen[child.pid] = (
                        times.user
                        + times.system
                        + (times.children_user + times.children_system if "ray::" in child.name() else 0)
                    )
                except psutil.Error:
                    continue
            for pid in [pid for pid in seen if not psutil.pid_exists(pid)]:
                ended.append(seen.pop(pid))

    ended: list[float] = []
    watcher = threading.Thread(target=watch)
    watcher.start()
    before = psutil.Process().cpu_times()
    result = run_job(config, [str(videos)], Selection(until="verify"), None, 0, Console(stderr=True))
    own = psutil.Process().cpu_times()
    stop.set()
    watcher.join()
    if result.failures or result.stopped:
        raise SystemExit("\n".join(result.summary))
    memory = Path("/proc/self/status").read_text()
    driver = own.user + own.system - before.user - before.system
    return {
        "driver": driver,
        "workers": sum(ended) + sum(seen.values()),
        "resident": int(re.findall(r"VmRSS:\s+(\d+)", memory)[0]) / 1024,
        "peak": int(re.findall(r"VmHWM:\s+(\d+)", memory)[0]) / 1024,
        "stages": _stages(Dataset(str(folder))),
    }


def _stages(dataset: Dataset) -> list[dict[str, Any]]:
    stages = status(dataset)
    hours = next(stage.video_seconds for stage in stages if stage.stage == "segment") / 3600
    whole = sum(stage.seconds for stage in stages)
    rows = [
        {
            "stage": stage.stage,
            "seconds": stage.seconds,
            "share": stage.seconds / whole,
            "video hours per core-hour": round(hours / (stage.seconds / 3600), 1),
        }
        for stage in stages
        if stage.seconds  # each outcome is told to the millisecond: `summarize` takes less
    ]
    whole_row = {
        "stage": "all",
        "seconds": whole,
        "share": 1.0,
        "video hours per core-hour": round(hours * 3600 / whole, 1),
    }
    return [*rows, whole_row]


def _slope(few: dict[str, Any], many: dict[str, Any]) -> dict[str, Any]:
    more = many["videos"] - few["videos"]
    names = ("driver", "workers", "resident", "peak")
    return {"from": few["videos"], "to": many["videos"]} | {name: (many[name] - few[name]) / more for name in names}


if __name__ == "__main__":
    main()
