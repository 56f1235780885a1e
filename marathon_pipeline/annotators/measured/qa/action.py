"""Questions about what things do."""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

from marathon_pipeline.annotators.measured.qa.contacts import effects, known_contacts, other_effects, pairs_of
from marathon_pipeline.annotators.measured.qa.material import CLEAR, NEAR, Item, Material, around, orders
from marathon_pipeline.annotators.measured.qa.places import mirrored, said_of
from marathon_pipeline.annotators.measured.story import Happening
from marathon_pipeline.annotators.measured.words import about, sentence, to_five
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import Fact, Span

_ACTS = ("moves", "paces", "grows", "shrinks")
_ALIKE = (*_ACTS, "enters", "leaves")  # what each thing may do


def action_recognition(material: Material) -> Iterator[Item]:
    """What a thing does at a moment."""
    _needs_deeds(material)
    for one in material.deeds:
        if one.kind not in _ACTS or one.end - one.start < 4:
            continue
        time = about((one.start + one.end) / 2)
        question = material.vary(
            one.clause, f"What does the {one.subject} do {time}?", f"What is the {one.subject} seen to do {time}?"
        )
        full = sentence(one.told)
        yield Item(question, f"it {one.does}", (), (one.span,), one.subject, full)
        others = dict.fromkeys(material.elsewhere(one.start - NEAR, one.end + NEAR))
        wrong = [other.told for other in material.deeds if other.told in others]
        yield Item(f"Which of these is to be seen {time}?", one.told, wrong, (one.span,), one.subject, closed=True)


def action_localization(material: Material) -> Iterator[Item]:
    """How far into the video something is done."""
    _needs_deeds(material)
    yield from located(material, "deeds", [(one.at, _located(material, one)) for one in material.deeds if one.clear])


def _located(material: Material, one: Happening) -> Item:
    question = material.vary(
        one.clause,
        f"How far into the video is the moment when {one.onset}?",
        f"When in the video comes the moment when {one.onset}?",
    )
    right = about(one.at)
    return Item(question, right, (), (around(one.at),), one.subject, sentence(f"{one.onset} {right}"))


def located(material: Material, salt: str, asked: Sequence[tuple[float, Item]]) -> Iterator[Item]:
    """Items whose answers are times of the video, with wrong options that are right in others of them.

    asked: with the moment that is asked for.
    """
    length = material.timeline.end - material.timeline.start
    apart = max(20.0, 0.12 * length)
    others = material.fours(salt, [to_five(moment) for moment, _ in asked], lambda a, b: abs(a - b) >= apart)
    for moment, item in asked:
        yield item._replace(wrong=[about(other) for other in others.get(to_five(moment), ())])


def action_sequence(material: Material) -> Iterator[Item]:
    """The order in which one thing does several things."""
    _needs_deeds(material)
    for subject in material.subjects:
        own = [one for one in material.deeds if one.subject == subject.name]
        once = [one for one in own if not one.which and one.clear]
        threes = [three for three in combinations(once, 3) if all(b.start - a.end >= CLEAR for a, b in pairwise(three))]
        for three in material.draw(("threes", subject.name), threes, 3):
            mixed = material.draw(("mixed", three[0].clause), [one.does for one in three])
            question = material.vary(
                three,
                f"In which order does {subject.the} do these things: it {', it '.join(mixed)}?",
                f"{subject.the.capitalize()} does three things: it {', it '.join(mixed)}. In which order?",
            )
            right, *wrong = orders([f"it {one.does}" for one in three])
            yield Item(question, right, wrong, tuple(one.span for one in three), subject.name)
        for before, after in pairwise(own):
            if (
                before.clear
                and after.start - before.end >= CLEAR
                and before.told != after.told
                and _known_between(material, before, after)
            ):
                begun = before.onset.removeprefix(subject.the).strip()
                question = f"What does {subject.the} do next after the moment when it {begun}?"
                then = before.start, after.end + NEAR
                done = [one.does for one in material.deeds if one.kind in _ALIKE or one.subject == subject.name]
                others = [does for does in done if not material.happens(f"{subject.the} {does}", *then)]
                wrong = [f"it {does}" for does in (*others, *material.not_done(subject.name, *then))]
                right = f"it {after.does}"
                yield Item(
                    question,
                    right,
                    wrong,
                    (before.span, after.span),
                    subject.name,
                    sentence(f"then {subject.the} {after.does}"),
                )


def _known_between(material: Material, before: Happening, after: Happening) -> bool:
    """Whether the subject is in view, or surely away, from the one to the other."""
    stretches = (span for one in material.subjects if one.name == before.subject for span in one.stretches)
    held = any(span.start <= before.end and span.end >= after.start for span in stretches)
    gap = Span(start=before.end, end=after.start)
    if not material.timeline.accounted(before.start, after.end):
        return False
    return held or (gap.end - gap.start > 2 * CLEAR and material.timeline.surely_gone(before.subject, gap))


def action_reasoning(material: Material) -> Iterator[Item]:
    """What something that is done leads to, and what leads to it."""
    _needs_deeds(material)
    contacts = known_contacts(material)
    pairs = pairs_of(material)
    once = {one.onset for one in material.anchors if not one.which}
    for contact in contacts:
        one, other = contact.subject, contact.other
        if pairs.count((one, other)) > 1:
            continue
        for _, said in effects(material, contact):
            span = around(contact.start, 6, 6)
            question = f"What follows at once when the {one} comes up against the {other}?"
            wrong = [f"the {other} {effect}" for effect in other_effects(material, contact, said)]
            right = f"the {other} {said}"
            yield Item(question, right, wrong, (span,), other, sentence(right))
            if f"the {other} {said}" not in once:
                continue
            question = f"What happens just as the {other} {said}?"
            away = material.away(contact.start - NEAR, contact.end + NEAR)
            wrong = [f"the {name} comes up against it" for name in away[:4]]
            right = f"the {one} comes up against it"
            yield Item(
                question,
                right,
                wrong,
                (span,),
                one,
                sentence(f"the {one} comes up against the {other}"),
            )
    for done in material.deeds:
        place = _place_after(material, done)
        if done.kind in ("moves", "paces", "enters") and done.clear and place:
            question = f"Where in the picture does it bring the {done.subject} that it {done.does}{done.which}?"
            right = said_of(place.value)
            span = Span(start=done.start, end=min(place.end, done.end + NEAR))
            yield Item(
                question,
                right,
                [said_of(corner) for (corner,) in mirrored(place.value)],
                (span,),
                done.subject,
                sentence(f"after that, the {done.subject} is {right}"),
            )
        if done.kind == "leaves" and done.clear:
            left = material.alone(done.end + 1.5, done.end + 4)
            if left and left.name != done.subject:
                question = f"Once {done.onset}, what is left in the picture?"
                wrong = [f"only the {name}" for name in material.away(done.end + 1, done.end + 6)][:4]
                right = f"only {left.the}"
                yield Item(
                    question,
                    right,
                    wrong,
                    (around(done.end, 4, 6),),
                    left.name,
                    sentence(f"{right} is left"),
                )


def _place_after(material: Material, done: Happening) -> Fact | None:
    """Where the subject keeps to when it has come to rest after the deed."""
    for rest in material.timeline.of_kind("rests", subject=done.subject):
        if rest.value and -1 <= rest.start - done.end <= 6 and rest.start >= done.start:
            return rest
    return None


def _needs_deeds(material: Material) -> None:
    if not material.deeds:
        raise Filtered("no_action", "no single thing is seen to act")
