"""Cut a video into overlapping windows and write its 1-FPS proxy, from one decode."""

import math
import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed, Filtered
from marathon_pipeline.media.settings import LIMITS, DecodeSettings
from marathon_pipeline.media.windows import windows
from marathon_pipeline.records import Clip, Packed, Record, Signals, Span, Video
from marathon_pipeline.stages.stage import Given

if TYPE_CHECKING:
    from marathon_pipeline.media.decode import Decoded


class SegmentSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    min_seconds: float = 180.0  # shorter videos hold no long-range questions (VideoMarathon: 3 to 60 minutes)
    clip_seconds: float = Field(30.0, gt=0)  # longer clips lose detail in a caption, shorter ones lose what happens
    stride_seconds: float = Field(20.0, gt=0)  # shorter than a clip: what lies on one's edge is whole in its neighbour
    decode: DecodeSettings = DecodeSettings()


class Segment:
    name, version = "segment", 4
    reads, writes, parts = (Video,), (Signals, Clip), ("",)
    annotator = None

    def __init__(self, settings: SegmentSettings, storage: Storage) -> None:
        self._settings, self._storage = settings, storage

    def settings(self, part: str) -> object:
        return self._settings.model_dump(exclude={"decode": LIMITS})

    async def run(self, given: Given, part: str) -> Sequence[Record]:
        video = given.one(Video)
        with tempfile.TemporaryDirectory(dir=self._storage.scratch()) as folder:
            proxy = Path(folder) / "proxy.mp4"
            decoded = self._decode(video, proxy)
            if decoded.seconds < self._settings.min_seconds:
                raise Filtered(
                    "duration", f"{decoded.seconds:.0f} s, the job asks for {self._settings.min_seconds:g} s"
                )
            self._storage.write_file(media_key("proxies", video.video_id, ".mp4"), proxy)
        spans = windows(decoded.seconds, self._settings.clip_seconds, self._settings.stride_seconds)
        hashes = [row.frame_hash for row in decoded.signals]
        clips = (_clip(video.video_id, index, span, decoded.shots, hashes) for index, span in enumerate(spans))
        return decoded.signals + Packed[Record](clips)

    def _too_short(self, seconds: float) -> Filtered:
        return Filtered("duration", f"{seconds:.0f} s, the job asks for {self._settings.min_seconds:g} s at least")

    def _decode(self, video: Video, proxy: Path) -> "Decoded":
        from marathon_pipeline.media.decode import decode_once  # OpenCV and PySceneDetect: not for other commands

        if video.seconds < self._settings.min_seconds / 2:  # a header may be wrong, but it saves most short decodes
            raise self._too_short(video.seconds)
        local = Path(video.file)
        if local.is_absolute():
            if not local.is_file():
                raise Failed("file_missing", f"{local} is gone; put it back, or purge {video.source_id}")
            return decode_once(local, proxy, video.video_id, video.start, video.end, self._settings.decode)
        with self._storage.local_file(video.file) as path:
            return decode_once(path, proxy, video.video_id, video.start, video.end, self._settings.decode)


def _clip(video_id: str, index: int, span: Span, shots: Sequence[Span], hashes: Sequence[str]) -> Clip:
    first = bisect_right(shots, span.start, key=attrgetter("end"))
    behind = bisect_left(shots, span.end, key=attrgetter("start"))
    inside = (Span(start=max(s.start, span.start), end=min(s.end, span.end)) for s in shots[first:behind])
    return Clip(
        video_id=video_id,
        clip_id=f"c{index:04d}",
        start=span.start,
        end=span.end,
        shots=tuple(inside),
        frame_hashes=tuple(hashes[math.ceil(span.start) : math.ceil(span.end)]),
    )
