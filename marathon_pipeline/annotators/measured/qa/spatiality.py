"""Questions about where things are and which ways they take."""

from collections.abc import Iterator

from marathon_pipeline.annotators.measured.captions import lasting_relations
from marathon_pipeline.annotators.measured.qa.material import Item, Material, around, subject_facts
from marathon_pipeline.annotators.measured.story import MOST_MOVEMENT
from marathon_pipeline.annotators.measured.words import PLACES, about, sentence
from marathon_pipeline.records import Fact, Span

_SIDES = ("left", "right", "top", "bottom")
_SIDES_OF = {"left of": ("left of it", "right of it"), "above": ("above it", "below it")}


def spatial_perception(material: Material) -> Iterator[Item]:
    """In which part of the picture a thing is; on which side of another one."""
    for fact in _settled(material):
        time = material.when(fact.start, fact.end, hush=fact.subject)
        question = material.vary(
            (fact.subject, time),
            f"Where in the picture is the {fact.subject} {time}?",
            f"In which part of the picture can one see the {fact.subject} {time}?",
        )
        answer, wrong = _place(fact), _far_places(fact)
        full = sentence(f"the {fact.subject} is {answer} then")
        yield Item(question, answer, material.three(question, answer, wrong), (_cut(fact),), fact.subject, full)
    for fact in material.timeline.of_kind("busy"):
        if fact.end - fact.start >= 8:
            time = about((fact.start + fact.end) / 2)
            question = f"In which part of the picture is most of the movement {time}?"
            right = MOST_MOVEMENT[fact.value]
            others = (*(side for side in MOST_MOVEMENT.values() if side != right), "evenly all over")
            yield Item(question, right, others, (_cut(fact),), "movement", sentence(f"most of it is {right}"))
    for fact in lasting_relations(material.timeline):
        for who, whom, side in zip(
            (fact.subject, fact.other), (fact.other, fact.subject), _SIDES_OF[fact.value], strict=True
        ):
            question = f"Seen from the {whom}, on which side of it is the {who} while both stay in their places?"
            full = sentence(f"the {who} is {side.removesuffix(' it')} the {whom}")
            others = tuple(said for pair in _SIDES_OF.values() for said in pair if said != side)
            yield Item(question, side, others, (_cut(fact),), who, full)


def spatial_reasoning(material: Material) -> Iterator[Item]:
    """The way of a thing, put together from several moments."""
    for subject in material.subjects:
        for stretch in subject.stretches[:9]:
            came = _passage(material, "enters", subject.name, stretch.start)
            went = _passage(material, "leaves", subject.name, stretch.end)
            if came and went:
                which = material.which_stretch(subject, stretch)
                question = (
                    f"From which side of the picture does {subject.the} come in{which}, and over which does it go out?"
                )
                ways = [f"in from the {a}, out over the {b}" for a in _SIDES for b in _SIDES]
                right = f"in from the {came.value}, out over the {went.value}"
                full = sentence(f"it comes {right.replace(',', ' and goes')} side")
                yield Item(
                    question,
                    right,
                    material.three(question, right, ways),
                    (around(stretch.start), around(stretch.end)),
                    subject.name,
                    full,
                )
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
            ends = [[fact.value, *_far(fact)] for fact in (first, second)]
            wrong = material.three(question, right, [_from_to(a, b) for a in ends[0] for b in ends[1] if a != b])
            yield Item(
                question, right, wrong, (_cut(first), _cut(second)), first.subject, sentence(f"it has gone {right}")
            )


def _settled(material: Material) -> list[Fact]:
    """Places that a thing keeps to for long enough to be asked about by the clock."""
    return [fact for fact in subject_facts(material.timeline, "rests") if fact.value and fact.end - fact.start >= 8]


def _place(fact: Fact) -> str:
    column, row = fact.value.split(",")
    return PLACES[int(column), int(row)]


def _far_places(fact: Fact) -> list[str]:
    return [PLACES[int(cell[0]), int(cell[2])] for cell in _far(fact)]


def _far(fact: Fact) -> list[str]:
    """Cells that nobody takes for the fact's: two thirds away, or one in both directions."""
    column, row = map(int, fact.value.split(","))
    return [
        f"{x},{y}"
        for x, y in PLACES
        if abs(x - column) == 2 or abs(y - row) == 2 or (abs(x - column) == 1 and abs(y - row) == 1)
    ]


def _from_to(first: str, second: str) -> str:
    names = [
        PLACES[int(place[0]), int(place[2])].removeprefix("in ").removeprefix("on ").removeprefix("at ")
        for place in (first, second)
    ]
    return f"from {names[0]} to {names[1]}"


def _passage(material: Material, kind: str, name: str, moment: float) -> Fact | None:
    found = [
        fact
        for fact in material.timeline.of_kind(kind, subject=name)
        if min(abs(fact.start - moment), abs(fact.end - moment)) <= 2
    ]
    return found[0] if found else None


def _cut(fact: Fact) -> Span:
    return Span(start=fact.start, end=fact.end)
