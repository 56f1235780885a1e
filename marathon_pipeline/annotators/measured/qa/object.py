"""Questions about things: what they look like, what they do to each other, when they are there."""

from collections.abc import Iterator, Mapping, Sequence

from marathon_pipeline.annotators.measured.qa.contacts import (
    effects,
    known_contacts,
    only_cause,
    other_effects,
    pairs_of,
    side_of,
)
from marathon_pipeline.annotators.measured.qa.material import CLEAR, NEAR, SHAPES, VIVID, Item, Material, around, cut_to
from marathon_pipeline.annotators.measured.qa.temporality import lasting
from marathon_pipeline.annotators.measured.story import FROM
from marathon_pipeline.annotators.measured.words import OPPOSITE, a, duration, sentence, times
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import Span


def object_recognition(material: Material) -> Iterator[Item]:
    """Which thing it is that does something. Who comes up against whom is `object_interaction`."""
    _needs_things(material)
    for one in material.deeds:
        done = one.does + one.which
        if one.kind in ("turns", "reaches") or not one.clear or len(material.done_by(one.does)) > 1:
            continue
        question = material.vary(done, f"What is it that {done}?", f"Which thing {done}?")
        names = [a(name) for name in material.away(one.start - NEAR, one.end + NEAR)]
        full = sentence(f"{a(one.subject)} {done}")
        yield Item(
            question,
            a(one.subject),
            names[:4],
            (one.span,),
            one.subject,
            full,
        )
    for setting in material.settings:
        views = [other.view for other in material.settings]
        thing = material.alone(setting.start + 2, setting.end - 2)
        if thing and views.count(setting.view) == 1:
            question = f"Which thing is there all the while that the view is {setting.view}?"
            names = [a(name) for name in material.away(setting.start, setting.end)]
            full = sentence(f"{a(thing.name)} is there")
            yield Item(
                question,
                a(thing.name),
                names[:4],
                (setting.span,),
                thing.name,
                full,
            )


def object_attribute(material: Material) -> Iterator[Item]:
    """The colour of what is known by its shape, and the shape of what is known by its colour."""
    _needs_things(material)
    for subject in material.subjects:
        for stretch in subject.stretches:
            if stretch.end - stretch.start < 8 or subject.shape == "thing":
                continue
            time = material.when(stretch.start, stretch.end, hush=subject.name)
            start, end = stretch.start, stretch.end
            if material.only_of(subject.name, start, end, shape=subject.shape):
                question = f"What colour is the {subject.shape} that is in view {time}?"
                wrong = [
                    c
                    for c in VIVID
                    if c != subject.colour and material.timeline.surely_away(f"{c} {subject.shape}", start, end)
                ]
                yield Item(
                    question,
                    subject.colour,
                    wrong,
                    (stretch,),
                    subject.name,
                    sentence(f"the {subject.shape} is {subject.colour}"),
                )
            if material.only_of(subject.name, start, end, colour=subject.colour):
                question = f"What shape has the {subject.colour} thing that is in view {time}?"
                right, wrong = (
                    f"the shape of {a(subject.shape)}",
                    [f"the shape of {a(s)}" for s in SHAPES if s != subject.shape],
                )
                yield Item(
                    question,
                    right,
                    wrong,
                    (stretch,),
                    subject.name,
                    sentence(f"it is {a(subject.shape)}"),
                )


def object_interaction(material: Material) -> Iterator[Item]:
    """What one thing does to another by coming up against it."""
    _needs_things(material)
    contacts = known_contacts(material)
    if not contacts:
        raise Filtered("no_contact", "no thing is seen to come up against another")
    pairs = pairs_of(material)
    for fact in contacts:
        one, other, span = fact.subject, fact.other, around(fact.start, 5, 6)
        if pairs.count((one, other)) > 1:
            continue
        for effect, said in effects(material, fact):
            question = material.vary(
                effect.start,
                f"What happens to the {other} when the {one} comes up against it?",
                f"How does the coming of the {one} act on the {other}, once the two meet?",
            )
            wrong = [f"it {done}" for done in other_effects(material, fact, said)]
            full = sentence(f"the {other} {said}, as soon as the {one} has come up against it")
            yield Item(
                question,
                f"it {said}",
                wrong,
                (span,),
                f"effect on {other}",
                full,
            )
        names = [f"the {name}" for name in material.away(fact.start - NEAR, fact.end + NEAR)][:4]
        for who, others, question in (
            (one, [pair[1] for pair in pairs if pair[1] == other], f"Which thing comes up against the {other}?"),
            (other, [pair[0] for pair in pairs if pair[0] == one], f"Against which thing does the {one} come up?"),
        ):
            if len(others) == 1:
                full = sentence(f"the {one} comes up against the {other}")
                yield Item(question, f"the {who}", names, (span,), who, full)
        side = side_of(material, fact)
        if side:
            full = sentence(f"the {one} comes up against it {FROM[side]}")
            question = f"From which side does the {one} come up against the {other}?"
            yield Item(question, FROM[side], (), (span,), f"side of {one}", full)
        if side and names and [pair[1] for pair in pairs].count(other) == 1:
            question = f"Which thing comes up against the {other}, and from which side?"
            right, *wrong = [
                f"{name}, {FROM[way]}" for name in (f"the {one}", names[0]) for way in (side, OPPOSITE[side])
            ]
            yield Item(question, right, wrong, (span,), f"side of {one}", full)


