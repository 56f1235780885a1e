"""The `marathon` command with generated videos and texts: no pixel is decoded, no model asked, all else is real.

    PYTHONPATH=tests/bench python tests/bench/generated.py run JOB ...

A download writes a small original, a segment's decode gives a length and signals, every proxy is one short film, and
an annotator tells of the worlds of `large.py` where the job names no served one. What a video is follows from its id
alone. FILM in the environment: the film.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from large import CAPTIONER, WRITER, Planted, World, asked_of, events_of, length_of, pairs_of

import marathon_pipeline.job
from marathon_pipeline.annotators.protocol import Described, Pictures
from marathon_pipeline.cli import main
from marathon_pipeline.dataset.dataset import media_key
from marathon_pipeline.dataset.journal import Answers
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Filtered
from marathon_pipeline.media.decode import Decoded
from marathon_pipeline.pipeline.stage_list import ANNOTATED, build_stages
from marathon_pipeline.records import (
    CAPTION_FIELDS,
    Binding,
    Clip,
    ClipCaption,
    ColourShares,
    Event,
    Format,
    Packed,
    QAPair,
    Signals,
    Source,
    Span,
    Summary,
    Video,
    digest,
)
from marathon_pipeline.stages import download, segment
from marathon_pipeline.stages.stage import Given, Stage
from marathon_pipeline.taxonomy import Task

_SHOT = 7  # seconds
_AT_ONCE = 32  # captions
_GREY = ColourShares(grey=0.6, green=0.4)


@lru_cache(256)
def _world(video_id: str) -> World:
    return World(video_id)


@lru_cache(256)
def _told(video_id: str, block: int) -> Mapping[str, Sequence[str]]:
    """The texts of a video's captions, by field, of so many of them as are drawn at once."""
    world = World(f"{video_id} told {block}", like=_world(video_id))
    return {field: world.texts(_AT_ONCE, 1, 3) for field in CAPTION_FIELDS}


