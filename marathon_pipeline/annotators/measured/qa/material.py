"""What the task functions write from, what they write, and how wrong options are found that the facts refute."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from typing import NamedTuple, TypeVar

from marathon_pipeline.annotators.measured.overlaps import Overlaps
from marathon_pipeline.annotators.measured.story import (
    FROM,
    OUT,
    PACES,
    TOWARDS,
    WHOLE,
    Happening,
    by_the_way,
    does,
    happenings,
)
from marathon_pipeline.annotators.measured.timeline import Setting, Subject, Timeline
from marathon_pipeline.annotators.measured.words import about, ordinal
from marathon_pipeline.records import Event, Fact, Span, Summary, digests

VIVID = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "bar")
CLEAR = 3.0  # seconds between two moments whose order is told
NEAR = 8.0  # seconds around a moment in which a wrong option must not be true
_Value = TypeVar("_Value")


class Item(NamedTuple):
    """One question that could be asked. `wrong`: all that may stand beside the answer; fewer than three: it is asked
    openly only."""

    question: str
    answer: str  # as an option, without capital and full stop
    wrong: Sequence[str]
    evidence: tuple[Span, ...]
    about: str  # whom or what it asks about: items should differ in it
    full: str = ""  # the open answer where it says more than the option
    closed: bool = False  # it makes no sense without its options


class Truth(NamedTuple):
    """A clause, and a time at which it is true."""

    told: str
    start: float
    end: float


Writer = Callable[["Material"], Iterator[Item]]


@dataclass(frozen=True)
class Material:
    timeline: Timeline
    events: tuple[Event, ...]
    summary: Summary
    written: dict[str, list[Item]] = field(default_factory=dict)  # by task: one task's two formats choose from the same

    @cached_property
    def story(self) -> list[Happening]:
        return happenings(self.timeline)

    @cached_property
    def anchors(self) -> list[Happening]:
        """What a question may name, to say which moment it means."""
        return [one for one in self.story if one.clear]

    @cached_property
    def deeds(self) -> list[Happening]:
        """What things do."""
        return [one for one in self.story if one.subject not in WHOLE]

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        return self.timeline.subjects

    @cached_property
    def settings(self) -> tuple[Setting, ...]:
        return self.timeline.settings

    def draw(self, salt: object, values: Sequence[_Value], count: int | None = None) -> list[_Value]:
        """Values in an order that is the video's and the salt's own, at most `count` of them."""
        ranks = list(digests([self.timeline.video_id, str(salt)], len(values)))
        return [values[index] for index in sorted(range(len(values)), key=ranks.__getitem__)[:count]]

    def vary(self, salt: object, *phrasings: str) -> str:
        return self.draw(("phrasing", salt), phrasings)[0]

    def fours(
        self, salt: object, values: Collection[float], apart: Callable[[float, float], bool]
    ) -> dict[float, list[float]]:
        """Of values that are apart from each other, by fours: for each the other three.

        Each of a four is right once: to see the four does not help to guess which of them it is.
        """
        found: dict[float, list[float]] = {}
        for value in self.draw(salt, sorted(set(values))):
            free = sorted(set(values) - found.keys())
            if value in free:
                others = self.draw((salt, value), [*_chain(value, free, apart), *_chain(value, free[::-1], apart)], 3)
                four = [value, *others] if len(others) == 3 else []
                found.update({one: [other for other in four if other != one] for one in four})
        return found

    # What is false at a time, by the facts.

    @cached_property
    def true(self) -> list[Truth]:
        """All that is true, with what is a part of something else; and all that may be, where the way was not seen."""
        true = [(one.told, one.start, one.end) for one in self.story]
        for fact in self.timeline.of_kind("moves", "paces", "grows", "shrinks", "turns", "enters", "leaves", "reaches"):
            true.append((f"the {fact.subject} {does(fact)}", fact.start, fact.end))
        for subject in self.subjects:
            for stretch in subject.stretches:  # also where it comes and goes with the view
                true.append((f"{subject.the} comes into view", stretch.start - 4, stretch.start + 4))
                true.append((f"{subject.the} goes out of view", stretch.end - 4, stretch.end + 4))
        for name, way, fact in by_the_way(self.timeline):
            true.append((f"the {name} moves {TOWARDS[way]}", fact.start - 4, fact.end + 4))
        for one in self.story:
            if one.kind in ("comes", "goes"):
                ways = [f"comes in {way}" for way in FROM.values()] if one.kind == "comes" else []
                ways += [f"goes out {way}" for way in OUT.values()] if one.kind == "goes" else []
                ways += [f"moves {way}" for way in TOWARDS.values()]
                true += [(f"the {one.subject} {way}", one.start - 4, one.end + 4) for way in ways]
        return [Truth(*one) for one in true]

    @cached_property
    def true_of(self) -> dict[str, list[Truth]]:
        """The same, by what is told."""
        found: dict[str, list[Truth]] = {}
        for one in self.true:
            found.setdefault(one.told, []).append(one)
        return found

    @cached_property
    def true_at(self) -> Overlaps[Truth]:
        return Overlaps(self.true)

    def done_by(self, what: str) -> set[str]:
        """Who does a thing, at any time."""
        return {told.removesuffix(f" {what}") for told in self.true_of if told.endswith(f" {what}")}

    def happens(self, told: str, start: float, end: float) -> bool:
        return any(one.start < end and one.end > start for one in self.true_of.get(told, ()))

    def elsewhere(self, start: float, end: float) -> list[str]:
        """What happens in the video, but not between these times."""
        then = {one.told for one in self.true_at.within(start, end)}
        return [told for told in self._ever if told not in then]

    @cached_property
    def _ever(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.told for one in self.story))

    def not_done(self, name: str, start: float, end: float) -> list[str]:
        """What the subject could have done between these times, and did not; one turn of colour at most."""
        facts = self._facts_about[name].within(start, end)
        done = {(fact.kind, fact.value) for fact in facts if fact.subject == name}
        ways = {fact.value for fact in facts if fact.kind in ("moves", "sets_off", "enters", "leaves")}
        pacing = {value for kind, value in done if kind == "paces"}
        moving = any(kind in ("enters", "leaves") for kind, _ in done)
        options = []
        if not pacing and not moving:
            options += [f"moves {said}" for way, said in TOWARDS.items() if way not in ways]
        options += [said for axis, said in PACES.items() if not pacing]
        options += [kind for kind in ("grows", "shrinks") if not any(kind == known for known, _ in done) and not moving]
        if not any(fact.kind == "turns" for fact in facts):
            options += [f"turns {colour}" for colour in self.other_colours(name, start, end)[:1]]
        return options

    def other_colours(self, name: str, start: float, end: float) -> list[str]:
        """The colours that a thing of this name does not have, or take, between these times."""
        colour, shape = name.split()
        turned = {fact.value for fact in self._facts_about[name].within(start, end) if fact.kind == "turns"}
        others = [one for one in VIVID if one not in (colour, *turned)]
        sure = [one for one in others if self.timeline.surely_away(f"{one} {shape}", start, end)]
        return self.draw(("turns", name, start), sure)

    @cached_property
    def _facts_about(self) -> dict[str, Overlaps[Fact]]:
        """By known name: the facts that it has a part in."""
        names = [subject.name for subject in self.subjects]
        return {name: Overlaps(f for f in self.timeline.facts if name in (f.subject, f.other)) for name in names}

    def away(self, start: float, end: float) -> list[str]:
        """Names that are surely not in view between these times: first of things that are seen at others."""
        known = [subject.name for subject in self.subjects]
        others = [f"{colour} {shape}" for colour in VIVID for shape in SHAPES]
        names = [*known, *self.draw("others", [name for name in others if name not in known])]
        return [name for name in names if self.timeline.surely_away(name, start, end)]

    def never_with(self, name: str) -> list[str]:
        """Names of things that are surely never in view together with the subject: first of things that are seen."""
        stretches = next(one.stretches for one in self.subjects if one.name == name)
        known = [one.name for one in self.subjects if one.name != name]
        apart = [one for one in known if all(self.timeline.surely_away(one, s.start, s.end) for s in stretches)]
        return [*apart, *self.never]

    @cached_property
    def never(self) -> list[str]:
        """Names of things that never appear."""
        names = [f"{colour} {shape}" for colour in VIVID for shape in SHAPES]
        return self.draw("never", [name for name in names if self.timeline.never(name)])

    def blurred(self, name: str, moment: float) -> bool:
        """Whether the name comes or goes at this moment by a change of colour, or in a way that was not seen."""
        return any(abs(other - moment) <= 3 for other in self._blurs.get(name, ()))

    @cached_property
    def _blurs(self) -> dict[str, list[float]]:
        """By name: when it comes or goes so."""
        blurs: dict[str, list[float]] = defaultdict(list)
        for fact in self.timeline.of_kind("turns"):
            blurs[fact.subject].append(fact.start)
            blurs[fact.other].append(fact.start)
        for one in self.story:
            if one.kind in ("comes", "goes"):
                blurs[one.subject].append(one.middle)
        return blurs

    def ends_clearly(self, setting: Setting) -> bool:
        """Whether the setting begins and ends where the video does, or where another one is seen to take its place."""
        others = [one for one in self.settings if one.view != setting.view]
        begins = setting.start <= self.timeline.start + 1 or any(0 <= setting.start - one.end <= 4 for one in others)
        return begins and (
            setting.end >= self.timeline.end - 1 or any(0 <= one.start - setting.end <= 4 for one in others)
        )

    def which_stretch(self, subject: Subject, stretch: Span) -> str:
        """` the second time`, where a subject is in view more than once."""
        index = subject.stretches.index(stretch)
        return f" the {ordinal(index)} time" if len(subject.stretches) > 1 else ""

    def which_gap(self, subject: Subject, gap: Span) -> str:
        index = next(index for index, stretch in enumerate(subject.stretches) if stretch.end == gap.start)
        return f" the {ordinal(index)} time" if len(subject.stretches) > 2 else ""

    def fully_known(self, subject: Subject) -> bool:
        """Whether it is sure when the subject is in view and when not, and no colour change makes it come or go."""
        ends = [moment for stretch in subject.stretches for moment in (stretch.start, stretch.end)]
        borders = [self.timeline.start - 2, *ends, self.timeline.end + 2]
        gaps = [Span(start=start, end=end) for start, end in zip(borders[::2], borders[1::2], strict=True)]
        sure = all(self.timeline.surely_gone(subject.name, gap) for gap in gaps if gap.end - gap.start > CLEAR)
        told = len(subject.stretches) == len(self.timeline.absences(subject)) + 1 <= 9
        return sure and told and not any(self.blurred(subject.name, moment) for moment in ends)

    def only_of(self, name: str, start: float, end: float, colour: str = "", shape: str = "") -> bool:
        """Whether no other thing of that colour, or of that shape, is in view between these times."""
        others = [
            f"{colour or one} {shape or two}"
            for one in ((colour,) if colour else VIVID)
            for two in ((shape,) if shape else (*SHAPES, "thing"))
        ]
        return all(other == name or self.timeline.surely_away(other, start, end) for other in others)

    def alone(self, start: float, end: float) -> Subject | None:
        """The only subject in view between these times, all the while, where there is just one thing."""
        seen = {fact.subject for fact in self._seen.within(start, end)}
        subject = self.timeline.subject(next(iter(seen))) if len(seen) == 1 else None
        held = subject and any(span.start <= start and span.end >= end for span in subject.stretches)
        return subject if held else None

    @cached_property
    def _seen(self) -> Overlaps[Fact]:
        return Overlaps(self.timeline.of_kind("visible", "glimpse", "several"))

    def when(self, start: float, end: float, hush: str) -> str:
        """A moment within the stretch: by what happens then, else by the clock. `hush`: whom it must not name."""
        for one in self.draw(("when", start), self.anchors):
            if start + 1.5 <= one.at <= end - 1.5 and hush not in one.clause and one.kind != "camera":
                return f"at the moment when {one.onset}"
        return about((start + end) / 2)


def _chain(first: float, values: Sequence[float], apart: Callable[[float, float], bool]) -> Iterator[float]:
    """Of values in order, those from the first one on that are apart from the one before."""
    last = first
    for value in values[values.index(first) :]:
        if apart(value, last):
            last = value
            yield value


def orders(things: Sequence[str]) -> list[str]:
    """The right order of three in words, then the wrong ones."""
    return [f"first {a}, then {b}, and last {c}" for a, b, c in permutations(things)]


def around(moment: float, before: float = 4.0, after: float = 4.0) -> Span:
    return Span(start=max(0.0, moment - before), end=moment + after)


def cut_to(span: Span, timeline: Timeline) -> Span:
    return Span(start=max(timeline.start, span.start), end=min(timeline.end, span.end))


def subject_facts(timeline: Timeline, kind: str) -> list[Fact]:
    """Facts of one kind about known subjects."""
    names = {subject.name for subject in timeline.subjects}
    return [fact for fact in timeline.of_kind(kind) if fact.subject in names]
