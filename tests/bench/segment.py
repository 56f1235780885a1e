"""The segment stage beside a plain decode: CPU, shots beside PySceneDetect, proxy, memory.

    python tests/bench/segment.py                       # everything: about half an hour
    python tests/bench/segment.py --minutes 2 --runs 1  # a first look

Every ratio is of CPU seconds (user and system, all processes), measured in turn (A B A B), medians of `--runs`.
"""

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

from figures import OUT, cpu_of, save, table

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.media.probe import probe
from marathon_pipeline.pipeline.work import Order, carry_out
from marathon_pipeline.records import Clip, Video
from marathon_pipeline.stages.segment import Segment, SegmentSettings

MEDIA = OUT / "media"
TOLERANCE = 0.25  # seconds
_PIECE = 120.0  # seconds
_B_FRAMES = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-b:v", "2M")
_CODECS: dict[str, tuple[str, ...]] = {  # the same pictures, with and without frames that nothing refers to
    "h264 with B-frames": _B_FRAMES,
    "vp9": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1", "-b:v", "2M"),
    "h264 without B-frames": ("-c:v", "libx264", "-preset", "veryfast", "-bf", "0", "-b:v", "2M"),
    "mpeg4": ("-c:v", "mpeg4", "-bf", "0", "-b:v", "4M"),
}
_SOURCES = (  # what a shot shows: each moves by itself
    "testsrc2=s=1280x720:r=30",
    "mandelbrot=s=1280x720:r=30:start_scale=0.6:end_scale=0.02:end_pts=400",
    "gradients=s=1280x720:r=30:n=6:seed=3:speed=0.02",
    "perlin=s=320x180:r=30:octaves=4:xscale=8:yscale=5:tscale=0.3:random_mode=seed:random_seed=9,"
    "eq=contrast=3,format=yuv444p,pseudocolor=preset=turbo,scale=1280:720:flags=bicubic",
)
_LOOKS = (
    "null",
    "hue=h=120:s=0.8",
    "negate",
    "hue=h=220,hflip",
    "eq=brightness=-0.15:contrast=0.8,vflip",
    "hflip",
    "hue=h=60,vflip",
)


def main() -> None:
    if sys.argv[1:2] == ["--stage"]:
        print(json.dumps(_stage(Path(sys.argv[2]), Path(sys.argv[3]))), flush=True)
        os._exit(0)  # the libraries' threads may abort an interpreter that ends while the machine is overloaded
    options = argparse.ArgumentParser()
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--long-minutes", type=float, default=60.0, help="0 leaves the comparison of memory out")
    options.add_argument("--real", type=Path, help="a real video: what is measured is made of it, enlarged to 720p")
    options.add_argument("--only", default="", help="the codecs whose name begins so")
    chosen = options.parse_args()
    MEDIA.mkdir(parents=True, exist_ok=True)
    pictures = _enlarged(chosen.real, _PIECE / 60) if chosen.real else _pictures()
    codecs = {name: codec for name, codec in _CODECS.items() if name.startswith(chosen.only)}
    films = {name: _repeated(_film(pictures, name, codec), chosen.minutes) for name, codec in codecs.items()}
    if chosen.real:
        films["h264 with B-frames"] = _enlarged(chosen.real, chosen.minutes)
    rows = [_cost(name, film, chosen.runs) for name, film in films.items()]
    table("CPU seconds: the whole stage beside `ffmpeg -threads 1 -i FILE -f null -`", rows)
    shots = _shots("made", _film(_pictures(), "h264 with B-frames", _B_FRAMES), _known_cuts())
    if chosen.real:
        shots += _shots("real", films["h264 with B-frames"], [])
    table(f"Shots within {TOLERANCE} s", shots)
    proxies = [_proxy(name, film) for name, film in films.items() if "B-frames" in name]
    table("Proxy beside the source scaled, the same instants", proxies)
    found: dict[str, Any] = {"minutes": chosen.minutes, "cpu": rows, "shots": shots, "proxy": proxies}
    if chosen.long_minutes:
        found["memory"] = [
            _memory(minutes, _repeated(films["h264 with B-frames"], minutes))
            for minutes in (chosen.minutes, chosen.long_minutes)
        ]
        table("Peak memory, MB", found["memory"])
    save("segment", found)


