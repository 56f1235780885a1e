"""Marathon beside video2dataset: the same 50 videos from a server here, two workers each.

    python3 -m venv out/video2dataset
    out/video2dataset/bin/pip install video2dataset==1.3.0 'pyarrow<18'  # it pins torch 2.1, numpy 1
    python tests/bench/beside_video2dataset.py --film film.mp4      # 50 minutes cut out of it, as they were encoded
    python tests/bench/beside_video2dataset.py                      # 50 synthetic videos of a minute

video2dataset downloads, finds cuts at the video's full rate (its ContentDetector), cuts clips, and writes tars. By
default it cuts without encoding anew, and loses videos that have fewer key frames than cuts; `exact` encodes anew.
Marathon up to `segment` downloads, and decodes once for cuts (three detectors at five frames a second), windows,
signals and the proxy of one frame a second. Its whole chain goes on to captions, QA over 22 tasks, their verification,
the audit, and the release with media tars of the videos that have QA. One after another, each from its start.
"""

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from figures import OUT, measured, save, table

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.pipeline.status import status
from marathon_pipeline.synthetic.videos import write_videos

WORKERS, VIDEOS, SECONDS = 2, 50, 60
RUN_VIDEO2DATASET = """
import json, sys
from video2dataset import video2dataset
if __name__ == "__main__":
    video2dataset(**json.loads(sys.argv[1]))
"""


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--film", type=Path, help="of ten minutes or more; its minutes overlap")
    options.add_argument("--videos", type=int, default=VIDEOS)
    options.add_argument("--python", type=Path, default=Path("out/video2dataset/bin/python"), help="of video2dataset")
    chosen = options.parse_args()
    folder = (OUT / "video2dataset").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    videos = _minutes_of(chosen.film, folder, chosen.videos) if chosen.film else _rendered(chosen.videos)
    os.environ["no_proxy"] = "127.0.0.1"
    os.environ["PATH"] = f"{_ffmpeg_on_path(folder)}:{os.environ['PATH']}"
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(videos)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_port}/{path.name}" for path in sorted(videos.glob("*.mp4"))]
    hours = len(urls) * SECONDS / 3600
    rows = [
        {"what": what} | _row(command, len(urls), hours)
        for what, command in (
            ("video2dataset", _video2dataset(chosen.python, folder / "low", urls, "low")),
            ("video2dataset, exact", _video2dataset(chosen.python, folder / "exact", urls, "exact")),
            ("marathon, up to segment", _marathon(folder / "segment", urls, "--until", "segment")),
            ("marathon, to the release", _marathon(folder / "release", urls)),
        )
    ]
    server.shutdown()
    for row, name in zip(rows, ("low", "exact", "segment", "release"), strict=True):
        row["came through"] = _came_through(folder / name)
    made = {"clips in tars": _samples(folder / "exact"), "videos in tars": _samples(folder / "release/out/media")}
    table(f"{len(urls)} videos of {SECONDS} s, {WORKERS} workers", rows)
    print(made)
    save("beside_video2dataset", {"film": bool(chosen.film), "rows": rows} | made)


def _row(command: list[str], videos: int, hours: float) -> dict[str, Any]:
    found = measured(command)
    return {
        "videos a minute": videos / found["seconds"] * 60,
        "CPU s an hour of video": found["cpu"] / hours,
        "MB": found["memory"],
        "load before": found["load before"],
    }


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Into the figures nothing."""


def _minutes_of(film: Path, folder: Path, count: int) -> Path:
    """Begun evenly over the film, at its key frames."""
    videos = folder / "videos"
    videos.mkdir()
    command = [ffmpeg_binary(), "-v", "error", "-y"]
    for number in range(count):
        start = ["-ss", str(number * (600 - SECONDS) / count), "-t", str(SECONDS)]
        own = videos / f"{number:02}.mp4"
        subprocess.run([*command, *start, "-i", str(film), "-map", "0:v:0", "-c", "copy", str(own)], check=True)
    return videos


def _rendered(count: int) -> Path:
    videos = (OUT / "media/minutes").resolve()
    write_videos(videos, count, SECONDS / 60, seed=11)
    return videos


def _ffmpeg_on_path(folder: Path) -> Path:
    """video2dataset looks for it there."""
    binary = folder / "bin/ffmpeg"
    binary.parent.mkdir()
    binary.symlink_to(ffmpeg_binary())
    return binary.parent


def _came_through(folder: Path) -> int:
    if not (folder / "job.yaml").exists():
        return sum(json.loads(path.read_text())["successes"] for path in folder.glob("out/*_stats.json"))
    return next(stage.ok for stage in status(Dataset(str(folder / "out"))) if stage.stage == "segment")


def _video2dataset(python: Path, folder: Path, urls: list[str], precision: str) -> list[str]:
    folder.mkdir()
    (folder / "urls.txt").write_text("\n".join(urls))
    arguments = {
        "url_list": str(folder / "urls.txt"),
        "output_folder": str(folder / "out"),
        "output_format": "webdataset",
        "input_format": "txt",
        "tmp_dir": str(folder),
        "config": {
            "subsampling": {
                "CutDetectionSubsampler": {"cuts_are_clips": True, "args": {}},
                "ClippingSubsampler": {"args": {"precision": precision}},
            },
            "reading": {"yt_args": {}, "timeout": 60, "sampler": None},
            "storage": {
                "number_sample_per_shard": -(-len(urls) // WORKERS),
                "oom_shard_count": 5,
                "captions_are_subtitles": False,
            },
            "distribution": {
                "processes_count": WORKERS,
                "thread_count": WORKERS,
                "subjob_size": 1000,
                "distributor": "multiprocessing",
            },
        },
    }
    script = folder / "run_video2dataset.py"
    script.write_text(RUN_VIDEO2DATASET)
    return [str(python.absolute()), str(script), json.dumps(arguments)]


def _marathon(folder: Path, urls: list[str], *more: str) -> list[str]:
    folder.mkdir()
    rows = [{"url": url, "licence": "CC-BY-4.0", "licence_evidence": "made here"} for url in urls]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "job.yaml").write_text(
        f"dataset: {folder}/out\ninputs: [{folder}/manifest.jsonl]\nrun: {{workers: {WORKERS}}}\n"
        "segment: {min_seconds: 0}\nevents: {min_events: 0}\n"
        "release: {name: bench, licence: cc0-1.0, despite: its minutes overlap}\n"
    )
    return [sys.executable, "-m", "marathon_pipeline", "run", str(folder / "job.yaml"), *more]


def _samples(folder: Path) -> int:
    count = 0
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            count += sum(name.endswith(".mp4") for name in tar.getnames())
    return count


if __name__ == "__main__":
    main()
