"""Fills a folder with synthetic videos and the manifest that names them."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from marathon_pipeline.errors import UserError
from marathon_pipeline.records import digest
from marathon_pipeline.synthetic.director import write_script
from marathon_pipeline.synthetic.script import Script


def write_videos(
    out: Path,
    videos: int,
    minutes: float,
    seed: int,
    height: int = 180,
    fps: int = 15,
    progress: Callable[[float, float], None] | None = None,
) -> list[Path]:
    """Write `synthetic_<seed>_<nnn>.mp4`, the script of each beside it as `.json`, and a `manifest.jsonl` of them.

    A video whose script is already there is not rendered again. progress: called with the seconds of video that are
    done and with those there are in all. Raises UserError for arguments out of range and for a folder that cannot be
    written.
    """
    if videos < 1:
        raise UserError(f"{videos} videos: give 1 or more")
    scripts = {
        out / f"synthetic_{seed}_{index:03}.mp4": write_script(_seed_of(seed, index), minutes, height, fps)
        for index in range(videos)
    }
    total = sum(script.seconds for script in scripts.values())
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _alone_in(out):
            done = 0.0
            for path, script in scripts.items():

                def rendered(seconds: float, before: float = done) -> None:
                    if progress:
                        progress(before + seconds, total)

                _write_video(script, path, rendered)
                done += script.seconds
                rendered(0, done)
            _write(out / "manifest.jsonl", "".join(json.dumps(_row(path)) + "\n" for path in scripts))
    except OSError as error:
        raise UserError(f"{out}: the videos could not be written: {error.strerror or error}") from error
    return list(scripts)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Two commands that want the same videos: the second waits, and finds them done."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _seed_of(seed: int, index: int) -> int:
    return int(digest(["video", seed, index])[:8], 16)


def _write_video(script: Script, path: Path, progress: Callable[[float], None]) -> None:
    from marathon_pipeline.synthetic.render import render

    beside = path.with_suffix(".json")
    text = script.model_dump_json(indent=1) + "\n"
    if path.exists() and beside.exists() and beside.read_text(encoding="utf-8") == text:
        return
    beside.unlink(missing_ok=True)  # a script beside a video says that the video is of this script
    render(script, path, progress)
    _write(beside, text)


def _row(path: Path) -> dict[str, str]:
    return {
        "id": path.stem,
        "data_source": "synthetic",
        "path": path.name,
        "licence": "CC0-1.0",
        "licence_evidence": "rendered by marathon synth",
    }


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
