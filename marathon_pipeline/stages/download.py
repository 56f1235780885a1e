"""Fetch a source, and say which videos it holds: its known segments, each cut into parts of at most an hour."""

import hashlib
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, Filtered
from marathon_pipeline.media.probe import probe
from marathon_pipeline.media.settings import DecodeSettings
from marathon_pipeline.records import Source, Span, Video
from marathon_pipeline.sources.download import fetch
from marathon_pipeline.sources.settings import DownloadSettings
from marathon_pipeline.stages.stage import Given


class PartSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    max_seconds: float = Field(3600.0, gt=0)  # longer videos exceed what a summary and a trainer's context can hold
    max_source_seconds: float = Field(172_800.0, gt=0)  # a header that lies makes a million parts of one video


class Download:
    name, version = "download", 1
    reads, writes, parts = (Source,), (Video,), ("",)

    annotator = None

    def __init__(
        self, fetch_settings: DownloadSettings, part_settings: PartSettings, decode: DecodeSettings, storage: Storage
    ) -> None:
        self._fetch, self._parts, self._decode, self._storage = fetch_settings, part_settings, decode, storage

    def settings(self, part: str) -> object:
        return [self._fetch.max_height, self._fetch.audio, self._parts.max_seconds]

    async def run(self, given: Given, part: str) -> list[Video]:
        source = given.one(Source)
        if source.opt_out:
            raise Filtered("opted_out", source.opt_out)
        self._storage.drop_old_parts()
        channels: list[str] = []
        path = fetch(source, self._storage.partial(), self._fetch, asked=given.answers.begin, told=channels.extend)
        try:
            header = probe(path, self._decode)
            if header.seconds > (longest := self._parts.max_source_seconds):
                raise Failed(
                    "too_long", f"{path.name}: {header.seconds:.0f} s by its header, max_source_seconds is {longest:g}"
                )
            parts = parts_of(source, header.seconds, self._parts.max_seconds)
            given.answers.lose("out_of_range", sum(segment.start >= header.seconds for segment in source.segments))
            sha256, size, file = source.sha256 or _sha256(path), path.stat().st_size, str(path)
            if source.url:
                file = media_key("originals", source.source_id, path.suffix)
                self._storage.write_file(file, path)
        finally:
            if source.url:
                path.unlink(missing_ok=True)
        return [
            Video(
                video_id=video_id,
                source_id=source.source_id,
                start=span.start,
                end=span.end,
                file=file,
                sha256=sha256,
                bytes=size,
                width=header.width,
                height=header.height,
                fps=header.fps,
                codec=header.codec,
                channels=tuple(dict.fromkeys(channels)),
            )
            for video_id, span in parts
        ]


def parts_of(source: Source, seconds: float, max_seconds: float) -> list[tuple[str, Span]]:
    """The ids and spans of a source's videos. The whole source keeps its id; a part adds its span in milliseconds.

    Segments behind the end are left out, and those that come to the same within it are one. Raises Failed where none
    is left.
    """
    wanted = source.segments or (Span(start=0.0, end=seconds),)
    segments = [segment for segment in wanted if segment.start < seconds]
    if not segments:
        raise Failed("out_of_range", f"segment at {wanted[0].start:g} s, the source ends at {seconds:.1f} s")
    parts: dict[str, Span] = {}
    for segment in segments:
        end = min(segment.end, seconds)
        count = max(1, math.ceil((end - segment.start) / max_seconds))
        for index in range(count):
            span = Span(
                start=segment.start + (end - segment.start) * index / count,
                end=segment.start + (end - segment.start) * (index + 1) / count,
            )
            whole = count == 1 and not source.segments
            own = source.source_id if whole else f"{source.source_id}_{_ms(span.start)}-{_ms(span.end)}"
            parts.setdefault(own, span)
    return list(parts.items())


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000):08d}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
