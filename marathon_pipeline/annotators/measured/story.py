"""What happens in a video, one clause each: the common ground of events, questions and answers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from marathon_pipeline.annotators.measured.timeline import Timeline
from marathon_pipeline.annotators.measured.words import a, listed, ordinal, sentence
from marathon_pipeline.records import Fact, Span

TOWARDS = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
FROM = {"left": "from the left", "right": "from the right", "top": "from the top", "bottom": "from the bottom"}
OUT = {"left": "to the left", "right": "to the right", "top": "at the top", "bottom": "at the bottom"}
PACES = {"sideways": "goes back and forth", "up and down": "goes up and down again and again"}
MOST_MOVEMENT = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
WHOLE = ("view", "camera", "picture")  # what is told of the picture as a whole
_WAYS: dict[str, dict[str, tuple[str, ...]]] = {  # the ways that a thing moves while it does something else
    "enters": {"left": ("right",), "right": ("left",), "top": ("down",), "bottom": ("up",)},
    "leaves": {"left": ("left",), "right": ("right",), "top": ("up",), "bottom": ("down",)},
    "paces": {"sideways": ("left", "right"), "up and down": ("up", "down")},
    "moves": {},
}
_SETTLED = 6.0  # seconds that a level of activity lasts on either side of a change that is told
_COUNTED = 9  # times: nobody counts on
_PASSAGE = 6.0  # seconds that the way in or out takes at most


class Happening(NamedTuple):
    """One thing that happens, told in the present tense."""

    start: float
    end: float
    kind: str
    subject: str  # its name, or one of WHOLE
    does: str  # `moves to the left`
    which: str = ""  # ` for the second time`, where the same happens more than once
    clear: bool = True  # its clause fits nothing else, so that a question may name it

    @property
    def told(self) -> str:
        """`the red circle moves to the left`"""
        return f"the {self.subject} {self.does}"

    @property
    def clause(self) -> str:
        """The same, of this one time."""
        return self.told + self.which

    @property
    def onset(self) -> str:
        """A clause that is true at the moment `at`, of this one time."""
        verb, _, rest = self.does.partition(" ")
        if self.kind in ("moves", "paces", "grows", "shrinks", "camera"):
            done = f"begins to {_INFINITIVE[verb]} {rest}".rstrip()
        else:
            done = self.does.replace("goes out", "has gone out", 1) if self.kind == "leaves" else self.does
        return f"the {self.subject} {done}{self.which}"

    @property
    def at(self) -> float:
        halfway = ("setting", "activity", "turns")  # it comes about between two pictures
        return self.end if self.kind == "leaves" else self.middle if self.kind in halfway else self.start

    @property
    def middle(self) -> float:
        return (self.start + self.end) / 2

    @property
    def span(self) -> Span:
        return Span(start=self.start, end=self.end)


_INFINITIVE = {"moves": "move", "goes": "go", "grows": "grow", "shrinks": "shrink", "turns": "turn"}


def does(fact: Fact) -> str:
    """What the fact's subject does, in words."""
    match fact.kind:
        case "moves":
            return f"moves {TOWARDS[fact.value]}"
        case "paces":
            return PACES[fact.value]
        case "grows" | "shrinks":
            return fact.kind
        case "turns":
            return f"turns {fact.value}"
        case "enters":
            return f"comes in {FROM[fact.value]}"
        case "leaves":
            return f"goes out {OUT[fact.value]}"
        case "reaches":
            return f"comes up against the {fact.other}"
    raise ValueError(fact.kind)


def happenings(timeline: Timeline) -> list[Happening]:
    """All that happens to known subjects and to the view, by start. Of what happens often, only the first times are
    clear enough for a question to name."""
    # What comes of a contact begins as soon as the contact, give or take the seconds between two pictures.
    found = sorted(_all(timeline), key=lambda one: (one.at - 2.5 * (one.kind == "reaches"), one.told))
    counts = Counter(one.told for one in found)
    times: Counter[str] = Counter()
    result = []
    for one in found:
        times[one.told] += 1
        if counts[one.told] > 1:
            one = one._replace(which=f" for the {ordinal(times[one.told] - 1)} time")
        result.append(one._replace(clear=one.clear and times[one.told] <= _COUNTED))
    return result


