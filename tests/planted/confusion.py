"""What the whole audit lets through though it is wrong, and rejects though it is right; `make confusion`.

    python -m planted.confusion [FIRST_SEED [FOLDER]]

Truth is the scripts of synthetic videos of fresh seeds. A wrong answer is counted only where the script says that it is
wrong. `audited` is all that this file knows of the audit: verdicts of models, where `verify` has them, are in it.
FOLDER keeps what was measured in the videos.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from truth.scorer import score
from truth.told import COLOURS, Told
from truth.videos import written

from marathon_pipeline.records import LETTERS, Clip, QAPair, Span
from marathon_pipeline.synthetic.director import write_script
from planted.clean import Rows, golden, verified
from planted.pairs import FAULTS, Plant, of_choice, of_open, right_of
from planted.score import GATES

FIRST, MINUTES = 12001, (3, 3, 4, 4, 5, 6)
NUMBERS = ("once", "twice", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Video(NamedTuple):
    told: Told
    rows: Rows


class Row(NamedTuple):
    kind: str
    pairs: int
    rejected: int


def audited(rows: Rows, pairs: list[QAPair]) -> list[bool]:
    """Whether each pair would be released; the pairs in order of their tasks."""
    return [not GATES.reasons(verdict) for verdict in verified(rows, pairs)]


def another_option(pair: QAPair, chance: Random) -> dict[str, object] | None:
    place = chance.choice([place for place in range(4) if place != right_of(pair)])
    return {"letter": LETTERS[place], "answer": pair.options[place]}


def replaced(pattern: str, others: Iterable[str]) -> Plant:
    """Another word of the same kind for one that the answer holds."""
    known = tuple(others)

    def plant(pair: QAPair, chance: Random) -> dict[str, object] | None:
        found = list(re.finditer(pattern, pair.answer))
        if not found:
            return None
        old = chance.choice(found)
        new = chance.choice([other for other in known if other != old[0].lower()])
        new = new.capitalize() if old[0][:1].isupper() else new
        return {"answer": f"{pair.answer[: old.start()]}{new}{pair.answer[old.end() :]}"}

    return of_open(plant)


def another_order(pair: QAPair, chance: Random) -> dict[str, object] | None:
    match = re.fullmatch(r"First (.+), then (.+), and last (.+)\.", pair.answer)
    if not match:
        return None
    one, two, three = match.groups()
    return {"answer": f"First {two}, then {one}, and last {three}."}


def another_stretch(pair: QAPair, chance: Random) -> dict[str, object] | None:
    """Evidence that begins a minute later, or earlier; the answer stays right."""
    start = pair.evidence[0].start
    start = (start - 60 if start >= 60 else start + 60) // 20 * 20
    return {"evidence": (Span(start=start, end=start + 20),), "clip_ids": (f"c{start // 20:04.0f}",)}


WELL_MADE: dict[str, Plant] = {
    "another option is marked right": of_choice(another_option),
    "another colour": replaced(rf"\b(?:{COLOURS})\b", COLOURS.split("|")),
    "another number": replaced(rf"(?i)\b(?:{'|'.join(NUMBERS)})\b|\b\d+\b", (*NUMBERS[2:], "15", "20", "40", "50")),
    "another order": of_open(another_order),
    "evidence of another stretch": another_stretch,
}


def confusion(videos: Iterable[Video]) -> list[Row]:
    """By kind: how many pairs were audited, and how many rejected. Only what the script decides is counted."""
    counts: dict[str, list[bool]] = {}
    for video in videos:
        for kind, pairs in _kinds(video):
            counts.setdefault(kind, []).extend(audited(video.rows, pairs))
    return [Row(kind, len(passed), passed.count(False)) for kind, passed in counts.items()]


def _kinds(video: Video) -> Iterator[tuple[str, list[QAPair]]]:
    right = [pair for pair in video.rows[QAPair] if score(video.told, pair).right]
    yield "right", right
    for number, (kind, plant) in enumerate(WELL_MADE.items()):
        spoilt = _spoilt(right, plant, Random(number))
        moved = kind == "evidence of another stretch"  # of which the script says nothing
        yield kind, [pair for pair in spoilt if moved or score(video.told, pair).right is False]
    yield (
        "the answer of another question of the task",
        [pair for pair in _exchanged(right) if score(video.told, pair).right is False],
    )
    faults = [fault.planted for fault in FAULTS if fault.certain]
    chance = Random(0)
    malformed = (chance.choice(faults)(pair, chance) for pair in right)
    yield "malformed", [pair for pair in malformed if pair]


def _spoilt(pairs: Iterable[QAPair], plant: Plant, chance: Random) -> list[QAPair]:
    changes = ((pair, plant(pair, chance)) for pair in pairs)
    return [_with_id(pair.model_copy(update=change)) for pair, change in changes if change]


def _exchanged(pairs: list[QAPair]) -> Iterator[QAPair]:
    """Open pairs with the answer of the one before them in their task."""
    for one, other in pairwise(pairs):
        if one.task == other.task and not one.options and not other.options:
            yield _with_id(other.model_copy(update={"answer": one.answer}))


def _with_id(pair: QAPair) -> QAPair:
    content = (pair.video_id, pair.task, pair.format, pair.question, pair.options, pair.answer)
    return pair.model_copy(update={"qa_id": QAPair.id_of(*content)})


def golden_video() -> Video:
    """One that need not be rendered."""
    return Video(Told(write_script(11, 3)), golden())


def rendered(first: int, folder: Path) -> Iterator[Video]:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, minutes in enumerate(MINUTES, first):
        for _, script, captions, pairs in written(seed, minutes, folder):
            clips = [
                Clip.model_validate(
                    {**row.model_dump(include={"video_id", "clip_id", "start", "end"}), "shots": (), "frame_hashes": ()}
                )
                for row in captions
            ]
            yield Video(Told(script), {Clip: clips, QAPair: pairs})


def table(rows: Iterable[Row]) -> str:
    lines = ["| QA pairs | audited | pass | are rejected |", "|---|---|---|---|"]
    for kind, pairs, rejected in rows:
        share = f"{100 * rejected / max(1, pairs):.1f} %"
        lines.append(f"| {kind} | {pairs} | {pairs - rejected} | {rejected} ({share}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    first = int(sys.argv[1]) if sys.argv[1:] else FIRST
    with TemporaryDirectory() as scratch:
        print(table(confusion(rendered(first, Path(sys.argv[2] if sys.argv[2:] else scratch)))))
