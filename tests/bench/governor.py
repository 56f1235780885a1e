"""Paced downloads against a site with the limit that is told of YouTube: 300 an hour, and a bot check beyond.

    PYTHONPATH=tests python tests/bench/governor.py             # a server with an hour of a minute: five minutes
    PYTHONPATH=tests python tests/bench/governor.py --hour 0    # the simulated clock alone

First on a simulated clock, at the size of the paper; then `marathon run` against a server here, with everything real
but the hour, which is shorter. A part of the videos is gone, and none of these may be asked for twice. The best
possible time is that of who knows the limit and every wait, and begins each download the moment that it is allowed.
"""

import argparse
import functools
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from figures import OUT, save, table
from simulated_site import Site, best_time, play

from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.sources.governor import Governor
from marathon_pipeline.sources.settings import LimitSettings, YouTubeLimits

DEAD = 0.43
HOUR = 3600.0


def simulated(count: int) -> dict[str, object]:
    limits, site = LimitSettings(), Site(dead=DEAD)
    governor, began = Governor(limits, random.Random(0)), time.perf_counter()
    played = play(governor, limits, {"youtube.com": site}, [("youtube.com", f"v{n}") for n in range(count)])
    best = best_time(count, limits, 20.0)
    return {
        "clock": "simulated",
        "videos": count,
        "hours": round(played.seconds / HOUR, 2),
        "over best": f"{played.seconds / best - 1:.1%}",
        "most in an hour": site.most(),
        "bot checks": site.checks,
        "asked twice": sum(times > 1 for times in site.asked.values()),
        "decides in": f"{(time.perf_counter() - began) / count * 1e3:.2f} ms",
    }


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, folder: Path, site: Site) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Answer, directory=str(folder)))
        self.site, self.looked, self.lock = site, set[str](), threading.Lock()

    def visit(self, video: str) -> str:
        """The reason of a refusal. yt-dlp looks at an address, then fetches what is there: one download."""
        with self.lock:
            if video in self.looked:
                self.looked.remove(video)
                return ""
            refusal = self.site.ask(video, time.time())[0]
            if not refusal:
                self.looked.add(video)
            return refusal


class Answer(SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        refusal = self.server.visit(self.path)
        if refusal:
            return self.send_error(429 if refusal == "bot_check" else 404)
        self.path = "/film.mp4"
        return super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def real(count: int, hour: float, downloads: int, folder: Path) -> dict[str, object]:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "served").mkdir(parents=True)
    film = ["-f", "lavfi", "-i", "testsrc2=duration=2:size=160x120:rate=5", "-pix_fmt", "yuv420p"]
    subprocess.run([ffmpeg_binary(), "-loglevel", "error", *film, folder / "served/film.mp4"], check=True)
    waits = (5.0 * hour / HOUR, 10.0 * hour / HOUR)
    limits = YouTubeLimits(hosts=("127.0.0.1",), downloads=downloads, per_seconds=hour, wait_seconds=waits)
    site = Site(downloads=downloads, per_seconds=hour, dead=DEAD)
    with Server(folder / "served", site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        rows = [
            {"url": f"http://127.0.0.1:{server.server_port}/{n}.mp4", "id": f"v{n}", "data_source": "old-list"}
            for n in range(count)
        ]
        (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        job = {
            "dataset": "out",
            "inputs": ["m.jsonl"],
            "download": {"limits": {"youtube": limits.model_dump(mode="json")}},
        }
        (folder / "job.yaml").write_text(json.dumps(job))
        command = [sys.executable, "-m", "marathon_pipeline", "run", "job.yaml", "--until", "download"]
        subprocess.run(command, cwd=folder, check=False, stdout=subprocess.DEVNULL)
        ended = time.time()
        server.shutdown()
    spans = max(site.times) - min(site.times)
    best = best_time(count, LimitSettings(youtube=limits), 0.0)
    return {
        "clock": f"real, an hour of {hour:g} s, {downloads} in it",
        "videos": count,
        "hours": round(spans / hour, 2),
        "over best": f"{spans / best - 1:.1%}",
        "most in an hour": site.most(),
        "bot checks": site.checks,
        "asked twice": sum(times > 1 for times in site.asked.values()),
        "decides in": f"ends {ended - max(site.times):.1f} s after the last request",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=28_000, help="of the simulated run")
    parser.add_argument("--hour", type=float, default=60.0, help="seconds of the real run's hour; 0: no real run")
    parser.add_argument("--downloads", type=int, default=30, help="of the real run, within its hour")
    parser.add_argument("--hours", type=int, default=3, help="of the real run, at least")
    given = parser.parse_args()
    rows = [simulated(count) for count in (1000, given.videos)]
    if given.hour:
        count = given.hours * given.downloads + 1
        rows.append(real(count, given.hour, given.downloads, OUT / "governor"))
    table("Downloads from a site with a limit", rows)
    save("governor", {"rows": rows})


if __name__ == "__main__":
    main()
