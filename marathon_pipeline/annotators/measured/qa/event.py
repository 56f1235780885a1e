"""Questions about the video's events, and its summary."""

from collections.abc import Iterator
from itertools import combinations, pairwise

from marathon_pipeline.annotators.measured.events import Theme, theme, within
from marathon_pipeline.annotators.measured.qa.material import CLEAR, Item, Material, orders
from marathon_pipeline.annotators.measured.words import duration, sentence, stretch
from marathon_pipeline.errors import Filtered
from marathon_pipeline.records import Event, Span

_AT_A_GO = 120.0  # seconds: what is further apart is not told in one title


def event_sequence(material: Material) -> Iterator[Item]:
    """The order of the events."""
    events = _named(material, 3)
    for three in material.draw("events", list(combinations(events, 3)), 8):
        titles = [_lower(event.title) for event in three]
        mixed = material.draw(("mixed", three[0].event_id), titles)
        question = f"In which order do these events come: {'; '.join(mixed)}?"
        right, *wrong = orders(titles)
        yield Item(question, right, wrong, tuple(map(_span, three)), three[0].event_id)
    for before, after in pairwise(events):
        if material.events.index(after) - material.events.index(before) == 1:
            question = f"Which event follows upon this one: {_lower(before.title)}?"
            right, wrong = (
                _lower(after.title),
                [_lower(event.title) for event in events if event not in (before, after)],
            )
            yield Item(question, right, wrong, (_span(before), _span(after)), after.event_id)


def key_event_extraction(material: Material) -> Iterator[Item]:
    """What the main event of a part is; which event takes up the most time."""
    events = _named(material, 3)
    if not all(material.timeline.accounted(event.start, event.end) for event in material.events):
        raise Filtered("unaccounted", "more moves in the video than can be told: what matters most is not known")
    themes = {event.event_id: _theme(material, event) for event in material.events}
    for event in events:
        question = material.vary(
            event.event_id,
            f"What is the main event of the time {stretch(event.start, event.end)}?",
            f"What mainly happens in the time {stretch(event.start, event.end)}?",
        )
        right = _lower(event.title)
        wrong = [
            _lower(other.title)
            for other in material.events
            if not _fits(material, themes[other.event_id], _span(event))
        ]
        yield Item(question, right, wrong, (_span(event),), event.event_id)
    ranked = sorted(events, key=lambda event: event.start - event.end)
    longest = ranked[0]
    if longest.end - longest.start >= 1.3 * max(
        event.end - event.start for event in material.events if event is not longest
    ):
        question = "Which event takes up the most time?"
        right, wrong = _lower(longest.title), [_lower(event.title) for event in ranked[1:]]
        full = sentence(f"{right}: this takes {duration(longest.end - longest.start)}")
        yield Item(question, right, wrong, (_span(longest),), "longest", full)


def overall_summarization(material: Material) -> Iterator[Item]:
    """The summary itself."""
    if not material.timeline.accounted(material.timeline.start, material.timeline.end):
        raise Filtered("unaccounted", "more moves in the video than can be told: this is no account of all of it")
    question = material.vary(
        "summary",
        "What happens in this video, from beginning to end?",
        "Tell what this video shows, from its beginning to its end.",
        "Give an account of the whole video.",
    )
    whole = Span(start=material.timeline.start, end=material.timeline.end)
    yield Item(question, material.summary.text, (), (whole,), "all", material.summary.text)


def _named(material: Material, least: int) -> list[Event]:
    """The events whose titles fit nothing else in the video."""
    events = []
    for event in material.events:
        before = Span(start=material.timeline.start, end=event.start)
        after = Span(start=event.end, end=material.timeline.end)
        about = _theme(material, event)
        if not any(_fits(material, about, span) for span in (before, after)):
            events.append(event)
    if len(events) < least:
        raise Filtered("too_few_events", f"{len(events)} events can be told apart by what happens in them")
    return events


def _theme(material: Material, event: Event) -> Theme:
    return theme(material.timeline, within(material.story, _span(event)), _span(event))


def _fits(material: Material, about: Theme, span: Span) -> bool:
    """Whether the title of an event of this theme could be told of a part of this stretch, too."""
    lead, deeds, view, there = about
    if not lead:
        parts = [
            Span(start=max(one.start, span.start), end=min(one.end, span.end))
            for one in material.settings
            if one.view == view or not view
        ]
        return any(
            part.end - part.start >= CLEAR
            and all(material.timeline.in_view(name, part.start, part.end) for name in there)
            for part in parts
        )
    times = [
        [one.start for one in material.true_of.get(f"the {lead} {deed}", ()) if _overlap(one.start, one.end, span)]
        for deed in deeds
    ]
    return any(all(any(abs(time - first) <= _AT_A_GO for time in later) for later in times) for first in times[0])


def _overlap(start: float, end: float, span: Span) -> bool:
    return start < span.end and end > span.start


def _span(event: Event) -> Span:
    return Span(start=event.start, end=event.end)


def _lower(title: str) -> str:
    return title[:1].lower() + title[1:]
