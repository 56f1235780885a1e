"""A dataset of summarized videos made of rows, without a video behind them: what a pilot can ask about."""

from collections.abc import Sequence

from by_hand import SUMMARY, captions, clip, events

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.records import Outcome, Record, Source, Video, content_hash

_STAGES = ("segment", "caption_clips", "caption_events", "summarize")


def base_of_rows(folder: object, videos: int, clips: int = 8, words: int = 12) -> Dataset:
    """`clips`: of each video, one every 20 seconds; `words`: of each field of their captions."""
    dataset = Dataset(str(folder), create=True)
    names = [f"video{number:05d}" for number in range(videos)]
    told, windows = captions(clips, words), [clip(index) for index in range(clips)]
    happened = events(told, 3)
    for name in names:
        _write(dataset, "download", name, [_video(name, told[-1].end)], videos=(name,))
        texts = [event.model_copy(update={"caption": f"In {name}: {event.caption}"}) for event in happened]
        summary = SUMMARY.model_copy(update={"text": f"In {name}: {SUMMARY.text}"})
        for stage, rows in zip(_STAGES, (windows, told, texts, [summary]), strict=True):
            own = [row.model_copy(update={"video_id": name}) for row in rows]
            _write(dataset, stage, name, own, video_seconds=told[-1].end)
    dataset.ledger.flush()
    dataset.write_sources(Source(source_id=name, url=f"https://a.example/{name}") for name in names)
    return dataset


def _write(dataset: Dataset, stage: str, owner: str, rows: Sequence[Record], **more: object) -> None:
    fields = {"video_id": owner, "stage": stage, "status": "ok", "fingerprint": "by-hand", "items": len(rows)}
    outcome = Outcome.model_validate(fields | {"content": content_hash(rows)} | more)
    dataset.tables.write(type(rows[0]), owner, rows, {"": outcome})
    dataset.ledger.append([outcome])


def _video(name: str, seconds: float) -> Video:
    return Video(
        video_id=name,
        source_id=name,
        start=0.0,
        end=seconds,
        file="",
        sha256="0" * 64,
        bytes=1,
        width=640,
        height=360,
        fps=25.0,
        codec="h264",
    )
