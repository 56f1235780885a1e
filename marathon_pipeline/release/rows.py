"""The rows of a release: complete in themselves, without paths, with the same JSON types in every one."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import create_model

from marathon_pipeline.dataset.tables import Tables
from marathon_pipeline.records import (
    Binding,
    ClipCaption,
    Event,
    Format,
    QAPair,
    Record,
    Source,
    Span,
    Split,
    Summary,
    Verdict,
    Video,
)
from marathon_pipeline.release.release_file import Level

_KEYS_OF_VERDICT = {"qa_id", "video_id", "task", "problems"}  # what a row says anyway, and what no released one has


class QARow(Record):
    """A released QA pair: the JSON of its WebDataset sample. Times of `evidence` count from the start of the video."""

    qa_id: str
    video_id: str
    source_id: str
    data_source: str
    url: str  # empty where the source was a local file
    licence: str
    start: float  # of the video within its source
    end: float
    split: Split
    task: str
    topic: str
    format: Format
    question: str
    options: tuple[str, ...]
    answer: str
    letter: str
    evidence: tuple[Span, ...]
    clip_ids: tuple[str, ...]
    annotator: str
    template_version: int
    tries: int  # how often it was asked for in the place of one that gates or people rejected

    def json_bytes(self) -> bytes:
        return self.model_dump_json(include=set(QARow.model_fields)).encode()


class VideoRow(Record):
    video_id: str
    source_id: str
    data_source: str
    url: str
    licence: str
    licence_evidence: str
    start: float
    end: float
    split: Split
    sha256: str  # of the file that was processed
    bytes: int
    width: int
    height: int
    fps: float
    codec: str


class CaptionRow(Record):
    """A node of a video's caption tree. The field columns are a clip's; a clip's summary is its `text`."""

    video_id: str
    split: Split
    level: Level
    id: str
    start: float
    end: float
    title: str = ""
    text: str
    temporality: str = ""
    spatiality: str = ""
    object: str = ""
    action: str = ""
    scene: str = ""
    annotator: str
    template_version: int


@cache
def measured_row() -> type[QARow]:
    """QARow with the measures of its verdict as further columns."""
    measures = {name: f for name, f in Verdict.model_fields.items() if name not in _KEYS_OF_VERDICT}
    fields = {name: (field.annotation, ...) for name, field in measures.items()}
    return create_model("MeasuredQARow", __base__=QARow, **fields)  # type: ignore[call-overload, no-any-return]


def video_row(video: Video, source: Source, split: Split) -> VideoRow:
    return VideoRow(
        data_source=source.data_source,
        url=source.url,
        licence=source.licence,
        licence_evidence=source.licence_evidence,
        split=split,
        **video.model_dump(exclude={"file", "channels"}),
    )


def qa_row(pair: QAPair, verdict: Verdict, video: VideoRow) -> QARow:
    of_video = video.model_dump(include={"source_id", "data_source", "url", "licence", "start", "end", "split"})
    of_pair = pair.model_dump(exclude={"binding", "instead_of"}) | _written_by(pair.binding)
    return measured_row().model_validate(of_video | of_pair | verdict.model_dump(exclude=_KEYS_OF_VERDICT))


def caption_rows(tables: Tables, video: VideoRow) -> Iterator[CaptionRow]:
    def row(level: Level, id: str, text: str, binding: Binding, **more: object) -> CaptionRow:
        of_video = {"video_id": video.video_id, "split": video.split}
        own = {"level": level, "id": id, "text": text, **more}
        return CaptionRow.model_validate(of_video | own | _written_by(binding))

    fields = {"start", "end", "temporality", "spatiality", "object", "action", "scene"}
    for clip in tables.read_written(ClipCaption, video.video_id):
        yield row("clip", clip.clip_id, clip.summary, clip.binding, **clip.model_dump(include=fields))
    for event in tables.read_written(Event, video.video_id):
        times = event.model_dump(include={"start", "end", "title"})
        yield row("event", event.event_id, event.caption, event.binding, **times)
    for summary in tables.read_written(Summary, video.video_id):
        yield row("global", video.video_id, summary.text, summary.binding, start=0.0, end=video.end - video.start)


def _written_by(binding: Binding) -> dict[str, Any]:
    return {"annotator": binding.annotator, "template_version": binding.template_version}
