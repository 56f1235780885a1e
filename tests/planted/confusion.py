"""What the whole audit lets through though it is wrong, and rejects though it is right; `make confusion`.

    python -m planted.confusion [FIRST_SEED [FOLDER]]

Truth is the scripts of synthetic videos of fresh seeds. A wrong answer is counted only where the script says that it is
wrong. The audit is the stage `verify` and the shipped gates, with a judge as far as its calibration lets them count.
No model is asked: `planted.standin` takes its place. FOLDER keeps what was measured in the videos.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import NamedTuple

from truth.scorer import score
from truth.told import COLOURS, Told
from truth.videos import written

from marathon_pipeline.records import LETTERS, Clip, ClipCaption, QAPair, Span, Verdict
from marathon_pipeline.synthetic.director import write_script
from planted.clean import Rows, golden, verified
from planted.pairs import FAULTS, Plant, of_choice, of_open, right_of
from planted.score import GATES
from planted.standin import JUDGES, StandIn

FIRST, MINUTES = 12001, (3, 3, 4, 4, 5, 6)
NUMBERS = ("once", "twice", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Video(NamedTuple):
    told: Told
    rows: Rows


class Row(NamedTuple):
    kind: str
    pairs: int
    rejected: int


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


MOVED = "evidence of another stretch"
WELL_MADE: dict[str, Plant] = {
    "another option is marked right": of_choice(another_option),
    "another colour": replaced(rf"\b(?:{COLOURS})\b", COLOURS.split("|")),
    "another number": replaced(rf"(?i)\b(?:{'|'.join(NUMBERS)})\b|\b\d+\b", (*NUMBERS[2:], "15", "20", "40", "50")),
    "another order": of_open(another_order),
    MOVED: another_stretch,
}


def confusion(videos: Iterable[Video], judge: StandIn | None = None) -> list[Row]:
    """By kind: how many pairs were audited, and how many rejected. Only what the script decides is counted.

    What a stretch shows that is not the evidence no script is asked for, so that this kind is shown to no judge.
    """
    found: dict[str, list[Verdict]] = {}
    for video in videos:
        kinds = dict(_kinds(video))
        for kind, pairs in kinds.items():
            unjudged = judge is None or kind == MOVED
            verdicts = verified(video.rows, pairs) if unjudged else judge.verdicts(video.rows, pairs, kinds["right"])
            found.setdefault(kind, []).extend(verdicts)
        if judge is not None:
            judge.calibrate(video.rows)
    gates = GATES if judge is None else judge.in_force(GATES)
    return [
        Row(kind, len(verdicts), sum(bool(gates.reasons(verdict)) for verdict in verdicts))
        for kind, verdicts in found.items()
    ]


def _kinds(video: Video) -> Iterator[tuple[str, list[QAPair]]]:
    right = [pair for pair in video.rows[QAPair] if score(video.told, pair).right]
    yield "right", right
    for number, (kind, plant) in enumerate(WELL_MADE.items()):
        spoilt = _spoilt(right, plant, Random(number))
        moved = kind == MOVED  # of which the script says nothing
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
            yield Video(Told(script), {Clip: clips, ClipCaption: captions, QAPair: pairs})


def table(offline: Sequence[Row], judged: Mapping[str, Sequence[Row]]) -> str:
    """judged: by the judge's name, the same kinds."""
    heads = ["QA pairs", "audited", "without a judge", *judged]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for kinds in zip(offline, *judged.values(), strict=True):
        shares = [f"{row.rejected} ({100 * row.rejected / max(1, row.pairs):.1f} %)" for row in kinds]
        if kinds[0].kind == MOVED:
            shares[1:] = ["not asked"] * len(judged)
        lines.append(f"| {' | '.join([kinds[0].kind, str(kinds[0].pairs), *shares])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    first = int(sys.argv[1]) if sys.argv[1:] else FIRST
    with TemporaryDirectory() as scratch:
        videos = list(rendered(first, Path(sys.argv[2] if sys.argv[2:] else scratch)))
    print("Rejected, of pairs audited. No model was asked: a stand-in that the script tells the truth judges, and errs")
    print("as often as its column says (right answers not accepted, wrong ones accepted).\n")
    print(table(confusion(videos), {errors.name: confusion(videos, StandIn(errors)) for errors in JUDGES}))
