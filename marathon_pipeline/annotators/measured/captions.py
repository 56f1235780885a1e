"""The six fields of a window's caption, written from its facts."""

from collections.abc import Iterator

from marathon_pipeline.annotators.measured.story import TOWARDS, WHOLE, Happening, happenings, tell
from marathon_pipeline.annotators.measured.timeline import Subject, Timeline
from marathon_pipeline.annotators.measured.words import PLACES, a, listed, sentence
from marathon_pipeline.records import Fact

_KEPT = 4.0  # seconds that a relation lasts for it to be told
DARK, BRIGHT = 0.2, 0.62  # mean brightness up to, and from, which the light is told


def fields(timeline: Timeline) -> dict[str, str]:
    """temporality, spatiality, object, action, scene, summary. `timeline`: of one window."""
    story = happenings(timeline)
    return {
        "temporality": _temporality(timeline, story),
        "spatiality": " ".join(_spatiality(timeline)) or "Nothing has a settled place in the picture.",
        "object": " ".join(_objects(timeline)) or "No single thing stands out from its surroundings.",
        "action": _action(timeline, story),
        "scene": " ".join(_scene(timeline)) or "The surroundings change too much to be told in a few words.",
        "summary": _summary(timeline, story),
    }


def _temporality(timeline: Timeline, story: list[Happening]) -> str:
    cuts = len(timeline.of_kind("cut"))
    parts = [tell(story, [subject.name for subject in timeline.subjects])] if story else []
    if cuts:
        parts.append(f"The picture changes at once {'one time' if cuts == 1 else f'{cuts} times'}.")
    if timeline.accounted(timeline.start, timeline.end):
        still = "Nothing sets in or ends; the picture goes on as it is."
        return " ".join(parts) or (
            still if _is_one(timeline) else "For most of the time, the picture goes on as it is."
        )
    return " ".join(parts) or "No known thing comes, goes or changes."


def _is_one(timeline: Timeline) -> bool:
    """Whether what is in view, and the view, are there from the window's beginning to its end; no glimpse is."""
    facts = timeline.of_kind("setting", "visible", "glimpse")
    return all(fact.start <= timeline.start and fact.end >= timeline.end for fact in facts)


def _spatiality(timeline: Timeline) -> Iterator[str]:
    for setting in dict.fromkeys(setting.view for setting in timeline.settings):
        yield f"The view is {setting}."
    told: set[tuple[str, str]] = set()
    for fact in timeline.of_kind("rests"):
        if fact.value and (fact.subject, fact.value) not in told and timeline.subject(fact.subject):
            told.add((fact.subject, fact.value))
            yield sentence(f"the {fact.subject} is {place(fact)} for a while")
    for fact in lasting_relations(timeline):
        yield sentence(f"while both rest, the {fact.subject} is {fact.value} the {fact.other}")


def lasting_relations(timeline: Timeline) -> Iterator[Fact]:
    """How two known things lie to each other, where that is the same whenever both are at rest: its longest time."""
    pairs: dict[frozenset[str], list[Fact]] = {}
    for fact in timeline.of_kind("beside"):
        if timeline.subject(fact.subject) and timeline.subject(fact.other):
            pairs.setdefault(frozenset((fact.subject, fact.other)), []).append(fact)
    for facts in pairs.values():
        longest = max(facts, key=lambda fact: fact.end - fact.start)
        alike = len({(fact.subject, fact.value) for fact in facts}) == 1
        if alike and longest.value != "askew" and longest.end - longest.start >= _KEPT:
            yield longest


def place(fact: Fact) -> str:
    column, row = fact.value.split(",")
    return PLACES[int(column), int(row)]


def _objects(timeline: Timeline) -> Iterator[str]:
    for subject in timeline.subjects:
        yield sentence(f"{a(subject.name)} is in view {_how_long(subject, timeline)}")
    for colour in timeline.vague_colours:
        yield f"Something {colour} stands out for a part of the time."
    for name in sorted({fact.subject for fact in timeline.of_kind("several")}):
        yield f"More than one {name} is in view."


def _how_long(subject: Subject, timeline: Timeline) -> str:
    length = timeline.end - timeline.start
    if subject.seconds >= length:
        return "all the time"
    return "nearly all the time" if subject.seconds >= min(0.9 * length, length - 2) else "for a part of the time"


def _action(timeline: Timeline, story: list[Happening]) -> str:
    acts = [one for one in story if one.subject not in WHOLE]
    idle = sorted({fact.subject for fact in timeline.of_kind("rests")} - {one.subject for one in acts})
    parts = [tell(acts)] if acts else []
    parts += [sentence(f"{a(name)} rests in its place") for name in idle if timeline.subject(name)]
    return " ".join(parts) or f"No {'known ' if timeline.holds_nameless else ''}thing is seen to act."


def _scene(timeline: Timeline) -> Iterator[str]:
    settings = timeline.settings
    views = list(dict.fromkeys(setting.view for setting in settings))
    if views:
        told = [f"{views[0]} at first", *(f"later {view}" for view in views[1:])] if len(views) > 1 else views
        yield f"The view is {listed(told)}."
        if all(setting.brightness <= DARK for setting in settings):
            yield "It is dark."
        elif all(setting.brightness >= BRIGHT for setting in settings):
            yield "It is bright."
    if timeline.settled("calm"):
        yield "All is calm."
    elif timeline.settled("lively"):
        yield "There is lively movement in the picture."
    for fact in timeline.of_kind("camera"):
        if fact.value in TOWARDS:
            yield f"The camera turns {TOWARDS[fact.value]} for a time."


def _summary(timeline: Timeline, story: list[Happening]) -> str:
    views = list(dict.fromkeys(setting.view for setting in timeline.settings))
    opening = f"in a view that is {views[0]}, " if len(views) == 1 else ""
    acts = [one for one in story if one.subject != "camera"]
    if acts:
        text = tell(acts[:5])
        return sentence(opening + text[:1].lower() + text[1:-1])
    names = [a(subject.name) for subject in timeline.subjects]
    if names:
        still = timeline.accounted(timeline.start, timeline.end) and _is_one(timeline)
        rest = ", and nothing else happens" if still else ""
        return sentence(f"{opening}{listed(names)} {'is' if len(names) == 1 else 'are'} in view{rest}")
    if timeline.vague_colours:
        return sentence(f"{opening}something {timeline.vague_colours[0]} is in view")
    return sentence(
        f"{opening}no single thing stands out" if opening else "the picture holds no single thing that stands out"
    )