def object_reasoning(material: Material) -> Iterator[Item]:
    """What a thing becomes, and how it compares with the others, over the whole video."""
    _needs_things(material)
    timeline = material.timeline
    for subject in material.subjects:
        changes = [
            one for one in material.deeds if one.subject == subject.name and one.kind in ("grows", "shrinks", "turns")
        ]
        if len(changes) == 1:
            one = changes[0]
            question = material.vary(
                subject.name,
                f"What change does {subject.the} itself go through in the course of the video?",
                f"How does {subject.the} come to look different in the course of the video?",
            )
            whole_time = timeline.start, timeline.end
            sizes = [said for said in material.not_done(subject.name, *whole_time) if said in ("grows", "shrinks")]
            colours = [f"turns {colour}" for colour in material.other_colours(subject.name, *whole_time)]
            needed = 2 if one.kind == "turns" else 1
            wrong = [*sizes, *colours[: 3 - needed]] if len(sizes) == needed else []
            right, wrong = f"it {one.does}", [f"it {said}" for said in wrong]
            whole = tuple(cut_to(span, timeline) for span in (around(one.start, 6, 0), around(one.end, 0, 6)))
            yield Item(
                question,
                right,
                wrong,
                whole,
                subject.name,
                sentence(f"{subject.the} {one.does}"),
            )
    ranked = sorted(material.subjects, key=lambda subject: -subject.seconds)
    for place, subject in enumerate(ranked):
        shorter = [other.the for other in ranked[place + 1 :] if other.seconds * 1.5 <= subject.seconds]
        if place == 0 and len(shorter) == len(ranked) - 1 >= 1:
            full = sentence(f"{subject.the} is in view the longest, for {duration(subject.seconds)} in all")
            yield Item(
                "Which thing is in view for the longest time, all in all?",
                subject.the,
                shorter,
                subject.stretches,
                "longest",
                full,
            )
        elif len(shorter) >= 3:
            question = "Which of these things is in view for the longest time, all in all?"
            yield Item(
                question,
                subject.the,
                shorter,
                subject.stretches,
                "longest",
                closed=True,
            )
    for place, subject in enumerate(ranked):
        longer = [other.the for other in ranked[:place] if other.seconds >= 1.5 * subject.seconds]
        if place == len(ranked) - 1 and len(longer) == place >= 1:
            full = sentence(f"{subject.the} is in view the shortest, for {duration(subject.seconds)} in all")
            yield Item(
                "Which thing is in view for the shortest time, all in all?",
                subject.the,
                longer,
                subject.stretches,
                "shortest",
                full,
            )
    for fact in known_contacts(material):
        for effect, said in effects(material, fact):
            moved = "begins to move" if "move" in said else "changes its colour"
            if not only_cause(material, fact, effect):
                continue
            question = f"Which thing comes up against another one that {moved} at once?"
            others = [other.the for other in material.subjects if other.name not in (fact.subject, fact.other)]
            full = sentence(f"the {fact.subject}: as it comes up against the {fact.other}, that one {said}")
            yield Item(
                question,
                f"the {fact.subject}",
                others,
                (around(fact.start, 5, 6),),
                "cause",
                full,
            )


def object_existence(material: Material) -> Iterator[Item]:
    """Whether and how often a thing appears, and what never does."""
    _needs_things(material)
    timeline = material.timeline
    everything = (Span(start=timeline.start, end=timeline.end),)
    known = [subject for subject in material.subjects if material.fully_known(subject)]
    for subject in material.subjects:
        if subject in known:
            question = material.vary(
                subject.name,
                f"In how many separate stretches of time is {subject.the} in view?",
                f"How many separate times is {subject.the} to be seen?",
            )
            right = times(len(subject.stretches))
            full = sentence(f"{subject.the} is to be seen {right}")
            yield Item(question, right, (), subject.stretches, subject.name, full)
            question = f"Which of these things is to be seen {right}, in separate stretches of time?"
            others = [a(other.name) for other in known if len(other.stretches) != len(subject.stretches)]
            yield Item(question, a(subject.name), others, subject.stretches, subject.name, closed=True)
        question = f"Does {a(subject.name)} appear at any time in the video?"
        full = sentence(f"yes, {a(subject.name)} is in view for {duration(subject.seconds)} in all")
        yield Item(question, "yes", (), subject.stretches, f"{subject.name} appears", full)
        question = "Which of these things appears in the video?"
        yield Item(
            question,
            a(subject.name),
            [a(name) for name in _of_other_colours(subject.name, material.never)],
            subject.stretches,
            subject.name,
            closed=True,
        )
    for name in material.never[:4]:
        question = f"Does {a(name)} appear at any time in the video?"
        yield Item(question, "no", (), everything, name, sentence(f"no, {a(name)} never appears"))
        question = "Which of these things never appears in the video?"
        seen = [a(other) for other in _of_other_colours(name, [subject.name for subject in material.subjects])]
        yield Item(question, a(name), seen, everything, name, closed=True)


