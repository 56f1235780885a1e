"""Releases of a few tiny videos, for whoever reads releases: built in a moment by the code that writes real ones."""

import hashlib
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.gates import Gates
from marathon_pipeline.records import (
    Binding,
    ClipCaption,
    Event,
    Outcome,
    QAPair,
    Record,
    Source,
    Span,
    Summary,
    Verdict,
    Video,
    content_hash,
)
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.write import write_release
from marathon_pipeline.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
BINDING = Binding(annotator="measured/1", template_version=1, request="0" * 64)


@dataclass(frozen=True)
class Film:
    """A video to be released. `frames`: of its proxy; `pairs`: of each task."""

    source_id: str
    seconds: float = 200.0
    frames: int = 3
    pairs: int = 2
    tasks: tuple[str, ...] = ("temporal_order", "object_attribute")
    data_source: str = "panda-70m"
    says: str = ""  # what its first question of each task says besides


def films(count: int, **same: object) -> list[Film]:
    return [Film(f"yt_film-{number}", **same) for number in range(count)]  # type: ignore[arg-type]


def released(folder: Path, of: Sequence[Film], settings: ReleaseSettings, name: str = "small-1") -> Path:
    """The folder of a release of them; its dataset is `folder`."""
    dataset = Dataset(str(folder), create=True)
    dataset.write_sources(
        Source(source_id=film.source_id, data_source=film.data_source, url=f"https://example.org/{film.source_id}")
        for film in of
    )
    for film in of:
        _add(dataset, film)
    dataset.ledger.flush()
    return Path(write_release(dataset, name, ReleaseRules(settings, TAXONOMY, Gates())).url)


def _add(dataset: Dataset, film: Film) -> None:
    video_id = film.source_id
    video = Video(
        video_id=video_id,
        source_id=video_id,
        start=0.0,
        end=film.seconds,
        file=f"/somewhere/{video_id}.mp4",
        sha256=hashlib.sha256(video_id.encode()).hexdigest(),
        bytes=1000,
        width=96,
        height=64,
        fps=30.0,
        codec="h264",
    )
    download = _done("download", video_id, [video]).model_copy(update={"videos": (video_id,)})
    dataset.tables.write(Video, video_id, [video], {"": download})
    dataset.storage.write(media_key("proxies", video_id, ".mp4"), proxy(film.frames))
    dataset.ledger.append([download, *(_done(stage, video_id, []) for stage in _BEFORE_QA)])
    pairs = {
        task: [pair(video_id, task, number, film.says if number == 0 else "") for number in range(film.pairs)]
        for task in film.tasks
    }
    verdicts = {task: [_verdict(each) for each in own] for task, own in pairs.items()}
    dataset.tables.write(QAPair, video_id, [each for own in pairs.values() for each in own], {})
    dataset.tables.write(Verdict, video_id, [each for own in verdicts.values() for each in own], {})
    dataset.tables.write(ClipCaption, video_id, [], {})
    dataset.tables.write(Event, video_id, [], {})
    dataset.tables.write(Summary, video_id, [], {})
    for task, own in pairs.items():
        dataset.ledger.append([_done("qa", video_id, own, task), _done("verify", video_id, verdicts[task], task)])


_BEFORE_QA = ("segment", "caption_clips", "caption_events", "summarize")


def pair(video_id: str, task: str, number: int, says: str = "") -> QAPair:
    """Every second one is a choice."""
    options = ("red", "green", "blue", "grey") if number % 2 else ()
    question = f"What about thing {number} of {video_id}?{says}"
    return QAPair(
        qa_id=QAPair.id_of(video_id, task, "choice" if options else "open", question, options, "green"),
        video_id=video_id,
        task=task,
        topic=TAXONOMY.tasks[task].topic,
        format="choice" if options else "open",
        question=question,
        options=options,
        answer="green",
        letter="B" if options else "",
        evidence=(Span(start=1.0, end=2.0),),
        clip_ids=("c0",),
        binding=BINDING,
    )


def _verdict(of: QAPair) -> Verdict:
    return Verdict(
        qa_id=of.qa_id,
        video_id=of.video_id,
        task=of.task,
        problems=(),
        question_words=5,
        answer_words=1,
        option_length_ratio=1.5 if of.options else 0.0,
        evidence_seconds=1.0,
    )


def _done(stage: str, video_id: str, rows: Sequence[Record], part: str = "") -> Outcome:
    return Outcome(video_id=video_id, stage=stage, part=part, status="ok", fingerprint="f", content=content_hash(rows))


@cache
def proxy(frames: int, width: int = 96, height: int = 64) -> bytes:
    """A video of one frame a second, each of them a key frame and of another colour."""
    size = f"color=black:size={width}x{height}:rate=1:duration={frames}"
    source = f"{size},format=yuv420p,geq=lum=16+mod(N*7\\,200):cb=128:cr=128"
    with TemporaryDirectory() as folder:
        path = f"{folder}/proxy.mp4"
        command = [ffmpeg_binary(), "-v", "error", "-f", "lavfi", "-i", source, "-c:v", "libx264", "-g", "1", path]
        subprocess.run(command, check=True)
        return Path(path).read_bytes()
