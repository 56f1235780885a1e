"""Two nodes against one: a job whose stages wait, on Ray clusters of one and of two nodes, in turn.

    PYTHONPATH=tests python tests/bench/nodes.py [--videos 48]

A download takes seconds in which a server says nothing, an answer of the model some more; a node has four CPUs as Ray
counts them, and one process that asks. So what decides is how many videos wait at once, not this machine's cores.
Seconds of the command from its first work to its end; the start of Ray's processes is left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import served
import yaml
from figures import copies, save, table
from ray_nodes import cluster

CPUS = 4  # of a node
ASKING = 4  # videos that a node's process asks about at once
ANSWER_SECONDS, DOWNLOAD_SECONDS = 3.0, 4.0
JOB = """
inputs: [m.jsonl]
segment: {min_seconds: 0}
events: {min_events: 0}
tasks: [temporal_order, object_existence]
"""


class Slow(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(DOWNLOAD_SECONDS)
        super().do_GET()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def site(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Slow, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def films(folder: Path, count: int) -> None:
    """Copies of one short video."""
    from marathon_pipeline.ffmpeg import ffmpeg_binary

    one = folder / "one.mp4"
    graph = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=5:d=6", "-pix_fmt", "yuv420p"]
    subprocess.run([ffmpeg_binary(), "-v", "error", "-nostdin", *graph, one], check=True)
    copies(one, folder, count)


def seconds_on(folder: Path, dataset: str, nodes: int) -> float:
    with cluster() as made:
        for _ in range(nodes):
            made.add(num_cpus=CPUS)
        sets = {
            "dataset": dataset,
            "run.ray_address": made.address,
            "run.workers": CPUS * nodes,
            "run.callers": nodes,
            "run.served_at_once": ASKING * nodes,
        }
        command = [sys.executable, "-m", "marathon_pipeline", "run", "job.yaml", "--until", "qa"]
        began = time.time()
        subprocess.run([*command, *(f"--set={key}={value}" for key, value in sets.items())], cwd=folder, check=True)
        ended = time.time()
    lines = [json.loads(line) for path in (folder / dataset / "ledger").iterdir() for line in path.open()]
    assert all(line["status"] == "ok" for line in lines), "something failed"
    first = min(line["began"] for line in lines if line["stage"] == "download")
    print(f"{nodes} nodes: {ended - first:.1f} s, and {first - began:.1f} s before the first download", file=sys.stderr)
    return ended - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=48)
    parser.add_argument("--times", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "site").mkdir()
        films(folder / "site", options.videos)
        with site(folder / "site") as url, served.running(model="test", latency=ANSWER_SECONDS, slots=256) as server:
            rows = ({"url": f"{url}/v{number:04}.mp4"} for number in range(options.videos))
            (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            model = {"model": "test", "endpoints": [server.url], "frames": {"count": 2, "height": 48}}
            stages = ("caption_clips", "caption_events", "summarize", "qa")
            job = yaml.safe_load(JOB) | {"models": {"test": model}, "annotators": dict.fromkeys(stages, "test")}
            (folder / "job.yaml").write_text(yaml.safe_dump(job))
            took: dict[int, list[float]] = {1: [], 2: []}
            for turn in range(options.times):
                for nodes in took:
                    took[nodes].append(seconds_on(folder, f"out{turn}-{nodes}", nodes))
    found: dict[str, Any] = {
        "videos": options.videos,
        "one node": median(took[1]),
        "two nodes": median(took[2]),
        "ratio": median(took[1]) / median(took[2]),
    }
    table("A job of waiting stages: seconds", [found])
    save("nodes", found)


if __name__ == "__main__":
    main()
