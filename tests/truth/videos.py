"""Synthetic videos in two encodings, and what the stages write about them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import ffmpeg
from stage_rows import rows_of

from marathon_pipeline.annotators.measured import Measured
from marathon_pipeline.config import parse_job
from marathon_pipeline.dataset import parquet
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.media.probe import probe
from marathon_pipeline.pipeline.stage_list import ANNOTATED, build_stages
from marathon_pipeline.records import Clip, ClipCaption, QAPair, Record, Signals, Video
from marathon_pipeline.stages.stage import Stage
from marathon_pipeline.synthetic.director import write_script
from marathon_pipeline.synthetic.render import frames
from marathon_pipeline.synthetic.script import Script
from marathon_pipeline.taxonomy import TASK_IDS, Task, Taxonomy, load_taxonomy

JOB = parse_job("dataset: none\nsegment: {min_seconds: 0}\nevents: {min_events: 0}", "truth", [])
ENCODINGS = {
    "fine": {"crf": 23, "preset": "veryfast", "bf": 3},
    "coarse": {"crf": 32, "preset": "superfast", "bf": 0},
}


MOST = 10_000  # questions of a task and format: all that the rules can write, not only those that a dataset holds


class Written(NamedTuple):
    """What was written about one video. `name`: its seed, length and encoding."""

    name: str
    script: Script
    captions: list[ClipCaption]
    pairs: list[QAPair]


def written(seed: int, minutes: float, folder: Path) -> Iterator[Written]:
    """Renders one script, encodes it in every way, and runs the stages. What was measured stays in `folder`."""
    script = write_script(seed, minutes)
    measured = {name: folder / f"{seed}_{minutes:g}_{name}.parquet" for name in ENCODINGS}
    if not all(file.exists() for file in measured.values()):
        videos = {name: file.with_suffix(".mp4") for name, file in measured.items()}
        _encode(script, videos)
        for name, video in videos.items():
            _keep(rows_of(_stages(folder)["segment"], {Video: [_row(video)]}, _storage(folder)), measured[name])
            video.unlink()
    for name, file in measured.items():
        yield Written(f"seed {seed}, {minutes:g} min, {name}", script, *_write(_kept(file), folder))


def _encode(script: Script, videos: dict[str, Path]) -> None:
    picture = ffmpeg.input(
        "pipe:", format="rawvideo", pix_fmt="yuv420p", s=f"{script.width}x{script.height}", r=script.fps
    )
    outputs = [
        picture.output(
            str(path), vcodec="libx264", g=20 * script.fps, threads=1, colorspace="smpte170m",
            color_primaries="smpte170m", color_trc="smpte170m", color_range="tv", **ENCODINGS[name],
        )
        for name, path in videos.items()
    ]  # fmt: skip
    merged = ffmpeg.merge_outputs(*outputs).global_args("-loglevel", "error", "-nostdin", "-y")
    with merged.run_async(cmd=ffmpeg_binary(), pipe_stdin=True) as encoder:
        for frame in frames(script):
            encoder.stdin.write(frame.data)
        encoder.stdin.close()
    assert encoder.returncode == 0, videos


def _row(path: Path) -> Video:
    found = probe(path)
    return Video(
        video_id=path.stem, source_id=path.stem, start=0, end=found.seconds, file=str(path), sha256="", bytes=0,
        width=found.width, height=found.height, fps=found.fps, codec=found.codec,
    )  # fmt: skip


def _stages(folder: Path) -> dict[str, Stage]:
    annotators = dict.fromkeys(ANNOTATED, Measured())
    built = build_stages(JOB.stage_settings(), annotators, _asking_all(load_taxonomy()), TASK_IDS, _storage(folder))
    return {stage.name: stage for stage in built}


def _storage(folder: Path) -> Storage:
    return Storage(str(folder / "dataset"))


def _asking_all(taxonomy: Taxonomy) -> Taxonomy:
    def all_of(task: Task) -> Task:
        counts = {format: MOST * bool(count) for format, count in task.per_video.model_dump().items()}
        return task.model_copy(update={"per_video": task.per_video.model_copy(update=counts)})

    return taxonomy.model_copy(update={"tasks": {name: all_of(task) for name, task in taxonomy.tasks.items()}})


def _write(given: dict[type[Record], Sequence[Record]], folder: Path) -> tuple[list[ClipCaption], list[QAPair]]:
    stages = _stages(folder)
    for name in ("caption_clips", "caption_events", "summarize", "qa"):
        given[stages[name].writes[-1]] = rows_of(stages[name], given, _storage(folder))
    captions = [row for row in given[ClipCaption] if isinstance(row, ClipCaption)]
    return captions, [row for row in given[QAPair] if isinstance(row, QAPair)]


def _keep(rows: Sequence[Record], file: Path) -> None:
    for record in (Clip, Signals):
        of_it = [row for row in rows if isinstance(row, record)]
        path = file if record is Signals else file.with_suffix(".clips.parquet")
        path.write_bytes(parquet.encode(record, of_it))


def _kept(file: Path) -> dict[type[Record], Sequence[Record]]:
    clips = file.with_suffix(".clips.parquet")
    return {Clip: parquet.decode(Clip, clips.read_bytes()), Signals: parquet.decode(Signals, file.read_bytes())}
