"""Counts of right answers as shares with intervals, in all the ways that a report tells them."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.hour_llava.evaluation.questions import Question
from marathon_pipeline.hour_llava.evaluation.settings import How
from marathon_pipeline.intervals import wilson


class Answer(BaseModel):
    """A line of the answers that are kept. `letter`: empty where nothing that was said was an option."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    qa_id: str
    how: How
    blind: bool
    letter: str


class Share(BaseModel):
    """Right answers of all, with Wilson's 95 % interval; all numbers but the counts from 0 to 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    right: int
    asked: int
    accuracy: float
    low: float
    high: float


class Accuracy(BaseModel):
    """Of one way of asking, with the video or without it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    how: How
    blind: bool
    overall: Share
    unclear: int  # answers that name no option; they count as wrong
    by_topic: dict[str, Share]
    by_task: dict[str, Share]
    by_length: dict[str, Share]
    by_depth_and_length: list[list[Share]]  # a list for each depth, of each class of length


def share_of(outcomes: Iterable[bool]) -> Share:
    counted = list(outcomes)
    right, asked = sum(counted), len(counted)
    low, high = wilson(right, asked)
    return Share(right=right, asked=asked, accuracy=right / asked if asked else 0.0, low=low, high=high)


def lengths_of(minutes: Sequence[float]) -> list[str]:
    """The names of the classes of video length that end at `minutes`."""
    ends = [f"{end:g}" for end in minutes]
    if not ends:
        return ["all"]
    between = [f"{a} to {b} min" for a, b in pairwise(ends)]
    return [f"up to {ends[0]} min", *between, f"over {ends[-1]} min"]


def accuracies(
    answers: Iterable[Answer], questions: dict[str, Question], minutes: Sequence[float], depths: int
) -> list[Accuracy]:
    """One for each way of asking that there are answers of, in the order that they came."""
    groups: dict[tuple[How, bool], list[Answer]] = {}
    for answer in answers:
        if answer.qa_id in questions:
            groups.setdefault((answer.how, answer.blind), []).append(answer)
    return [_accuracy(how, blind, own, questions, minutes, depths) for (how, blind), own in groups.items()]


def _accuracy(
    how: How,
    blind: bool,
    answers: list[Answer],
    questions: dict[str, Question],
    minutes: Sequence[float],
    depths: int,
) -> Accuracy:
    told = [(questions[answer.qa_id], answer.letter == questions[answer.qa_id].letter) for answer in answers]
    names = lengths_of(minutes)

    def length(question: Question) -> int:
        return bisect_right(minutes, question.seconds / 60 - 1e-6)

    def depth(question: Question) -> int | None:
        return None if question.at is None else min(depths - 1, int(question.at * depths))

    def by(key: Callable[[Question], str], order: Iterable[str]) -> dict[str, Share]:
        shares = {name: share_of(right for question, right in told if key(question) == name) for name in order}
        return {name: share for name, share in shares.items() if share.asked}

    def of(row: int, column: int) -> Share:
        return share_of(right for question, right in told if depth(question) == row and length(question) == column)

    return Accuracy(
        how=how,
        blind=blind,
        overall=share_of(right for _, right in told),
        unclear=sum(not answer.letter for answer in answers),
        by_topic=by(lambda question: question.topic, sorted({question.topic for question, _ in told})),
        by_task=by(lambda question: question.task, sorted({question.task for question, _ in told})),
        by_length=by(lambda question: names[length(question)], names),
        by_depth_and_length=[[of(row, column) for column in range(len(names))] for row in range(depths)],
    )


def chance(questions: Iterable[Question]) -> float:
    """What guessing gets right."""
    shares = [1 / len(question.options) for question in questions]
    return sum(shares) / len(shares)


def plain(value: BaseModel) -> Any:
    return value.model_dump(mode="json")
