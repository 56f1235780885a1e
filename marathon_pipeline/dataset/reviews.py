"""What people judged of QA pairs, and what follows from it.

Each judgement is an object of its own under `reviews/`, which never changes and needs no lease: two browsers may judge
at once, and what was said is kept the moment it is said. It is bound to a pair's id and to the hash of what was shown,
so that it can never slide onto other text; who thinks better of it adds another one.
"""

import copy
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import QAPair, digest

REJECTED = "rejected_by_review"
REASONS: dict[str, str] = {
    "wrong_answer": "The video shows another answer.",
    "several_right": "Another option is right too.",
    "not_shown": "The video does not show it, anywhere.",
    "wrong_evidence": "The answer is right, and the stretch named does not show it.",
    "unclear": "The question can be read in more than one way, or not at all.",
    "gives_itself_away": "It can be answered without the video.",
    "other": "Said in words.",
}
Role = Literal["review", "adjudicate"]
Ruling = Literal["accept", "reject"]
_ROOT = "reviews"
_READ_AT_ONCE = 16


class Judged(NamedTuple):
    """What was judged. `shown`: the hash of what reviewers see of a pair."""

    task: str
    qa_id: str
    shown: str

    @staticmethod
    def of(pair: QAPair) -> "Judged":
        return Judged.by(pair.task, pair.qa_id, pair.letter, ((span.start, span.end) for span in pair.evidence))

    @staticmethod
    def by(task: str, qa_id: str, letter: str, evidence: Iterable[tuple[float, float]]) -> "Judged":
        return Judged(task, qa_id, digest([qa_id, letter, [[start, end] for start, end in evidence]])[:24])


def tidy(name: str) -> str:
    """A name in one line."""
    return " ".join("".join(c if c.isprintable() else " " for c in name).split())


