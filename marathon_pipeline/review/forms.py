"""What passes between Marathon and other reviewing tools."""

from typing import NamedTuple

from marathon_pipeline.dataset.reviews import Judgement


class Asked(NamedTuple):
    """A pair as a tool shows it. Nothing of what was measured of it."""

    qa_id: str
    video_id: str
    task: str
    format: str
    shown: str
    question: str
    options: str  # one a line
    answer: str
    evidence: str
    video: str  # where the tool plays it from
    judgements: tuple[Judgement, ...] = ()


class Foreign(NamedTuple):
    """A judgement as a tool tells it. `who`: its id of a person; `name`: theirs, where it tells it."""

    qa_id: str
    video_id: str
    shown: str
    who: str
    name: str
    verdict: str
    reason: str
    note: str