def _all(timeline: Timeline) -> Iterator[Happening]:
    known = {subject.name for subject in timeline.subjects}
    unseen = list(_unseen_passages(timeline))
    also = {(subject, way) for subject, way, _ in by_the_way(timeline)} | {(one.subject, one.kind) for one in unseen}
    yield from (one._replace(kind="comes" if one.kind == "enters" else "goes") for one in unseen)
    for fact in timeline.of_kind("moves", "paces", "grows", "shrinks", "turns", "enters", "leaves", "reaches"):
        whole = fact.subject in known and (fact.kind != "reaches" or fact.other in known)
        if whole and not (fact.kind == "moves" and _is_passage(fact, timeline, unseen)):
            clear = (fact.subject, fact.value if fact.kind == "moves" else fact.kind) not in also
            yield Happening(fact.start, fact.end, fact.kind, fact.subject, does(fact), clear=clear)
    for before, after in zip(timeline.settings, timeline.settings[1:], strict=False):
        if after.start - before.end <= 4 and before.view != after.view:
            yield Happening(before.end - 1, after.start + 1, "setting", "view", f"changes to {after.view}")
    levels = [fact for fact in timeline.of_kind("activity") if fact.end - fact.start >= _SETTLED]
    for level, new in pairwise(levels):
        if level.value != new.value and new.start - level.end <= 4:
            what = "fills with movement" if new.value == "lively" else "comes to rest"
            yield Happening(level.end - 1, new.start + 1, "activity", "picture", what)
    for fact in timeline.of_kind("camera"):
        if fact.value in TOWARDS and fact.end - fact.start >= 3:
            yield Happening(fact.start, fact.end, "camera", "camera", f"turns {TOWARDS[fact.value]}", clear=False)


def _unseen_passages(timeline: Timeline) -> Iterator[Happening]:
    """Where a thing comes into view, or goes out of it, and the way that it takes is not known."""
    cuts = [fact.start for fact in timeline.of_kind("cut")] + [one.start for one in timeline.settings]
    for subject in timeline.subjects:
        turns = [fact.start for fact in timeline.of_kind("turns") if subject.name in (fact.subject, fact.other)]
        for kind, what in (("enters", "comes into view"), ("leaves", "goes out of view")):
            facts = timeline.of_kind(kind, subject=subject.name)
            for stretch in subject.stretches:
                moment = stretch.start if kind == "enters" else stretch.end
                told = any(abs((fact.start if kind == "enters" else fact.end) - moment) <= 2 for fact in facts)
                cut = any(abs(other - moment) <= 2 for other in [*cuts, timeline.start, timeline.end])
                if not told and not cut and not any(abs(turn - moment) <= 3 for turn in turns):
                    yield Happening(moment - 2, moment + 2, kind, subject.name, what, clear=False)


def by_the_way(timeline: Timeline) -> Iterator[tuple[str, str, Fact]]:
    """(subject, direction, fact) of the movements that are a part of something else: who comes in moves, too."""
    unseen = list(_unseen_passages(timeline))
    for fact in timeline.of_kind("enters", "leaves", "paces", "moves"):
        ways = _WAYS[fact.kind].get(fact.value, ())
        if fact.kind == "moves" and _is_passage(fact, timeline, unseen):
            ways = (fact.value,)
        yield from ((fact.subject, way, fact) for way in ways)


def _is_passage(fact: Fact, timeline: Timeline, unseen: Sequence[Happening]) -> bool:
    """A movement that is the way in, the way out, or the way up to another thing: it is told as that."""
    known = timeline.of_kind("enters", "leaves", "reaches", subject=fact.subject)
    return any(
        -1 <= fact.start - start <= _PASSAGE
        if kind == "enters"
        else -1 <= end - fact.end <= (_PASSAGE if kind == "leaves" else 2)
        for kind, start, end in [(one.kind, one.start, one.end) for one in known]
        + [(one.kind, one.start, one.end) for one in unseen if one.subject == fact.subject]
    )


def tell(found: Sequence[Happening], introduced: Sequence[str] = ()) -> str:
    """A narrative of sentences, one for each run of one subject. `introduced`: names that were told of before."""
    known = set(introduced) | set(WHOLE)
    sentences: list[str] = []
    for subject, group in groupby(found, key=lambda one: one.subject):
        done = [_repeated(what, len(list(same))) for what, same in groupby(one.does for one in group)]
        opening = f"the {subject}" if subject in known else a(subject)
        for other in sorted({name for name in _names(done) if name not in known}):
            done = [text.replace(f"the {other}", a(other), 1) for text in done]
            known.add(other)
        known.add(subject)
        link = "then " if sentences and len(sentences) % 2 else ""
        sentences.append(sentence(f"{link}{opening} {listed(done)}"))
    return " ".join(sentences)


def _repeated(what: str, times: int) -> str:
    return what if times == 1 else f"{what} {'twice' if times == 2 else 'several times'}"


def _names(done: Sequence[str]) -> Iterator[str]:
    """The names of the others in `comes up against the red circle`."""
    for text in done:
        _, against, name = text.partition("comes up against the ")
        if against:
            yield name