@lru_cache(256)
def _pairs(video_id: str, clips: tuple[tuple[str, float, float], ...]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Rows of a video's QA by task, of the tasks that it carries."""
    world = World(f"{video_id} asked", like=_world(video_id))
    world.name = video_id  # ids are of it
    return pairs_of(world, asked_of(world.chance), clips, Planted())


class Download(download.Download):
    async def run(self, given: Given, part: str) -> list[Video]:
        source = given.one(Source)
        file = media_key("originals", source.source_id, ".mp4")
        self._storage.write(file, source.source_id.encode())
        seconds = length_of(World(f"{source.source_id} length", like=_world(source.source_id)).chance)
        sha256 = hashlib.sha256(source.source_id.encode()).hexdigest()
        return [
            Video(
                video_id=source.source_id, source_id=source.source_id, start=0.0, end=seconds, file=file, sha256=sha256,
                bytes=int(seconds * 60_000), width=640, height=360, fps=30.0, codec="h264",
            )
        ]  # fmt: skip


class Segment(segment.Segment):
    def _decode(self, video: Video, proxy: Path) -> Decoded:
        proxy.write_bytes(_film())
        hashes = np.random.default_rng(int(video.sha256[:8], 16)).integers(0, 2**63, int(video.seconds) + 1).tolist()
        signals = [
            Signals(
                video_id=video.video_id, second=second, shot=second // _SHOT, frame_hash=f"{own:016x}", brightness=0.4,
                colours=_GREY, upper="grey", lower="green", upper_share=0.5, lower_share=0.5, motion=0.02,
                motion_grid=(0.02,) * 9, camera="still", things=(),
            )
            for second, own in enumerate(hashes)
        ]  # fmt: skip
        edges = [*np.arange(0, video.seconds, _SHOT).tolist(), video.seconds]
        shots = (Span(start=start, end=end) for start, end in pairwise(edges))
        return Decoded(video.seconds, tuple(shots), Packed(signals))


@cache
def _film() -> bytes:
    return Path(os.environ["FILM"]).read_bytes()


class Generated:
    """An `Annotator`, and its own `Writer`. It counts as served: many videos at once, in the process that asks."""

    served = True

    def __init__(self, name: str) -> None:
        self.name = name

    def check(self) -> None:
        """It needs nothing."""

    def share(self, processes: int) -> None:
        """It asks nobody."""

    def stop(self) -> None:
        """It waits for nobody."""

    async def close(self) -> None:
        """It holds nothing open."""

    def for_work(self, answers: Answers) -> "Generated":
        return self

    async def caption_clip(self, clip: Clip, signals: Sequence[Signals], pictures: Pictures) -> ClipCaption:
        block, number = divmod(int(clip.clip_id[1:]), _AT_ONCE)
        own = {field: texts[number] for field, texts in _told(clip.video_id, block).items()}
        return ClipCaption(
            video_id=clip.video_id, clip_id=clip.clip_id, start=clip.start, end=clip.end,
            binding=self._binding(clip.video_id, clip.clip_id), **own,
        )  # fmt: skip

    async def split_events(self, video_id: str, captions: Sequence[ClipCaption]) -> list[Event]:
        clips = [(caption.clip_id, caption.start, caption.end) for caption in captions]
        texts = {field: [getattr(caption, field) for caption in captions] for field in CAPTION_FIELDS}
        binding = self._binding(video_id, "events")
        rows = events_of(World(f"{video_id} events", like=_world(video_id)), clips, texts)
        return [Event(video_id=video_id, binding=binding, **{**row, "caption": ""}) for row in rows]

    async def caption_event(
        self, event: Event, before: Event | None, after: Event | None, captions: Sequence[ClipCaption]
    ) -> Event:
        told = [getattr(each, field).partition(". ")[0] for each in captions for field in ("action", "summary")]
        binding = self._binding(event.video_id, event.event_id)
        return event.model_copy(update={"caption": ". ".join(told), "binding": binding})

    async def summarize(self, events: Sequence[Event]) -> Summary:
        told = " ".join(sentence for event in events for sentence in event.caption.split(". ")[:2])
        video_id = events[0].video_id
        return Summary(video_id=video_id, text=told, binding=self._binding(video_id, "summary"))

    async def write_qa(self, task: Task, format: Format, video: Described, known: Sequence[str] = ()) -> list[QAPair]:
        video_id = video.summary.video_id
        clips = tuple((caption.clip_id, caption.start, caption.end) for caption in video.captions)
        rows = _pairs(video_id, clips).get(task.task)
        if rows is None:
            raise Filtered("not_carried", f"{video_id} does not carry {task.task}")
        binding = self._binding(video_id, f"{task.task} {format}")
        return [
            QAPair(video_id=video_id, binding=binding, **{name: row[name] for name in row if name != "planted"})
            for row in rows
            if row["format"] == format
        ]

    def _binding(self, video_id: str, asked: str) -> Binding:
        request = digest([self.name, video_id, asked])
        return Binding(
            annotator=self.name, template_version=1, request=request, prompt_tokens=5711, completion_tokens=812
        )


def stages(
    settings: Any, annotators: Mapping[str, Any], taxonomy: Any, tasks: Any, storage: Storage, judge: object
) -> Any:
    names = dict.fromkeys(ANNOTATED, WRITER) | {"caption_clips": CAPTIONER}
    by_stage = {
        stage: annotators[stage] if annotators[stage].served else Generated(name) for stage, name in names.items()
    }
    real: tuple[Stage, ...] = build_stages(settings, by_stage, taxonomy, tasks, storage)
    generated = (
        Download(settings.download, settings.parts, settings.segment.decode, storage),
        Segment(settings.segment, storage),
    )
    return (*generated, *real[2:])


if __name__ == "__main__":
    import generated  # by its name, as workers find it

    marathon_pipeline.job.build_stages = generated.stages
    main()
