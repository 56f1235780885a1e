"""The multiple-choice questions of releases, by video, each video read once."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from marathon_pipeline.errors import UserError
from marathon_pipeline.hour_llava.data.loader import Loader
from marathon_pipeline.hour_llava.data.mix import MixSettings
from marathon_pipeline.hour_llava.data.settings import LoaderSettings
from marathon_pipeline.hour_llava.data.shards import ReleaseShards
from marathon_pipeline.hour_llava.example import Example
from marathon_pipeline.records import Split

if TYPE_CHECKING:
    from torch import Tensor

_COLUMNS = ("qa_id", "video_id", "question", "options", "letter", "evidence", "start", "end")


@dataclass(frozen=True)
class Question:
    qa_id: str
    video_id: str
    task: str
    topic: str
    question: str
    options: tuple[str, ...]
    letter: str
    seconds: float  # of its video
    at: float | None  # where its evidence begins, as a share of the video; None where that is in several places


class Asked(NamedTuple):
    """A video and all that is asked about it."""

    video: Example
    questions: list[Question]


def choices(release: ReleaseShards, most: int | None = None) -> dict[str, Question]:
    """By id. most: of each task, those whose ids' hashes come first, so that a larger number holds a smaller one's.

    Raises UserError where there are none.
    """
    found: dict[str, Question] = {}
    for task, topic in release.tasks.items():
        own = []
        for row in release.rows(task, _COLUMNS):
            if row["options"]:
                seconds = row["end"] - row["start"]
                spans = row["evidence"]
                own.append(
                    Question(
                        qa_id=row["qa_id"],
                        video_id=row["video_id"],
                        task=task,
                        topic=topic,
                        question=row["question"],
                        options=tuple(row["options"]),
                        letter=row["letter"],
                        seconds=seconds,
                        at=spans[0]["start"] / seconds if len(spans) == 1 else None,
                    )
                )
        own.sort(key=lambda question: hashlib.sha256(question.qa_id.encode()).digest())
        found.update((question.qa_id, question) for question in own[:most])
    if not found:
        raise UserError(f"{release.folder.url}: holds no multiple-choice question of the split {release.split}")
    return found


class Questions:
    """Of some releases. `unread`: how many could not be asked, by why, once they were gone through."""

    def __init__(
        self, releases: Sequence[str], split: Split, *, features: bool, fingerprint: str, side: int, most: int | None
    ) -> None:
        self._settings = LoaderSettings(
            releases=tuple(releases),
            split=split,
            features=features,
            fingerprint=fingerprint,
            mix=MixSettings(long_to_short=None),
            turns=1_000_000,  # all that is asked about a video, so that it is decoded once
            batch_size=1,
            window=1,
            side=side,
            workers=0,
        )
        self.of: dict[str, Question] = {}
        for url in releases:
            self.of |= choices(ReleaseShards(url, split, media=not features), most)
        self.unread: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Asked]:
        loader: Loader[list[Example]] = Loader(self._settings)
        asked: set[str] = set()
        for video in (video for batch in loader for video in batch):
            own = [self.of[qa_id] for qa_id in sorted(video.qa_ids) if qa_id in self.of]
            asked.update(question.qa_id for question in own)
            if own:
                yield Asked(video, own)
        for why in loader.named:
            self.unread[why.reason.partition(":")[0]] += 0
        if lost := len(self.of) - len(asked):
            self.unread = Counter({", ".join(sorted(self.unread)) or "unread": lost})


def shown(video: Example, features: "Tensor | None", text: str) -> Example:
    """One question about a video, for the processor."""
    return Example(
        key=video.key,
        video_id=video.video_id,
        turns=((text, ""),),
        qa_ids=(),
        frames=None,
        features=features,
        seconds=video.seconds,
    )
