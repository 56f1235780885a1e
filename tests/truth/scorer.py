"""Scores written questions against the script of their video, from the text alone.

It knows nothing of how the questions came about: it reads what a reader reads, and looks it up in the script.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from marathon_pipeline.records import LETTERS, QAPair
from truth.claims import CLAIMS
from truth.reading import Said
from truth.told import Baseless, Told, Undecided


@dataclass(frozen=True)
class Score:
    """right: whether the answer is; None where that is not decided. also: the wrong options that are right."""

    right: bool | None
    also: tuple[str, ...] = ()
    why: str = ""


def score(told: Told, pair: QAPair) -> Score:
    for pattern, claim in CLAIMS:
        if match := re.search(pattern, pair.question):
            return _judged(pair, partial(_holds, claim, told, groups=match.groups(), pair=pair))
    return Score(None, why="this kind of question is not known")


def _judged(pair: QAPair, holds: "partial[bool]") -> Score:
    if pair.format == "choice" and pair.options[LETTERS.index(pair.letter)] != pair.answer:
        return Score(False, why="the letter names another option")
    try:
        right = holds(pair.answer)
        return Score(right, tuple(option for option in pair.options if option != pair.answer and holds(option)))
    except Undecided as unknown:
        return Score(None, why=f"not understood: {unknown}")
    except Baseless as fault:
        return Score(False, why=str(fault))


def _holds(claim: object, told: Told, text: str, groups: tuple[str, ...], pair: QAPair) -> bool:
    assert callable(claim)
    others = tuple(_plain(option) for option in pair.options if option != text)
    return bool(claim(told, Said(_plain(text), others), *groups))


def _plain(text: str) -> str:
    return text.lower().rstrip(".")


@dataclass
class Tally:
    """What became of the questions of one task. faults: one line each."""

    asked: int = 0
    decided: int = 0
    wrong: int = 0
    also_right: int = 0
    faults: list[str] = field(default_factory=list)
    open_ends: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.decided / self.asked if self.asked else 1.0


def tally(
    told: Told, pairs: Iterable[QAPair], into: "dict[str, Tally] | None" = None, where: str = ""
) -> dict[str, Tally]:
    """The scores of all pairs, by task."""
    tallies = defaultdict(Tally) if into is None else into
    for pair in pairs:
        found, of_task = score(told, pair), tallies[pair.task]
        of_task.asked += 1
        of_task.decided += found.right is not None
        of_task.wrong += found.right is False
        of_task.also_right += len(found.also)
        text = f"{where} {pair.task}: {pair.question} | {pair.answer}"
        if found.right is None:
            of_task.open_ends.append(f"{text} | {found.why}")
        if found.right is False:
            of_task.faults.append(f"{text} | WRONG {found.why}")
        of_task.faults += [f"{text} | RIGHT AS WELL: {option}" for option in found.also]
    return tallies
