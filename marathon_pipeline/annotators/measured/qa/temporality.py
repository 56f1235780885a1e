"""Questions about when, how long, and in which order."""

from collections.abc import Iterable, Iterator
from itertools import combinations, pairwise
from typing import NamedTuple

from marathon_pipeline.annotators.measured.overlaps import Overlaps
from marathon_pipeline.annotators.measured.qa.material import CLEAR, NEAR, Item, Material, around, orders
from marathon_pipeline.annotators.measured.story import Happening
from marathon_pipeline.annotators.measured.words import duration, factors_apart, ordinal, sentence, spoken, unlike
from marathon_pipeline.records import Span


def temporal_perception(material: Material) -> Iterator[Item]:
    """What happens next after, or last before, something."""
    for before, after in _neighbours(material):
        if after.at - before.end > 40:
            continue
        evidence = (before.span, after.span)
        start, end = before.start, after.end + NEAR
        if before.clear:
            question = material.vary(
                before.clause,
                f"What happens next after {before.clause}?",
                f"What is the next thing that comes about, after {before.clause}?",
            )
            yield Item(
                question,
                after.told,
                material.elsewhere(start, end),
                evidence,
                after.subject,
            )
        if after.clear:
            question = f"What is the last thing to happen before {after.clause}?"
            wrong = material.elsewhere(before.start - NEAR, after.end)
            yield Item(question, before.told, wrong, evidence, before.subject)


class Stay(NamedTuple):
    """What lasts for a time. asked, goes_on: as a question and as a statement tell it."""

    asked: str
    goes_on: str
    verb: str
    who: str
    span: Span

    @property
    def seconds(self) -> float:
        return self.span.end - self.span.start

    @property
    def ends(self) -> tuple[Span, ...]:
        return (around(self.span.start), around(self.span.end)) if self.seconds > 20 else (self.span,)


def duration_perception(material: Material) -> Iterator[Item]:
    """How long a thing stays, a view lasts, a deed takes; which of them takes so long."""
    stays = list(_stays(material))
    asked = [(stay.seconds, _how_long(material, stay)) for stay in stays]
    yield from lasting(material, "stays", asked) if len(asked) > 3 else _scaled(material, asked)
    for stay in stays:
        seconds = spoken(stay.seconds)
        others = [other.goes_on for other in stays if unlike(spoken(other.seconds), seconds)]
        question = f"Which of these goes on for {duration(seconds)}?"
        yield Item(question, stay.goes_on, others, stay.ends, stay.who, closed=True)


def _how_long(material: Material, stay: Stay) -> Item:
    question = f"{material.vary(stay.asked, 'How long', 'For how long')} {stay.asked}?"
    said = duration(stay.seconds)
    return Item(question, said, (), stay.ends, stay.who, sentence(f"it {stay.verb} for {said}"))


def _stays(material: Material) -> Iterator[Stay]:
    for subject in material.subjects:
        for index, stretch in enumerate(subject.stretches[:9]):
            if not any(material.blurred(subject.name, moment) for moment in (stretch.start, stretch.end)):
                which = f", the {ordinal(index)} time" if len(subject.stretches) > 1 else ""
                asked, goes_on = f"does {subject.the} stay in view{which}", f"{subject.the} stays in view{which}"
                yield Stay(asked, goes_on, "stays in view", subject.the, stretch)
    views = [setting.view for setting in material.settings]
    for setting in material.settings:
        if views.count(setting.view) == 1 and material.ends_clearly(setting):
            asked = f"does the view that is {setting.view} last"
            yield Stay(asked, f"the view is {setting.view}", "lasts", setting.view, setting.span)
    calm = [
        fact for fact in material.timeline.of_kind("activity") if fact.value == "calm" and fact.end - fact.start >= NEAR
    ]
    if len(calm) == 1 and not material.true_at.any(calm[0].start, calm[0].end):
        span = Span(start=calm[0].start, end=calm[0].end)
        yield Stay("does the picture stay calm at a stretch", "the picture stays calm", "stays calm", "calm", span)
    for one in material.deeds:
        if one.kind == "paces" and one.clear:
            infinitive = "go" + one.does.removeprefix("goes")
            asked = f"does the {one.subject} {infinitive}{one.which}"
            yield Stay(asked, one.clause, one.does, f"the {one.subject}", one.span)


def lasting(material: Material, salt: str, asked: Iterable[tuple[float, Item]]) -> Iterator[Item]:
    """Items whose answers are durations, with wrong options that are right in others of them.

    asked: with the seconds that are asked for.
    """
    known = list(asked)
    others = material.fours(salt, [spoken(seconds) for seconds, _ in known], unlike)
    for seconds, item in known:
        yield item._replace(wrong=[duration(other) for other in others.get(spoken(seconds), ())])


