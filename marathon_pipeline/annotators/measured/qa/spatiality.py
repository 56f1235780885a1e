"""Questions about where things are and which ways they take."""

from collections.abc import Iterator

from marathon_pipeline.annotators.measured.captions import lasting_relations
from marathon_pipeline.annotators.measured.qa.material import NEAR, Item, Material, around, subject_facts
from marathon_pipeline.annotators.measured.qa.places import far, mirrored, said_of
from marathon_pipeline.annotators.measured.story import FROM, MOST_MOVEMENT, OUT
from marathon_pipeline.annotators.measured.timeline import Subject
from marathon_pipeline.annotators.measured.words import OPPOSITE_SIDE, about, sentence
from marathon_pipeline.records import Fact, Span

_SIDES_OF = {"left of": ("left of it", "right of it"), "above": ("above it", "below it")}


def spatial_perception(material: Material) -> Iterator[Item]:
    """In which part of the picture a thing is, and which thing is there; on which side of another one."""
    settled = _settled(material)
    for fact in settled:
        time = material.when(fact.start, fact.end, hush=fact.subject)
        question = material.vary(
            (fact.subject, time),
            f"Where in the picture is the {fact.subject} {time}?",
            f"In which part of the picture can one see the {fact.subject} {time}?",
        )
        place = said_of(fact.value)
        full = sentence(f"the {fact.subject} is {place} then")
        wrong = [said_of(corner) for (corner,) in mirrored(fact.value)]
        yield Item(question, place, wrong, (_cut(fact),), fact.subject, full)
        others = [
            one.subject
            for one in settled
            if one.start <= fact.start and one.end >= fact.end and far(one.value, fact.value)
        ]
        names = [f"the {name}" for name in (*others, *material.away(fact.start, fact.end))]
        question = f"Which of these things is {place} {time}?"
        yield Item(question, f"the {fact.subject}", names[:4], (_cut(fact),), fact.value, closed=True)
    for fact in material.timeline.of_kind("busy"):
        if fact.end - fact.start >= 8:
            time = about((fact.start + fact.end) / 2)
            question = f"In which part of the picture is most of the movement {time}?"
            right = MOST_MOVEMENT[fact.value]
            wrong = [*(side for side in MOST_MOVEMENT.values() if side != right), "evenly all over"]
            yield Item(question, right, wrong, (_cut(fact),), "movement", sentence(f"most of it is {right}"))
    for fact in lasting_relations(material.timeline):
        for who, whom, side in zip(
            (fact.subject, fact.other), (fact.other, fact.subject), _SIDES_OF[fact.value], strict=True
        ):
            question = f"Seen from the {whom}, on which side of it is the {who} while both stay in their places?"
            relation = side.removesuffix(" it")
            full = sentence(f"the {who} is {relation} the {whom}")
            yield Item(question, side, (), (_cut(fact),), who, full)
            question = f"Which of these things is the {who} {relation}, while both stay in their places?"
            apart = [f"the {name}" for name in material.never_with(who)][:4]
            yield Item(question, f"the {whom}", apart, (_cut(fact),), who, closed=True)


def spatial_reasoning(material: Material) -> Iterator[Item]:
    """The way of a thing, put together from several moments."""
    passages = [
        (subject, stretch, came.value, went.value)
        for subject in material.subjects
        for stretch in subject.stretches[:9]
        for came in _passages(material, "enters", subject.name, stretch.start)[:1]
        for went in _passages(material, "leaves", subject.name, stretch.end)[:1]
    ]
    for subject, stretch, came, went in passages:
        ends = around(stretch.start), around(stretch.end)
        which = material.which_stretch(subject, stretch)
        question = f"From which side of the picture does {subject.the} come in{which}, and over which does it go out?"
        right = _in_and_out(came, went)
        full = sentence(f"it comes {right.replace(',', ' and goes')} side")
        yield Item(question, right, _other_ways(came, went), ends, subject.name, full)
        others = [one.the for one in material.subjects if not _may_take(material, one, came, went)]
        question = f"Which of these things comes in {FROM[came]}, and next goes out {OUT[went]}?"
        yield Item(question, subject.the, others, ends, subject.the, closed=True)
    settled = _settled(material)
    for first in settled:
        later = [
            fact
            for fact in settled
            if fact.subject == first.subject and fact.start > first.end and fact.value != first.value
        ]
        for second in material.draw(("later", first.start), later, 2):
            times = [about((fact.start + fact.end) / 2) for fact in (first, second)]
            question = f"How has the place of the {first.subject} in the picture changed from {times[0]} to {times[1]}?"
            right = _from_to(first.value, second.value)
            wrong = [_from_to(*places) for places in mirrored(first.value, second.value)]
            yield Item(
                question, right, wrong, (_cut(first), _cut(second)), first.subject, sentence(f"it has gone {right}")
            )


def _settled(material: Material) -> list[Fact]:
    """Places that a thing keeps to for long enough to be asked about by the clock."""
    return [fact for fact in subject_facts(material.timeline, "rests") if fact.value and fact.end - fact.start >= 8]


def _in_and_out(came: str, went: str) -> str:
    return f"in from the {came}, out over the {went}"


def _other_ways(came: str, went: str) -> list[str]:
    """The same way in the three mirrors; none where it leads in and out along one axis."""
    if went in (came, OPPOSITE_SIDE[came]):
        return []
    ways = [(a, b) for a in (came, OPPOSITE_SIDE[came]) for b in (went, OPPOSITE_SIDE[went])]
    return [_in_and_out(*way) for way in ways[1:]]


def _may_take(material: Material, subject: Subject, came: str, went: str) -> bool:
    """Whether it comes in and goes out so, as far as is known."""
    return any(
        material.happens(f"{subject.the} comes in {FROM[came]}", stretch.start - NEAR, stretch.start + NEAR)
        and material.happens(f"{subject.the} goes out {OUT[went]}", stretch.end - NEAR, stretch.end + NEAR)
        for stretch in subject.stretches
    )


def _from_to(first: str, second: str) -> str:
    names = [said_of(place).removeprefix("in ").removeprefix("on ").removeprefix("at ") for place in (first, second)]
    return f"from {names[0]} to {names[1]}"


def _passages(material: Material, kind: str, name: str, moment: float) -> list[Fact]:
    return [
        fact
        for fact in material.timeline.of_kind(kind, subject=name)
        if min(abs(fact.start - moment), abs(fact.end - moment)) <= 2
    ]


def _cut(fact: Fact) -> Span:
    return Span(start=fact.start, end=fact.end)
