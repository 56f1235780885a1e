"""Measured facts held against what a person saw in real videos (`labels/real_videos.yaml`).

As a command it prints the table of `docs/measured.md`: `python tests/real_facts.py FOLDER [--false]`.
"""

import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from marathon_pipeline.annotators.measured import Measured
from marathon_pipeline.annotators.measured.timeline import Timeline
from marathon_pipeline.media.decode import decode_once
from marathon_pipeline.media.windows import windows
from marathon_pipeline.records import Clip, ClipCaption, Fact, Signals

LABELS: dict[str, dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "labels" / "real_videos.yaml").read_text())
NEAR = 0.5  # seconds that a label may be off
OFF = 1.0  # seconds at either end of a fact that are not held against it
KNOWN, TRUE = 0.5, 0.9  # share of a fact that the labels have to cover; share of that, at which it has to hold
CAUTIONS = ("most", "stray", "glimpse", "several")  # not told: they keep other things from being told


class Verdict(NamedTuple):
    video: str
    fact: Fact
    true: bool | None  # None: the labels do not decide it

    @property
    def kind(self) -> str:
        if self.fact.kind == "camera":
            return "camera unsteady" if self.fact.value == "unsteady" else "camera turns"
        return f"{self.fact.kind} {self.fact.value}" if self.fact.kind == "activity" else self.fact.kind


class Scored(NamedTuple):
    verdicts: list[Verdict]
    cuts: list[tuple[float, bool]]  # every labelled one, and whether a shot begins there


def score(folder: Path, name: str) -> Scored:
    labels = LABELS[name]
    with TemporaryDirectory() as scratch:
        decoded = decode_once(folder / name, Path(scratch) / "proxy.mp4", name, end=labels.get("until"))
    facts = Timeline.of(_captions(name, decoded.seconds, decoded.signals)).facts
    starts = [shot.start for shot in decoded.shots]
    sure = [cut for cut in labels["cuts"] if not _within(labels.get("unsure", ()), cut)]
    return Scored(
        [Verdict(name, fact, decide(fact, labels)) for fact in facts if fact.kind not in CAUTIONS],
        [(cut, any(abs(start - cut) <= NEAR for start in starts)) for cut in sure],
    )


def _captions(video_id: str, seconds: float, signals: Sequence[Signals]) -> list[ClipCaption]:
    async def write() -> list[ClipCaption]:
        found = []
        for index, window in enumerate(windows(seconds)):
            rows = [row for row in signals if window.start <= row.second < window.end]
            clip = Clip(
                video_id=video_id, clip_id=f"c{index:04d}", start=window.start, end=window.end, shots=(),
                frame_hashes=tuple(row.frame_hash for row in rows),
            )  # fmt: skip
            found.append(await Measured().caption_clip(clip, rows))
        return found

    return asyncio.run(write())


def decide(fact: Fact, labels: dict[str, Any]) -> bool | None:
    if fact.kind == "cut":
        return _cut(fact, labels)
    if fact.kind in ("enters", "leaves"):
        return _passage(fact, labels)
    known = [verdict for time in _times(fact) if (verdict := _holds(fact, labels, time)) is not None]
    if not known or len(known) < KNOWN * len(_times(fact)):
        return None
    return sum(known) >= TRUE * len(known)


def _cut(fact: Fact, labels: dict[str, Any]) -> bool | None:
    """The pictures of two neighbouring seconds, taken 0.4 s into each, are of different shots."""
    low, high = fact.start - 0.6 - NEAR, fact.start + 0.4 + NEAR
    if any(low <= cut <= high for cut in labels["cuts"]) or _meets(labels.get("fades", ()), low, high):
        return True
    return None if _meets(labels.get("unsure", ()), low, high) else False


def _passage(fact: Fact, labels: dict[str, Any]) -> bool | None:
    own = [thing for thing in labels.get("things", ()) if thing["colour"] == fact.subject.split()[0]]
    if not own:
        return False if _within(labels.get("complete", ()), fact.start) else None
    when = 0 if fact.kind == "enters" else 1
    return any(abs(thing["at"][when] - (fact.start, fact.end)[when]) <= 1.5 for thing in own)