def identity(name: str) -> str:
    """What tells people apart: capitals and spaces make no other person."""
    return tidy(name).casefold()


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Judgement(BaseModel):
    """What one person said of one pair. `withdrawn` takes back what the same person said before, in the same role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    video_id: str
    task: str
    qa_id: str
    shown: str
    reviewer: str = Field(min_length=1, max_length=100)
    role: Role = "review"
    verdict: Literal["accept", "reject", "withdrawn"]
    reason: str = ""  # of REASONS, where it is rejected
    note: str = Field("", max_length=2000)
    at: str = Field(default_factory=now)  # UTC
    via: str = ""  # the tool that it was imported from

    @property
    def judged(self) -> Judged:
        return Judged(self.task, self.qa_id, self.shown)

    @property
    def who(self) -> str:
        return identity(self.reviewer)

    @field_validator("reviewer")
    @classmethod
    def _tidy(cls, name: str) -> str:
        return tidy(name)

    @model_validator(mode="after")
    def _has_its_reason(self) -> "Judgement":
        if not self.reviewer:
            raise ValueError("reviewer: a name")
        if (self.verdict == "reject") != bool(self.reason):
            raise ValueError("reason: given where a pair is rejected, and nowhere else")
        if self.reason and self.reason not in REASONS:
            raise ValueError(f"reason: one of {', '.join(REASONS)}")
        if self.reason == "other" and not self.note.strip():
            raise ValueError("note: say what is wrong, in words")
        return self


class Standing(NamedTuple):
    """All that holds of one pair, by name. A ruling needs two reviewers who agree, or an adjudication."""

    reviews: tuple[Judgement, ...] = ()
    adjudications: tuple[Judgement, ...] = ()

    @property
    def disputed(self) -> bool:
        """Whether reviewers disagree, adjudicated or not."""
        return len({each.verdict for each in self.reviews}) > 1

    @property
    def ruling(self) -> Ruling | None:
        """A third person decides what reviewers dispute, or they themselves where they come to agree."""
        if len(self.reviews) < 2:
            return None
        voices = self.reviews
        if self.disputed:
            parties = {each.who for each in self.reviews}
            thirds = tuple(each for each in self.adjudications if each.who not in parties)
            if not thirds and {each.who for each in self.adjudications} != parties:
                return None
            voices = thirds or self.adjudications
        verdicts = {each.verdict for each in voices}
        if len(verdicts) > 1:
            return None
        return "accept" if verdicts == {"accept"} else "reject"


class Reviews:
    """The judgements of a dataset, as they stood when they were last read."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._read: dict[str, Judgement] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read what was added since. Raises UserError for a damaged one: it may have rejected a pair."""
        new = [key for key in self._storage.keys(_ROOT) if key.endswith(".json") and key not in self._read]
        if not new:
            return
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            for key, data in zip(new, pool.map(self._storage.read, new), strict=True):
                self._note(key, _parsed(f"{self._storage.url}/{key}", data))

    def add(self, judgement: Judgement) -> None:
        """Keep it for good. What counts of a person, a pair and a role is the one with the highest number."""
        stem = f"{review_folder(judgement.video_id)}/{judgement.qa_id}-{_initials(judgement)}"
        number = sum(key.startswith(f"{stem}-") for key in self._read) + 1
        data = json.dumps(judgement.model_dump(), indent=1, sort_keys=True, ensure_ascii=False).encode()
        while not self._storage.create(key := f"{stem}-{number:04d}.json", data):
            number += 1  # said in another browser meanwhile
        self._note(key, judgement)

    def _note(self, key: str, judgement: Judgement) -> None:
        self._read[key] = judgement
        self.__dict__.pop("standings", None)

    @property
    def fingerprint(self) -> str:
        """Of all that was ever said: the names suffice, since no judgement changes."""
        return digest(sorted(self._read))

    def all_said(self) -> Iterable[Judgement]:
        """All that was ever said, taken back or not."""
        return self._read.values()

    @cached_property
    def standings(self) -> dict[str, dict[Judged, Standing]]:
        """By video."""
        latest: dict[str, Judgement] = {}  # by person, role and pair
        for key in sorted(self._read):
            latest[key.rpartition("-")[0]] = self._read[key]
        found: defaultdict[str, defaultdict[Judged, list[Judgement]]] = defaultdict(lambda: defaultdict(list))
        for judgement in sorted(latest.values(), key=lambda each: each.who):
            if judgement.verdict != "withdrawn":
                found[judgement.video_id][judgement.judged].append(judgement)
        return {
            video_id: {judged: _standing(said) for judged, said in of_video.items()}
            for video_id, of_video in found.items()
        }

    def of(self, video_ids: Collection[str]) -> "Reviews":
        """Those of some videos alone, as they are now."""
        part = copy.copy(self)
        part._read = {key: judgement for key, judgement in self._read.items() if judgement.video_id in video_ids}
        part.__dict__.pop("standings", None)
        return part

    def rejected(self, video_id: str) -> frozenset[Judged]:
        """The pairs of a video that people rejected."""
        of_video = self.standings.get(video_id, {})
        return frozenset(judged for judged, standing in of_video.items() if standing.ruling == "reject")


def reject_reasons(pair: QAPair, rejected: frozenset[Judged]) -> tuple[str, ...]:
    """Why people rejected a pair, as one of its reasons beside those of the gates."""
    return (REJECTED,) if rejected and Judged.of(pair) in rejected else ()


def review_folder(video_id: str) -> str:
    """Where all that was said about a video's pairs lies."""
    return f"{_ROOT}/{hashlib.sha256(video_id.encode()).hexdigest()[:2]}/{video_id}"


def _initials(judgement: Judgement) -> str:
    return digest([judgement.who, judgement.role])[:8]


def _standing(said: Iterable[Judgement]) -> Standing:
    by_role: dict[Role, list[Judgement]] = {"review": [], "adjudicate": []}
    for judgement in said:
        by_role[judgement.role].append(judgement)
    return Standing(tuple(by_role["review"]), tuple(by_role["adjudicate"]))


def _parsed(where: str, data: bytes) -> Judgement:
    try:
        return Judgement.model_validate_json(data)
    except ValidationError:
        raise UserError(f"{where} is no judgement that this version can read; restore it, or delete it") from None