def _lengths() -> Iterator[float]:
    """Lengths of the shots of a piece, 2.4 to 6.4 s."""
    left, index = _PIECE, 0
    while left > 0:
        length = min(left, 2.4 + (index * 37 % 61) / 15)
        length = left if left - length < 2 else length
        yield round(length, 1)
        left, index = round(left - length, 1), index + 1


def _known_cuts() -> list[float]:
    """Of one piece."""
    return [round(end, 1) for end in accumulate(_lengths())][:-1]


def _film(pictures: Path, name: str, codec: tuple[str, ...]) -> Path:
    """A piece of two minutes in one codec; films repeat it, as encoding costs more than all that is measured."""
    path = MEDIA / f"{pictures.stem}-{name.replace(' ', '_')}.mp4"
    if not path.exists():
        _ffmpeg("-i", pictures, "-an", *codec, "-g", "250", path)
    return path


def _pictures() -> Path:
    """The piece's shots, made by lavfi and joined."""
    path = MEDIA / "pictures.mp4"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=MEDIA) as folder:
        names = []
        for index, length in enumerate(_lengths()):
            picture, look = _SOURCES[index % len(_SOURCES)], _LOOKS[index % len(_LOOKS)]
            shot = Path(folder) / f"{index:03}.mp4"
            # A slow pan and grain: what a camera adds.
            moving = "crop=1216:684:32+30*sin(n/40):18+16*cos(n/55),scale=1280:720,noise=alls=4:allf=t,format=yuv420p"
            _ffmpeg(
                *("-f", "lavfi", "-i", f"{picture},{look},{moving}", "-t", f"{length}", "-c:v", "libx264"),
                *("-preset", "ultrafast", "-crf", "16", shot),
            )
            names.append(f"file '{shot.name}'\n")
        listing = Path(folder) / "list.txt"
        listing.write_text("".join(names))
        _ffmpeg("-f", "concat", "-i", listing, "-c", "copy", path)
    return path


def _enlarged(real: Path, minutes: float) -> Path:
    path = MEDIA / f"real-{minutes:g}.mp4"
    if not path.exists():
        look = "scale=1280:720:flags=lanczos,fps=30"
        _ffmpeg("-i", real, "-an", "-t", f"{minutes * 60:g}", "-vf", look, *_B_FRAMES, path)
    return path


def _repeated(film: Path, minutes: float) -> Path:
    path = MEDIA / f"{film.stem}-to-{minutes:g}.mp4"
    if not path.exists():
        _ffmpeg("-stream_loop", "-1", "-i", film, "-t", f"{minutes * 60:g}", "-c", "copy", path)
    return path


