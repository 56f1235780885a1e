"""A video's events: where one ends and the next begins, their titles and captions, and the summary of them all."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from marathon_pipeline.annotators.measured.overlaps import Overlaps
from marathon_pipeline.annotators.measured.story import MOST_MOVEMENT, WHOLE, Happening, happenings, tell
from marathon_pipeline.annotators.measured.timeline import TELLING, Timeline
from marathon_pipeline.annotators.measured.words import a, listed, sentence
from marathon_pipeline.records import Span

SHORTEST = 15.0  # seconds
_LONG = 45.0  # seconds: what only comes, goes or is cut to parts no shorter events than these
_BORDER = 3.0  # seconds: a cut so near to an event's border, where one view fades into another, is the border
_MOST_DEEDS = 2  # in a title


def spans(timeline: Timeline) -> list[Span]:
    """Consecutive events that cover the video: cut where the setting changes, then where things come and go."""
    apart = max(SHORTEST, min(_LONG, (timeline.end - timeline.start) / 4))
    deeds = Overlaps(timeline.of_kind(*TELLING))
    borders: list[float] = []
    for rank, moments in enumerate(_borders(timeline)):
        for moment in moments:
            if rank and deeds.any(moment - 1.5, moment - 0.5):  # something goes on that has begun before
                continue
            known = [timeline.start, *borders, timeline.end]
            if all(abs(moment - other) >= (apart if rank else SHORTEST) for other in known):
                borders.append(moment)
    edges = [timeline.start, *sorted(borders), timeline.end]
    return [Span(start=start, end=end) for start, end in itertools.pairwise(edges)]


def _borders(timeline: Timeline) -> Iterator[list[float]]:
    """Moments at which an event may begin, the best kinds first."""
    yield [setting.start for setting in timeline.settings[1:]]
    visible = timeline.of_kind("visible")
    yield [one.start for one in visible if not timeline.anything_in_view(one.start - 2, one.start)]
    yield [fact.start for fact in timeline.of_kind("cut")]
    yield [fact.start for fact in timeline.of_kind("activity")]


class Theme(NamedTuple):
    """What most of an event is about: what its lead does, else what is in view."""

    lead: str
    deeds: tuple[str, ...]
    view: str
    there: tuple[str, ...]


def theme(timeline: Timeline, story: Sequence[Happening], span: Span) -> Theme:
    """`story`: what happens in the span."""
    acts = [one for one in story if one.subject not in WHOLE]
    if acts:
        subjects = [one.subject for one in acts]
        lead = max(dict.fromkeys(subjects), key=subjects.count)
        deeds = dict.fromkeys(one.does for one in acts if one.subject == lead)
        return Theme(lead, tuple(deeds)[:_MOST_DEEDS], "", ())
    names = (subject.name for subject in timeline.subjects)
    inside = span.start + _BORDER, span.end - _BORDER
    there = tuple(name for name in names if timeline.in_view(name, *inside))
    return Theme("", (), _view(timeline, span), there)


def title(timeline: Timeline, story: Sequence[Happening], span: Span) -> str:
    """The theme in words. `story`: what happens in the video."""
    lead, deeds, view, there = theme(timeline, within(story, span), span)
    if lead:
        return sentence(f"the {lead} {listed(deeds)}")[:-1]
    surroundings = f"a view that is {view}" if view else "changing views" if timeline.of_kind("cut") else "one view"
    return sentence(f"{surroundings}, with {listed([a(name) for name in there])}" if there else surroundings)[:-1]


def caption(timeline: Timeline, span: Span) -> str:
    """The event's narrative, in the order of what happens."""
    story = within(happenings(timeline), span)
    view = _view(timeline, span)
    told = [one for one in story if one.kind != "setting"]
    first = min((one.start for one in told), default=span.end)
    there = [
        subject.name
        for subject in timeline.subjects
        if timeline.in_view(subject.name, span.start + 1, min(first, span.start + 3))
    ]
    parts = []
    if view and there:
        parts.append(sentence(f"the view is {view}, and {listed([a(name) for name in there])} {_is(there)} in it"))
    elif view:
        parts.append(f"The view is {view}.")
    elif there:
        parts.append(sentence(f"{listed([a(name) for name in there])} {_is(there)} in view"))
    parts.append(tell(told, there) if told else _goings_on(timeline, span, bool(parts)))
    return " ".join(part for part in parts if part)


def _goings_on(timeline: Timeline, span: Span, introduced: bool) -> str:
    """What is to be said where no known thing does anything: that nothing happens only where that is sure."""
    inside = span.start + _BORDER, span.end - _BORDER
    cuts = sum(inside[0] < fact.start < inside[1] for fact in timeline.of_kind("cut"))
    if cuts > 1:
        return f"The picture cuts to another view {cuts} times."
    if timeline.accounted(span.start, span.end):
        return "Nothing else happens." if introduced else "Nothing is seen to happen."
    busy = {place: timeline.seconds_of("busy", place, span) for place in MOST_MOVEMENT}
    place = max(busy, key=lambda place: busy[place])
    if busy[place] >= 0.5 * (span.end - span.start):
        return f"There is movement, most of it {MOST_MOVEMENT[place]}."
    if timeline.seconds_of("activity", "lively", span) >= 0.5 * (span.end - span.start):
        return "There is lively movement in the picture."
    return "" if introduced else "No single thing stands out."


def summary(captions: Sequence[str]) -> str:
    """One narrative of all events' captions; what goes on as before is not told again."""
    captions = [text for text, _ in itertools.groupby(captions)]
    links = ("At first, ", "Then ", "After that, ", "Later, ", "Next, ")
    parts = []
    for index, text in enumerate(captions):
        link = links[0] if index == 0 else "In the end, " if index == len(captions) - 1 else links[1 + (index - 1) % 4]
        parts.append(link + text[:1].lower() + text[1:])
    return " ".join(parts)


def within(story: Sequence[Happening], span: Span) -> list[Happening]:
    return [one for one in story if span.start <= one.at < span.end]


def _view(timeline: Timeline, span: Span) -> str:
    """The setting of most of the event, if one covers it."""
    for setting in timeline.settings:
        if min(setting.end, span.end) - max(setting.start, span.start) >= 0.8 * (span.end - span.start):
            return setting.view
    return ""


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
