"""Writes needle videos as a dataset with a release, by the code that writes every other one."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import ffmpeg
import numpy as np
from numpy.typing import NDArray

from marathon_pipeline.dataset.dataset import Dataset, media_key
from marathon_pipeline.errors import UserError
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.gates import Gates
from marathon_pipeline.hour_llava.evaluation.cards import CardSettings, cards_of, numbered, options_of, picture_of
from marathon_pipeline.records import (
    Binding,
    ClipCaption,
    Event,
    Outcome,
    QAPair,
    Record,
    Source,
    Summary,
    Verdict,
    Video,
    content_hash,
    digest,
)
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.write import write_release
from marathon_pipeline.synthetic.director import write_script
from marathon_pipeline.synthetic.render import frames
from marathon_pipeline.taxonomy import load_taxonomy

RELEASE = "needles-1"
TASK = "object_attribute"
VERSION = 1  # of how the videos look and what is asked
_BEFORE_QA = ("segment", "caption_clips", "caption_events", "summarize")


def write_needles(
    folder: Path, sets: Sequence[CardSettings], told: Callable[[int, int], object] = lambda done, of: None
) -> Path:
    """The folder of a release of needle videos; its dataset is `folder`. What is there already is not made again.

    told: how many videos are done, and of how many. Raises UserError where the folder holds another set.
    """
    dataset = Dataset(str(folder), create=True)
    videos = [(settings, *each) for settings in sets for each in numbered(settings)]
    if len({video_id for _, video_id, *_ in videos}) < len(videos):
        raise UserError(f"{folder}: two sets of needles have the same seed and lengths; give each its own seed")
    dataset.write_sources(_source(settings, video_id) for settings, video_id, *_ in videos)
    for number, (settings, video_id, minutes, seed) in enumerate(videos):
        rule = digest([VERSION, settings.model_dump(exclude={"videos", "minutes"}), minutes, seed])
        done = dataset.ledger.get("verify", video_id, TASK)
        if done is None or done.fingerprint != rule:
            _add(dataset, settings, video_id, minutes, seed, rule)
        told(number + 1, len(videos))
    dataset.ledger.flush()
    info = ReleaseSettings(title="Needles in synthetic videos", licence="cc0-1.0")
    return Path(write_release(dataset, RELEASE, ReleaseRules(info, load_taxonomy(), Gates())).url)


def _source(settings: CardSettings, video_id: str) -> Source:
    return Source(
        source_id=video_id,
        data_source="needles",
        path=f"/{video_id}.mp4",
        licence="CC0-1.0",
        licence_evidence="rendered by marathon",
        split=settings.split,
    )


def _add(dataset: Dataset, settings: CardSettings, video_id: str, minutes: float, seed: int, rule: str) -> None:
    key = media_key("proxies", video_id, ".mp4")
    video = _rendered(settings, minutes, seed, dataset.storage.scratch())
    dataset.storage.write(key, video)
    width, height = settings.height * 16 // 9, settings.height
    row = Video(
        video_id=video_id,
        source_id=video_id,
        start=0.0,
        end=60 * minutes,
        file=key,
        sha256=hashlib.sha256(video).hexdigest(),
        bytes=len(video),
        width=width,
        height=height,
        fps=1.0,
        codec="h264",
    )
    pairs = list(_pairs(settings, video_id, minutes, seed))
    verdicts = [_verdict(pair) for pair in pairs]

    def done(stage: str, rows: Sequence[Record], part: str = "") -> Outcome:
        return Outcome(
            video_id=video_id,
            stage=stage,
            part=part,
            status="ok",
            fingerprint=rule,
            content=content_hash(rows),
            items=len(rows),
            videos=(video_id,) if stage == "download" else (),
            video_seconds=60 * minutes,
        )

    download = done("download", [row])
    dataset.tables.write(Video, video_id, [row], {"": download})
    dataset.tables.write(QAPair, video_id, pairs, {TASK: done("qa", pairs, TASK)})
    dataset.tables.write(Verdict, video_id, verdicts, {TASK: done("verify", verdicts, TASK)})
    for table in (ClipCaption, Event, Summary):
        dataset.tables.write(table, video_id, [], {})
    stages = [done(stage, []) for stage in _BEFORE_QA]
    dataset.ledger.append([download, *stages, done("qa", pairs, TASK), done("verify", verdicts, TASK)])


def _pairs(settings: CardSettings, video_id: str, minutes: float, seed: int) -> Iterator[QAPair]:
    topic = load_taxonomy().tasks[TASK].topic
    for card in cards_of(settings, minutes, seed):
        options, letter = options_of(card, seed)
        for form in settings.formats:
            choices, own = (options, letter) if form == "choice" else ((), "")
            yield QAPair(
                qa_id=QAPair.id_of(video_id, TASK, form, card.question, choices, card.colour),
                video_id=video_id,
                task=TASK,
                topic=topic,
                format=form,
                question=card.question,
                options=choices,
                answer=card.colour,
                letter=own,
                evidence=(card.span,),
                clip_ids=(),
                binding=Binding(annotator=f"needles/{VERSION}", template_version=1, request=digest([seed, form])),
            )


def _verdict(pair: QAPair) -> Verdict:
    lengths = [len(option) for option in pair.options]
    return Verdict(
        qa_id=pair.qa_id,
        video_id=pair.video_id,
        task=pair.task,
        problems=(),
        question_words=len(pair.question.split()),
        answer_words=1,
        option_length_ratio=max(lengths) / min(lengths) if lengths else 0.0,
        evidence_seconds=pair.evidence[0].end - pair.evidence[0].start,
    )


def _rendered(settings: CardSettings, minutes: float, seed: int, scratch: Path) -> bytes:
    """A proxy: one frame a second, each a key frame. Two thousand times real time on one core at 90 lines."""
    width, height = settings.height * 16 // 9, settings.height
    with TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "video.mp4"
        picture = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="yuv420p", s=f"{width}x{height}", r=1)
        output = picture.output(
            str(path), vcodec="libx264", preset="veryfast", crf=20, g=1, threads=1, fflags="+bitexact"
        )
        process = output.global_args("-loglevel", "error", "-nostdin", "-y")
        with process.run_async(cmd=ffmpeg_binary(), pipe_stdin=True, pipe_stderr=True) as encoder:
            for frame in _frames(settings, minutes, seed, width, height):
                encoder.stdin.write(frame.data)
            _, said = encoder.communicate()
        if encoder.returncode:
            raise UserError(f"ffmpeg could not write a needle video: {said.decode(errors='replace').strip()[-200:]}")
        return path.read_bytes()


def _frames(settings: CardSettings, minutes: float, seed: int, width: int, height: int) -> Iterator[NDArray[np.uint8]]:
    script = write_script(seed, minutes, settings.height, 5).model_copy(update={"fps": 1})
    cards = cards_of(settings, minutes, seed)
    shown = {
        second: cv2.cvtColor(picture_of(card, width, height), cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False)
        for card in cards
        for second in range(int(card.span.start), int(card.span.end))
    }
    for second, frame in enumerate(frames(script)):
        yield shown.get(second, frame)
