"""Served models: what one process can ask, how stages overlap, and what the order of a prompt is worth.

    PYTHONPATH=tests python tests/bench/serving.py                            # all three, 50,000 requests
    PYTHONPATH=tests python tests/bench/serving.py load --requests 10000
    PYTHONPATH=tests python tests/bench/serving.py streaming prefix

`load`: QA requests of realistic length, journaled, against the test server with 256 slots of 2 seconds each; the client
has one core to itself, the server another. `streaming`: the command on 20 videos with stages of comparable length,
beside one stage after another. `prefix`: tokens that the server finds in its cache, by our order and by the reverse.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import served
import yaml
from by_hand import SUMMARY, TAXONOMY, captions, events, settings
from figures import save, table
from served.server import PrefixCache

from marathon_pipeline.annotators.protocol import Described
from marathon_pipeline.annotators.served.annotator import Served
from marathon_pipeline.annotators.served.pool import Pool, Reply, Request
from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.dataset.journal import Answers, Asked, Journal
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.records import ClipCaption, Event, Summary

SLOTS, LATENCY = 256, 2.0
AT_ONCE = 64  # videos, the default of `run.served_at_once`
TASKS = [task for task in TAXONOMY.tasks.values() if task.reads != ("global",)]
EACH = 2 * len(TASKS)  # requests of a video: a task in two formats
CLIPS, WORDS = 30, 60  # ten minutes; a captioner's fields have some 300 characters


def main() -> None:
    if sys.argv[1:2] == ["--client"]:
        print(json.dumps(asyncio.run(_client(sys.argv[2], int(sys.argv[3])))))
        return
    options = argparse.ArgumentParser()
    options.add_argument("what", nargs="*", default=["load", "streaming", "prefix"])
    options.add_argument("--requests", type=int, default=50_000)
    options.add_argument("--videos", type=int, default=20, help="of the streaming")
    chosen = options.parse_args()
    if "load" in chosen.what:
        save("serving-load", load(chosen.requests))
    if "streaming" in chosen.what:
        save("serving-streaming", streaming(chosen.videos))
    if "prefix" in chosen.what:
        save("serving-prefix", prefix())


# ---- load ----


def load(requests: int) -> dict[str, Any]:
    with served.running(latency=LATENCY, slots=SLOTS) as server:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(server.pid, {cores[-1]})
        command = [sys.executable, __file__, "--client", server.url, str(requests)]
        done = subprocess.run(
            ["taskset", "--cpu-list", str(cores[0]), *command], stdout=subprocess.PIPE, text=True, check=True
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        stats = server.stats()
    ideal = SLOTS / LATENCY
    found = {
        "requests": stats["requests"],
        "seconds": found["seconds"],
        "a second": stats["requests"] / found["seconds"],
        "share of slots/latency": stats["requests"] / found["seconds"] / ideal,
        "the same, once wide": found["steady"] / ideal,
        "client ms": found["cpu"] / stats["requests"] * 1000,
        "server ms": stats["cpu_seconds"] / stats["requests"] * 1000,
        "failed": found["failed"],
        "memory": found["memory"],
    }
    table("Load: CPU milliseconds a request", [{name: value for name, value in found.items() if name != "memory"}])
    table("Client's memory in MB, by requests answered", found["memory"])
    return found


async def _client(url: str, requests: int) -> dict[str, Any]:
    """Write the QA of as many videos as it takes."""
    annotator = Served(settings(max_in_flight=SLOTS).model_copy(update={"endpoints": (url,)}), TAXONOMY)
    process, memory, failed, marks = psutil.Process(), [], [], [(time.monotonic(), 0)]
    done, step = 0, max(1000, requests // 5)

    async def ask(video: str, folder: str) -> None:
        nonlocal done
        rows = _video(video)
        journal = Journal(Storage(folder), "qa", video)

        async def one(task: Any, format: Any) -> None:
            nonlocal done
            try:
                await annotator.for_work(Answers(journal, task.task)).write_qa(task, format, Described(*rows))
            except Exception as error:
                failed.append(f"{task.task}: {error}")
            done += 1
            if done % step == 0:
                memory.append({"requests": done, "MB": process.memory_info().rss / 2**20})
                marks.append((time.monotonic(), done))

        await asyncio.gather(*(one(task, format) for task in TASKS for format in ("open", "choice")))
        await asyncio.to_thread(journal.join)

    free = asyncio.Semaphore(AT_ONCE)

    async def when_free(video: str, folder: str) -> None:
        async with free:
            await ask(video, folder)

    with tempfile.TemporaryDirectory() as folder:
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*(when_free(f"video{number:05d}", folder) for number in range(-(-requests // EACH))))
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF)
    annotator.stop()
    (first, few), (last, many) = marks[min(1, len(marks) - 2)], marks[-1]  # without the beginning and the last answers
    return {
        "seconds": seconds,
        "steady": (many - few) / (last - first),
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "memory": memory,
        "failed": failed[:5],
    }


def _video(video: str) -> tuple[list[ClipCaption], list[Event], Summary]:
    """The same rows under another video's id, which stands in its prompts too."""
    clips = [clip.model_copy(update={"video_id": video}) for clip in captions(CLIPS, WORDS)]
    parts = [
        event.model_copy(update={"video_id": video, "caption": f"In {video}: {event.caption}"})
        for event in events(clips, 6, 100)
    ]
    return clips, parts, SUMMARY.model_copy(update={"video_id": video, "text": f"In {video}: {SUMMARY.text}"})