def _holds(fact: Fact, labels: dict[str, Any], time: float) -> bool | None:
    def stands(key: str) -> bool:
        return _within(labels.get(key, ()), time)

    match fact.kind:
        case "setting":
            halves = next((one[2:] for one in labels["halves"] if one[0] <= time <= one[1]), (None, None))
            said = [(claim, seen) for claim, seen in zip((fact.subject, fact.other), halves, strict=True) if claim]
            known = [claim in seen for claim, seen in said if seen is not None]
            return all(known) if known else None
        case "activity":
            calm, moving = stands("calm"), stands("moving")
            return None if calm == moving else calm == (fact.value == "calm")
        case "busy":
            return next((fact.value in one[2] for one in labels.get("busy", ()) if one[0] <= time <= one[1]), None)
        case "camera":
            hows = {one[2] for one in labels.get("camera", ()) if one[0] <= time <= one[1]}
            if stands("still"):
                return False
            directed = hows if fact.value == "unsteady" else hows - {"unsteady"}
            return fact.value in hows if directed else None
        case _:
            return _is_there(fact, labels, time)


def _is_there(fact: Fact, labels: dict[str, Any], time: float) -> bool | None:
    """Whether what a fact tells of is in the picture; what it does there is decided only where it is not there."""
    names = [name.split() for name in (fact.subject, fact.other) if name]
    things = [one for one in labels.get("things", ()) if one["at"][0] - NEAR <= time <= one["at"][1] + NEAR]
    there = all(
        any(one["colour"] == colour and shape in ("thing", one.get("shape", "thing")) for one in things)
        for colour, shape in names
    )
    if there:
        return True if fact.kind == "visible" else None
    return False if _within(labels.get("complete", ()), time) or things else None


def _times(fact: Fact) -> list[float]:
    """Each quarter of a second of a fact, but for its ends."""
    low, high = fact.start + OFF, fact.end - OFF
    if high - low < 0.5:
        return [(fact.start + fact.end) / 2]
    return [low + step / 4 for step in range(int((high - low) * 4) + 1)]


def _within(spans: Iterable[Sequence[float]], time: float) -> bool:
    return any(span[0] <= time <= span[1] for span in spans)


def _meets(spans: Iterable[Sequence[float]], low: float, high: float) -> bool:
    return any(span[0] <= high and span[1] >= low for span in spans)


def tally(verdicts: Iterable[Verdict]) -> dict[str, Counter[bool | None]]:
    counts: dict[str, Counter[bool | None]] = defaultdict(Counter)
    for verdict in verdicts:
        counts[verdict.kind][verdict.true] += 1
    return dict(sorted(counts.items()))


def table(scored: Sequence[Scored]) -> Iterator[str]:
    yield "| kind of fact | true | false | not decided | precision |"
    yield "|---|---|---|---|---|"
    for kind, count in tally(verdict for one in scored for verdict in one.verdicts).items():
        known = count[True] + count[False]
        precision = f"{count[True] / known:.2f}" if known else "-"
        yield f"| {kind} | {count[True]} | {count[False]} | {count[None]} | {precision} |"
    cuts = [found for one in scored for _, found in one.cuts]
    yield f"\nOf {len(cuts)} labelled cuts {sum(cuts)} are found."


if __name__ == "__main__":
    everything = [score(Path(sys.argv[1]), name) for name in LABELS]
    print(*table(everything), sep="\n")
    if "--false" in sys.argv:
        for one in everything:
            for name, fact, true in one.verdicts:
                if true is False:
                    print(name, fact.kind, fact.start, fact.end, fact.subject, fact.other, fact.value, fact.amount)
        for name, one in zip(LABELS, everything, strict=True):
            print(name, "cuts not found:", *(cut for cut, found in one.cuts if not found))