def _ffmpeg(*arguments: object) -> None:
    command = [ffmpeg_binary(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    partial = Path(command[-1]).with_name(f"part-{Path(command[-1]).name}")
    subprocess.run([*command[:-1], str(partial)], check=True)
    partial.replace(command[-1])


def _cost(name: str, film: Path, runs: int) -> dict[str, Any]:
    plain, stage, start = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        short = Path(folder) / "short.mp4"
        _ffmpeg("-i", film, "-t", "1", "-c", "copy", short)
        for run in range(runs):
            plain.append(cpu_of([ffmpeg_binary(), "-v", "error", "-threads", "1", "-i", str(film), "-f", "null", "-"]))
            stage.append(cpu_of(_stage_command(film, Path(folder) / f"film-{run}")))
            start.append(cpu_of(_stage_command(short, Path(folder) / f"short-{run}")))
    whole, alone, imports = median(stage), median(plain), median(start)
    return {
        "codec": name,
        "plain": alone,
        "stage": whole - imports,  # a worker that takes its next video has its modules already
        "ratio": (whole - imports) / alone,
        "start": imports,
        "ratio with start": whole / alone,
    }


def _stage_command(film: Path, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--stage", str(film), str(folder)]


def _stage(film: Path, folder: Path) -> dict[str, Any]:
    """The stage as a worker does it, in this process: what it read, cut, measured and wrote, and its peak memory."""
    dataset = Dataset(str(folder), create=True)
    header = probe(film)
    video = Video(
        video_id="film",
        source_id="film",
        start=0,
        end=header.seconds,
        file=str(film.absolute()),
        sha256="",
        bytes=film.stat().st_size,
        width=header.width,
        height=header.height,
        fps=header.fps,
        codec=header.codec,
    )
    dataset.tables.write(Video, "film", [video], {})
    stage = Segment(SegmentSettings(min_seconds=0), dataset.storage)
    order = Order("film", "film", {"": "bench"}, {}, False, True, None)
    with _Peaks() as peaks:
        (outcome,) = asyncio.run(carry_out(stage, dataset, order))
    if outcome.status != "ok":
        raise SystemExit(f"{film}: {outcome.reason}: {outcome.message}")
    clips = dataset.tables.read(Clip, "film")
    return {"cuts": _cuts(clips), "own": peaks.own, "decoder": peaks.decoder, "all": peaks.together}


def _cuts(clips: list[Clip]) -> list[float]:
    """Where a shot begins inside a clip, and the shot before it ends there too."""
    shots = [list(clip.shots) for clip in clips]
    return sorted({shot.start for of_clip in shots for shot in of_clip[1:]})


class _Peaks:
    """Peak resident memory (MB) of this process and of its decoder: of the program, not of the fork it began as."""

    own = decoder = together = 0.0

    def __enter__(self) -> "_Peaks":
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.own = _high_water("self")
        self.together = self.own + self.decoder

    def _watch(self) -> None:
        import psutil

        while not self._stop.wait(0.5):
            for child in psutil.Process().children():
                try:
                    if "ffmpeg" in child.name():
                        self.decoder = max(self.decoder, _high_water(str(child.pid)))
                except (psutil.Error, OSError, TypeError):  # it ended
                    continue


def _high_water(process: str) -> float:
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def _shots(name: str, film: Path, known: list[float]) -> list[dict[str, Any]]:
    """Ours and PySceneDetect's beside the cuts that are known, and ours beside PySceneDetect's."""
    with tempfile.TemporaryDirectory() as folder:
        ours = _run_stage(film, Path(folder) / "stage")["cuts"]
        began = time.monotonic()
        command = [str(Path(sys.executable).with_name("scenedetect")), "-i", str(film), "-o", folder]
        cost = cpu_of([*command, "--downscale", "1", "detect-adaptive", "list-scenes", "-f", "scenes.csv"])
        print(f"scenedetect on every full frame: {cost:.0f} CPU s, {time.monotonic() - began:.0f} s", flush=True)
        lines = (Path(folder) / "scenes.csv").read_text().splitlines()
    timecodes = next(line for line in lines if line.startswith("Timecode List"))
    theirs = [_seconds(text) for text in timecodes.split(",")[1:] if text]
    rows = [_score(f"{name}: ours beside scenedetect's", ours, theirs)]
    if known:
        rows += [
            _score(f"{name}: ours beside the known", ours, known),
            _score(f"{name}: scenedetect's beside the known", theirs, known),
        ]
    return rows


def _seconds(timecode: str) -> float:
    hours, minutes, seconds = timecode.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _score(name: str, found: list[float], known: list[float]) -> dict[str, Any]:
    right = sum(any(abs(cut - other) <= TOLERANCE for other in found) for cut in known)
    true = sum(any(abs(cut - other) <= TOLERANCE for other in known) for cut in found)
    return {
        "shots": name,
        "there": len(known),
        "found": len(found),
        "recall": right / max(1, len(known)),
        "precision": true / max(1, len(found)),
    }


def _run_stage(film: Path, folder: Path) -> dict[str, Any]:
    done = subprocess.run(_stage_command(film, folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{film}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _proxy(name: str, film: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "stage"
        _run_stage(film, dataset)
        proxy = dataset / media_key("proxies", "film", ".mp4")
        size = probe(proxy)
        # Every frame of the source decoded, none skipped; the fifth that stands for its second, scaled.
        graph = (
            f"[0:v]fps=5:start_time=0,select='eq(mod(n,5),2)',setpts=N/TB,scale={size.width}:{size.height}:flags=area,"
            "settb=1,setpts=N[a];[1:v]settb=1,setpts=N[b];[a][b]ssim"
        )
        command = [ffmpeg_binary(), "-v", "info", "-nostdin", "-i", str(film), "-i", str(proxy), "-lavfi", graph]
        said = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True, check=True).stderr
        similar = re.search(r"SSIM .*All:([0-9.]+)", said)
        return {
            "codec": name,
            "MB an hour": proxy.stat().st_size / size.seconds * 3600 / 1e6,
            "share of source": proxy.stat().st_size / film.stat().st_size,
            "SSIM": float(similar[1]) if similar else 0.0,
        }


def _memory(minutes: float, film: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found = _run_stage(film, Path(folder))
    return {"minutes": minutes} | {name: round(found[name], 1) for name in ("own", "decoder", "all")}


if __name__ == "__main__":
    main()