# ---- streaming ----

# Of each served stage: slots and latency, so that all take about as long as one core takes to cut the videos.
PACE = {"caption_clips": (4, 0.9), "caption_events": (4, 0.8), "summarize": (1, 1.3), "qa": (24, 0.75)}
JOB = """
synthetic: {folder: videos, minutes: 2, seed: 5}
segment: {min_seconds: 0}
events: {min_events: 0}
run: {workers: 1}
"""


def streaming(videos: int) -> dict[str, Any]:
    stages = ("segment", *PACE)
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        servers = {
            stage: stack.enter_context(served.running(slots=slots, latency=latency, model="test"))
            for stage, (slots, latency) in PACE.items()
        }
        job = yaml.safe_load(JOB) | {
            "models": {
                stage: {
                    "model": "test",
                    "endpoints": [server.url],
                    "max_in_flight": PACE[stage][0],
                    "frames": {"count": 4, "height": 96},
                }
                for stage, server in servers.items()
            },
            "annotators": {stage: stage for stage in PACE},
        }
        (folder / "job.yaml").write_text(yaml.safe_dump(job))

        def run(dataset: str, count: int, *arguments: str) -> float:
            began = time.monotonic()
            sets = [f"--set=dataset={dataset}", f"--set=synthetic.videos={count}", *arguments]
            command = [sys.executable, "-m", "marathon_pipeline", "run", "job.yaml", *sets]
            subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
            return time.monotonic() - began

        run("rendered", videos, "--until", "download")
        start = run("rendered", videos, "--until", "download", "--force", "--video", "synthetic_5_000")
        one = run("one", videos, "--video", "synthetic_5_000", "--until", "qa")
        own = {stage: run("steps", videos, "--until", stage) - start for stage in stages}
        streamed = run("streamed", videos, "--until", "qa")
        shutil.rmtree(folder / "streamed")
    table("Streaming: seconds of each stage alone", [own])
    longest = max(own.values())
    found = {
        "videos": videos,
        "start of a run": start,
        "longest stage": longest,
        "one video": one - start,
        "streamed": streamed - start,
        "stage after stage": sum(own.values()),
        "ratio": (streamed - start) / (longest + one - start),
    }
    table("Streaming: seconds, the start of a run left out; ratio: to the longest stage and one video", [found])
    return found | {"stages": own}


# ---- prefix ----


class Reversed(Pool):
    """Asks the task first and shows the notes last."""

    async def send(self, request: Request, asked: Asked, journal: Journal) -> Reply:
        system, user = request.messages[0], request.messages[1]["content"]
        turned = f"{user[len(request.shared) :]}\n\n{request.shared}"
        return await super().send(
            request._replace(messages=(system, {"role": "user", "content": turned}, *request.messages[2:])),
            asked,
            journal,
        )


def prefix(videos: int = 24) -> dict[str, Any]:
    rows = [_cached("ours", Pool, videos), _cached("reversed", Reversed, videos)]
    table("Prefix cache: tokens of QA prompts", rows)
    return {"orders": rows}


def _cached(name: str, pool: type[Pool], videos: int) -> dict[str, Any]:
    asked: list[Request] = []

    class Noting(pool):  # type: ignore[misc, valid-type]
        async def send(self, request: Request, recorded: Asked, journal: Journal) -> Any:
            asked.append(request)
            return await super().send(request, recorded, journal)

    async def run(model: ModelSettings, folder: str) -> None:
        annotator = Served(model, TAXONOMY)
        annotator.sender = Noting(model)

        async def ask(video: str) -> None:
            journal = Journal(Storage(folder), "qa", video)
            hands = [(annotator.for_work(Answers(journal, task.task)), task) for task in TASKS]
            rows = _video(video)
            await asyncio.gather(
                *(
                    hand.write_qa(task, format, Described(*rows))
                    for hand, task in hands
                    for format in ("open", "choice")
                )
            )

        await asyncio.gather(*(ask(f"video{number:05d}") for number in range(videos)))

    with served.running(latency=0.1, slots=32) as server, tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(settings(max_in_flight=32).model_copy(update={"endpoints": (server.url,)}), folder))
        tokens = server.stats()["tokens"]
    cache, allowed = PrefixCache(1 << 30), 0
    for request in sorted(asked, key=lambda request: (request.messages[0]["content"], request.shared)):
        system, user = (message["content"] for message in request.messages)
        allowed += cache.cached_tokens(f"<|system|>{system}<|end|><|user|>{user}<|end|>")
    return {
        "order": name,
        "requests": len(asked),
        "prompt tokens": tokens["prompt_tokens"],
        "cached": tokens["cached_tokens"],
        "share": tokens["cached_tokens"] / tokens["prompt_tokens"],
        "of what our order allows": tokens["cached_tokens"] / allowed,
    }


if __name__ == "__main__":
    main()