def _scaled(material: Material, asked: Iterable[tuple[float, Item]]) -> Iterator[Item]:
    """The same for a video of too few durations: the wrong ones are steps of the scale on which they are said."""
    for seconds, item in asked:
        rank = material.draw(("rank", item.question), range(4))[0]
        scale = [duration(step) for step in factors_apart(seconds, rank, material.timeline.end)]
        yield item._replace(wrong=[step for step in scale if step != item.answer])


def temporal_reasoning(material: Material) -> Iterator[Item]:
    """What somebody sees, or has missed, who watches a part only."""
    timeline = material.timeline
    length = timeline.end - timeline.start
    for before, after in _neighbours(material):
        if after.clear and after.at - before.end >= 5:
            question = (
                f"Someone begins to watch just before {after.onset}. What is the last thing that they have missed?"
            )
            wrong = material.elsewhere(before.start - NEAR, after.at)
            evidence = (before.span, around(after.at))
            yield Item(question, before.told, wrong, evidence, before.subject)
    for part, low, high in (("first", 0.0, 1 / 3), ("last", 2 / 3, 1.0), ("middle", 1 / 3, 2 / 3)):
        third = Span(start=timeline.start + low * length, end=timeline.start + high * length)
        missing = [f"the {name}" for name in _away_for_sure(material, third)]
        for subject in material.subjects:
            seen = sum(
                min(s.end, third.end) - max(s.start, third.start)
                for s in subject.stretches
                if s.start < third.end and s.end > third.start
            )
            question = f"Someone watches only the {part} third of the video. Which thing do they get to see?"
            if seen >= 8:
                yield Item(
                    question,
                    subject.the,
                    missing,
                    (third,),
                    f"{part} third",
                    closed=True,
                )
            if subject.name in _away_for_sure(material, third):
                question = f"Does someone who watches only the {part} third of the video get to see {subject.the}?"
                full = sentence(f"no, {subject.the} is in view at other times only")
                yield Item(question, "no", (), (third,), subject.the, full)


def _away_for_sure(material: Material, span: Span) -> list[str]:
    return [
        one.name for one in material.subjects if material.timeline.surely_away(one.name, span.start - 3, span.end + 3)
    ]


def temporal_gap_estimation(material: Material) -> Iterator[Item]:
    """How much time lies between two moments."""
    anchors = sorted(material.draw("anchors", material.anchors, 24), key=lambda one: one.at)
    pairs = [
        pair for pair in combinations(anchors, 2) if pair[1].at - pair[0].at >= 8 and pair[0].subject != pair[1].subject
    ]
    yield from lasting(material, "gaps", (_gap(material, *pair) for pair in material.draw("gaps", pairs, 24)))


def _gap(material: Material, before: Happening, after: Happening) -> tuple[float, Item]:
    question = material.vary(
        (before.clause, after.clause),
        f"How much time passes between the moment when {before.onset} and the moment when {after.onset}?",
        f"How long does it take from the moment when {before.onset} until {after.onset}?",
    )
    said = duration(after.at - before.at)
    full = f"{said[:1].upper()}{said[1:]} pass between the two moments."
    evidence = (around(before.at), around(after.at))
    return after.at - before.at, Item(question, said, (), evidence, f"{before.told} {after.told}", full)


def temporal_order(material: Material) -> Iterator[Item]:
    """In which order three things happen."""
    once = [one for one in material.anchors if not one.which] or material.anchors
    for chosen in material.draw("orders", _apart(once), 12):
        mixed = material.draw(("mixed", chosen[0].clause), [one.clause for one in chosen])
        clauses = [one.clause for one in chosen]
        question = material.vary(
            clauses,
            f"In which order do these things happen: {'; '.join(mixed)}?",
            f"Put these in the order of the video: {'; '.join(mixed)}.",
        )
        right, *wrong = orders(clauses)
        yield Item(
            question,
            right,
            wrong,
            tuple(one.span for one in chosen),
            chosen[0].subject,
        )


def _apart(story: list[Happening]) -> list[tuple[Happening, Happening, Happening]]:
    """Threes of happenings of which each is over before the next begins."""
    return [
        (a, b, c)
        for a, b, c in combinations(story[:40], 3)
        if b.start - a.end >= CLEAR
        and c.start - b.end >= CLEAR
        and (a.told, b.told, c.told).count(a.told) == 1
        and b.told != c.told
    ]


def _neighbours(material: Material) -> Iterator[tuple[Happening, Happening]]:
    """Two happenings in a row, clearly one after the other, with nothing else near the second one."""
    near = Overlaps(material.story)
    for before, after in pairwise(material.story):
        if (
            after.start - before.end >= CLEAR
            and all(one in (before, after) for one in near.within(before.at - CLEAR, after.at + CLEAR))
            and before.told != after.told
            and material.timeline.accounted(before.start, after.end)
        ):
            yield before, after
