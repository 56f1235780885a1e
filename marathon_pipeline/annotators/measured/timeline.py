"""The facts of a whole video, merged from those of its overlapping windows."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, floor
from typing import NamedTuple

from marathon_pipeline.annotators.measured.overlaps import Overlaps
from marathon_pipeline.annotators.measured.tracks import GAP
from marathon_pipeline.annotators.measured.words import view_of
from marathon_pipeline.records import ClipCaption, Fact, Span

MOMENTS = frozenset({"cut", "enters", "leaves", "turns", "reaches", "nears", "sets_off", "recolours"})
DEEDS = frozenset({"moves", "paces", "grows", "shrinks"})
TELLING = (MOMENTS | DEEDS) - {"cut", "nears"}
_COMES_AND_DOES = TELLING | {"visible"}
DOUBTS = frozenset({"stray", "glimpse"})
AWAY = 4.0  # the shortest absence that is told
_BLUR = 4.0  # seconds before and after its stretches in which a part of a thing may be in the picture, unseen
_UNSURE = 3.0  # from a window's edge, where a moment lacks its before or its after


class Subject(NamedTuple):
    """What is known by one look all through the video, such as `red circle`, and the stretches of its being in view."""

    name: str
    colour: str
    shape: str
    stretches: tuple[Span, ...]

    @property
    def the(self) -> str:
        return f"the {self.name}"

    @property
    def seconds(self) -> float:
        return sum(stretch.end - stretch.start for stretch in self.stretches)


class Setting(NamedTuple):
    start: float
    end: float
    upper: str
    lower: str
    brightness: float

    @property
    def view(self) -> str:
        return view_of(self.upper, self.lower)

    @property
    def span(self) -> Span:
        return Span(start=self.start, end=self.end)


@dataclass(frozen=True)
class Timeline:
    """A video's merged facts, in order. `start` to `end` is what its windows cover, less `unseen`."""

    video_id: str
    windows: tuple[ClipCaption, ...]
    facts: tuple[Fact, ...]
    unseen: tuple[Span, ...]

    @classmethod
    def of(cls, captions: Sequence[ClipCaption]) -> "Timeline":
        windows = tuple(sorted(captions, key=lambda caption: (caption.start, caption.end)))
        unseen = [Span(start=a.end, end=b.start) for a, b in itertools.pairwise(windows) if b.start > a.end]
        return cls(windows[0].video_id, windows, tuple(_merged(windows)), tuple(unseen))

    # Look-ups by name, filled as they are asked for.
    _views: dict[str, Overlaps[Fact]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _traces: dict[str, Overlaps[Fact | Span]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def start(self) -> float:
        return self.windows[0].start

    @cached_property
    def end(self) -> float:
        return max(window.end for window in self.windows)

    @cached_property
    def _kept(self) -> dict[tuple[str, str | None], list[Fact]]:
        """By kind, and by kind and subject; the facts are in order."""
        kept: dict[tuple[str, str | None], list[Fact]] = defaultdict(list)
        for fact in self.facts:
            kept[fact.kind, None].append(fact)
            kept[fact.kind, fact.subject].append(fact)
        return kept

    def of_kind(self, *kinds: str, subject: str | None = None) -> list[Fact]:
        found = [fact for kind in kinds for fact in self._kept.get((kind, subject), ())]
        return sorted(found, key=lambda fact: (fact.start, fact.end)) if len(kinds) > 1 else found

    @cached_property
    def _anything(self) -> Overlaps[Fact]:
        return Overlaps(self.of_kind("visible"))

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """Those whose name is theirs alone, by first appearance."""
        stretches: dict[str, list[Span]] = defaultdict(list)
        for fact in self.of_kind("visible"):
            stretches[fact.subject].append(Span(start=fact.start, end=fact.end))
        doubtful = {fact.subject for fact in self.of_kind("several")}
        vague = {name.split()[0] for name in stretches if name.endswith(" thing")}
        return tuple(
            Subject(name, name.split()[0], name.split()[1], tuple(spans))
            for name, spans in stretches.items()
            if name not in doubtful and name.split()[0] not in vague
        )

    @cached_property
    def vague_colours(self) -> tuple[str, ...]:
        """The colours of what stands out, but has no clear outline: no name is sure to mean one thing."""
        names = (fact.subject for fact in self.of_kind("visible"))
        return tuple(dict.fromkeys(name.split()[0] for name in names if name.endswith(" thing")))

    @property
    def holds_nameless(self) -> bool:
        """Whether something without a name of its own is seen, or does something."""
        return self._nameless.any(self.start, self.end)

    def accounted(self, start: float, end: float) -> bool:
        """Whether all that moves between these times is told by facts about known things, or by a change of setting."""
        if self._nameless.any(start, end):
            return False
        seconds = range(int(start), max(int(end), int(start) + 1))
        lost = sum(second not in self._told_seconds for second in seconds)
        return lost <= max(1, 0.1 * len(seconds))

    @cached_property
    def _told_seconds(self) -> frozenset[int]:
        """The seconds whose middle lies near a fact that tells of them, or that are calm."""
        told = [
            (fact.start - 2, fact.end + 2)
            for fact in self.facts
            if fact.subject in self._names and fact.kind in TELLING
        ]
        told += [(one.end - 2, one.end + 4) for one in self.settings] + [
            (one.start - 4, one.start + 2) for one in self.settings
        ]
        told += [(fact.start, fact.end) for fact in self.of_kind("activity") if fact.value == "calm"]
        return frozenset(second for low, high in told for second in range(ceil(low - 0.5), floor(high - 0.5) + 1))

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(subject.name for subject in self.subjects)

    @cached_property
    def _nameless(self) -> Overlaps[Fact]:
        """Facts that tell what a thing without a name of its own does, or that it comes or goes."""
        return Overlaps(fact for fact in self.facts if fact.kind in _COMES_AND_DOES and fact.subject not in self._names)

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        return tuple(
            Setting(fact.start, fact.end, fact.subject, fact.other, fact.amount)
            for fact in self.of_kind("setting")
            if fact.subject and fact.other and fact.end - fact.start >= 5
        )

    def subject(self, name: str) -> Subject | None:
        return next((subject for subject in self.subjects if subject.name == name), None)

    def in_view(self, name: str, start: float, end: float) -> bool:
        """Whether the subject is in view at any time of the stretch, as far as was seen."""
        if name not in self._views:
            self._views[name] = Overlaps(self.of_kind("visible", subject=name))
        return self._views[name].any(start, end)

    def anything_in_view(self, start: float, end: float) -> bool:
        return self._anything.any(start, end)

    def seconds_of(self, kind: str, value: str, span: Span) -> float:
        """How long facts of a kind and value hold within a stretch."""
        facts = (fact for fact in self.of_kind(kind) if fact.value == value)
        return sum(max(0.0, min(fact.end, span.end) - max(fact.start, span.start)) for fact in facts)

    def settled(self, level: str) -> bool:
        """Whether the level of activity is `calm`, or `lively`, nearly all the time."""
        seconds = sum(fact.end - fact.start for fact in self.of_kind("activity") if fact.value == level)
        return seconds >= 0.9 * (self.end - self.start)

    def surely_away(self, name: str, start: float, end: float) -> bool:
        """Whether the subject is in view at no time near the stretch, and nothing seen could have been it."""
        return not self.in_view(name, start - _BLUR, end + _BLUR) and self._no_trace(name, start, end)

    def _no_trace(self, name: str, start: float, end: float) -> bool:
        if name not in self._traces:
            colour = name.split()[0]
            doubts = [fact for fact in self.of_kind(*DOUBTS, "visible", "several") if _could_be(fact, name, colour)]
            self._traces[name] = Overlaps([*doubts, *self.unseen])
        return not self._traces[name].any(start, end)

    def never(self, name: str) -> bool:
        return self.surely_away(name, self.start, self.end)

    def most(self, colour: str) -> float:
        """The largest share of the picture that the colour ever covers."""
        return max((fact.amount for fact in self.of_kind("most") if fact.value == colour), default=0.0)

    def absences(self, subject: Subject) -> list[Span]:
        """The stretches between its appearances at which it is surely away (but for a second at either end)."""
        gaps = [Span(start=a.end, end=b.start) for a, b in zip(subject.stretches, subject.stretches[1:], strict=False)]
        return [gap for gap in gaps if gap.end - gap.start >= AWAY and self.surely_gone(subject.name, gap)]

    def surely_gone(self, name: str, gap: Span) -> bool:
        return self._no_trace(name, gap.start + 1.5, gap.end - 1.5)

    def clip_ids(self, evidence: Iterable[Span]) -> tuple[str, ...]:
        """The windows that hold the most of each piece of evidence: the fewest that cover it."""
        spans = list(evidence)
        chosen: list[str] = []
        for window in self.windows:
            for span in spans:
                if window.start < max(span.end, span.start + 0.1) and window.end > span.start:
                    chosen.append(window.clip_id)
                    break
        return tuple(chosen)


def _could_be(fact: Fact, name: str, colour: str) -> bool:
    """Whether what the fact tells of may have been the subject."""
    if fact.kind == "stray":
        return fact.value == colour and fact.end - fact.start >= 2
    return fact.subject in (name, f"{colour} thing") or (name.endswith(" thing") and fact.subject.startswith(colour))


def _merged(windows: Sequence[ClipCaption]) -> Iterator[Fact]:
    stretches: list[Fact] = []
    moments: list[Fact] = []
    whole: list[Fact] = []
    for window, (low, high) in zip(windows, _cores(windows), strict=True):
        for fact in window.facts:
            if fact.kind in MOMENTS:
                if _well_inside(fact, window, windows):
                    moments.append(fact)
            elif fact.kind in DEEDS | DOUBTS or fact.kind == "most":
                whole.append(fact)
            elif fact.start < high and fact.end > low:
                stretches.append(fact.model_copy(update={"start": max(low, fact.start), "end": min(high, fact.end)}))
    stretches = _joined(stretches)
    visible = [fact for fact in stretches if fact.kind == "visible"]
    short = [fact.model_copy(update={"kind": "glimpse"}) for fact in visible if fact.end - fact.start < GAP]
    seen = [fact for fact in visible if fact.end - fact.start >= GAP]
    facts = [fact for fact in stretches if fact.kind != "visible"] + seen + short
    seen_as: dict[str, list[Fact]] = defaultdict(list)
    for fact in seen:
        seen_as[fact.subject].append(fact)
    told = [
        fact
        for fact in _joined(whole) + _distinct(moments)
        if not fact.subject or _is_seen(fact, seen_as[fact.subject])
    ]
    pacing = [fact for fact in told if fact.kind == "paces"]
    told = [fact for fact in told if not (fact.kind == "moves" and any(_within(fact, pace) for pace in pacing))]
    yield from sorted(facts + told, key=lambda fact: (fact.start, fact.end, fact.kind, fact.subject, fact.value))


def _cores(windows: Sequence[ClipCaption]) -> list[tuple[float, float]]:
    """The part of each window that it sees best: to the middle of the overlap with its neighbours."""
    middles = [(a.end + b.start) / 2 if b.start < a.end else None for a, b in itertools.pairwise(windows)]
    lows = [windows[0].start] + [b.start if m is None else m for b, m in zip(windows[1:], middles, strict=True)]
    highs = [a.end if m is None else m for a, m in zip(windows, middles, strict=False)] + [windows[-1].end]
    return list(zip(lows, highs, strict=True))


def _well_inside(fact: Fact, window: ClipCaption, windows: Sequence[ClipCaption]) -> bool:
    after_start = window is windows[0] or fact.start >= window.start + _UNSURE
    before_end = window is windows[-1] or fact.end <= window.end - _UNSURE
    return after_start and before_end


def _key(fact: Fact) -> tuple[str, str, str, str]:
    return fact.kind, fact.subject, fact.other, fact.value


def _joined(facts: Iterable[Fact]) -> list[Fact]:
    """Facts that say the same of stretches that meet, as one; amounts: the larger one."""
    joined: dict[tuple[str, str, str, str], list[Fact]] = defaultdict(list)
    for fact in sorted(facts, key=lambda fact: (fact.start, fact.end)):
        same = joined[_key(fact)]
        gap = GAP if fact.kind in ("visible", "stray") else 0.5
        if same and fact.start - same[-1].end < gap:
            end, amount = max(same[-1].end, fact.end), max(same[-1].amount, fact.amount)
            same[-1] = same[-1].model_copy(update={"end": end, "amount": amount})
        else:
            same.append(fact)
    return [fact for same in joined.values() for fact in same]


def _distinct(moments: Iterable[Fact]) -> list[Fact]:
    kept: dict[tuple[str, str, str, str], list[Fact]] = defaultdict(list)
    for fact in sorted(moments, key=lambda fact: fact.start):
        same = kept[_key(fact)]
        if not same or fact.start - same[-1].start > 2:
            same.append(fact)
    return [fact for same in kept.values() for fact in same]


def _is_seen(fact: Fact, seen: Iterable[Fact]) -> bool:
    """Whether the fact's subject goes by that name at that time; a glimpse has no other witness."""
    middle = (fact.start + fact.end) / 2
    return fact.kind == "glimpse" or any(one.start - 1 <= middle <= one.end + 1 for one in seen)


def _within(fact: Fact, pace: Fact) -> bool:
    return fact.subject == pace.subject and fact.start < pace.end + 1 and fact.end > pace.start - 1
