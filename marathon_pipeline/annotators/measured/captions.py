"""The six fields of a window's caption, written from its facts."""

from collections.abc import Iterator
from statistics import fmean

from marathon_pipeline.annotators.measured.story import TOWARDS, WHOLE, Happening, happenings, tell
from marathon_pipeline.annotators.measured.timeline import Subject, Timeline
from marathon_pipeline.annotators.measured.words import PLACES, a, listed, sentence
from marathon_pipeline.records import Fact

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
        return " ".join(parts) or "Nothing sets in or ends; the picture goes on as it is."
    return " ".join(parts) or "No known thing comes, goes or changes."


def _spatiality(timeline: Timeline) -> Iterator[str]:
    for setting in dict.fromkeys(setting.view for setting in timeline.settings):
        yield f"The view is {setting}."
    told: set[tuple[str, str]] = set()
    for fact in timeline.of_kind("rests"):
        if fact.value and (fact.subject, fact.value) not in told and timeline.subject(fact.subject):
            told.add((fact.subject, fact.value))
            yield sentence(f"the {fact.subject} is {place(fact)} for a while")
    for fact in timeline.of_kind("beside"):
        if (
            fact.value != "askew"
            and fact.end - fact.start >= 4
            and timeline.subject(fact.subject)
            and timeline.subject(fact.other)
        ):
            yield sentence(f"while both rest, the {fact.subject} is {fact.value} the {fact.other}")


def place(fact: Fact) -> str:
    column, row = fact.value.split(",")
    return PLACES[int(column), int(row)]


def _objects(timeline: Timeline) -> Iterator[str]:
    for subject in timeline.subjects:
        always = _is_always_there(subject, timeline)
        yield sentence(f"{a(subject.name)} is in view {'all the time' if always else 'for a part of the time'}")
    for colour in timeline.vague_colours:
        yield f"Something {colour} stands out for a part of the time."
    for name in sorted({fact.subject for fact in timeline.of_kind("several")}):
        yield f"More than one {name} is in view."


def _is_always_there(subject: Subject, timeline: Timeline) -> bool:
    return subject.seconds >= timeline.end - timeline.start - 1


def _action(timeline: Timeline, story: list[Happening]) -> str:
    acts = [one for one in story if one.subject not in WHOLE]
    idle = sorted({fact.subject for fact in timeline.of_kind("rests")} - {one.subject for one in acts})
    parts = [tell(acts)] if acts else []
    parts += [sentence(f"{a(name)} rests in its place") for name in idle if timeline.subject(name)]
    return " ".join(parts) or "No thing is seen to act."


def _scene(timeline: Timeline) -> Iterator[str]:
    settings = timeline.settings
    views = list(dict.fromkeys(setting.view for setting in settings))
    if views:
        told = [f"{views[0]} at first", *(f"later {view}" for view in views[1:])] if len(views) > 1 else views
        yield f"The view is {listed(told)}."
        light = fmean(setting.brightness for setting in settings)
        if light <= DARK or light >= BRIGHT:
            yield "It is dark." if light <= DARK else "It is bright."
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
        rest = ", and nothing else happens" if timeline.accounted(timeline.start, timeline.end) else ""
        return sentence(f"{opening}{listed(names)} {'is' if len(names) == 1 else 'are'} in view{rest}")
    return sentence(
        f"{opening}no single thing stands out" if opening else "the picture holds no single thing that stands out"
    )