def _of_other_colours(name: str, names: Sequence[str]) -> list[str]:
    """One name of each colour but the first name's: what a video shows and what it does not differ alike in words."""
    by_colour = {other.split()[0]: other for other in names}
    return [other for colour, other in by_colour.items() if colour != name.split()[0]]


def object_permanence(material: Material) -> Iterator[Item]:
    """Following a thing through its absence."""
    _needs_things(material)
    timeline = material.timeline
    gaps = {
        subject.name: [
            gap
            for gap in timeline.absences(subject)
            if not any(material.blurred(subject.name, moment) for moment in (gap.start, gap.end))
        ]
        for subject in material.subjects
    }
    returning = [subject for subject in material.subjects if gaps[subject.name]]
    if not returning:
        raise Filtered("no_return", "no thing goes out of view and is surely seen again")
    yield from lasting(material, "gaps", _absences(material, gaps))
    for subject in returning:
        for gap in gaps[subject.name][:9]:
            which = material.which_gap(subject, gap)
            ends = _ends(gap)
            for fact in timeline.of_kind("enters", subject=subject.name):
                if abs(fact.start - gap.end) <= 2:
                    question = f"When {subject.the} comes back after its absence{which}, from which side does it come?"
                    yield Item(
                        question,
                        FROM[fact.value],
                        _other_sides(fact.value),
                        ends,
                        f"{subject.name} side",
                        sentence(f"it comes back {FROM[fact.value]}"),
                    )
            inside = [
                one
                for one in material.story
                if one.start > gap.start + CLEAR and one.end < gap.end - CLEAR and one.subject != subject.name
            ]
            for one in material.draw(("inside", gap.start), inside, 3):
                question = f"What happens while {subject.the} is out of view{which}, before it comes back?"
                others = material.elsewhere(gap.start - CLEAR, gap.end + CLEAR)
                false = [told for told in others if not told.startswith(f"{subject.the} ")]
                whole = (around(gap.start, 5, 2), one.span, around(gap.end, 2, 5))
                if len(inside) == 1:
                    yield Item(
                        question,
                        one.told,
                        false,
                        whole,
                        f"{subject.name} meanwhile",
                        sentence(one.told),
                    )
                else:
                    yield Item(
                        question,
                        one.told,
                        false,
                        whole,
                        f"{subject.name} meanwhile",
                        closed=True,
                    )
        gone = [other.the for other in material.subjects if len(other.stretches) == 1 and material.fully_known(other)]
        question = (
            "Which thing goes out of view and is seen again later?"
            if len(gone) == len(material.subjects) - 1
            else "Which of these things goes out of view and is seen again later?"
        )
        first = gaps[subject.name][0]
        full = sentence(f"{subject.the} goes out of view and is seen again after {duration(first.end - first.start)}")
        closed = len(returning) > 1 or question.startswith("Which of")
        yield Item(
            question,
            subject.the,
            gone,
            subject.stretches,
            f"{subject.name} returns",
            full,
            closed,
        )


def _absences(material: Material, gaps: Mapping[str, Sequence[Span]]) -> Iterator[tuple[float, Item]]:
    for subject in material.subjects:
        for gap in gaps[subject.name][:9]:
            which = material.which_gap(subject, gap)
            question = material.vary(
                gap.start,
                f"After {subject.the} has gone out of view{which}, how long does it take until it is seen again?",
                f"How long does {subject.the} stay out of view{which}, until it is back?",
            )
            said = duration(gap.end - gap.start)
            full = sentence(f"it is back after {said}")
            yield gap.end - gap.start, Item(question, said, (), _ends(gap), f"{subject.name} gap", full)


def _ends(gap: Span) -> tuple[Span, Span]:
    return around(gap.start, 5, 2), around(gap.end, 2, 5)


def _other_sides(side: str) -> tuple[str, ...]:
    return tuple(said for name, said in FROM.items() if name != side)


def _needs_things(material: Material) -> None:
    if not material.subjects:
        raise Filtered("no_things", "no thing can be told from the others by its look")
