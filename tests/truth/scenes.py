"""Judging views, events, and accounts of the whole."""

import re
from itertools import groupby, pairwise

from truth.account import fits, in_order, spans_of
from truth.reading import NUMBERS, OFF, ROUNDED, Said, one_of, same_duration, seconds_of, three_of, view_in, when
from truth.told import Baseless, Told, Undecided


def viewed(told: Told, said: Said, time: str) -> bool:
    return told.look(when(told, time)) == view_in(said.text)


def becomes(told: Told, said: Said, upper: str, lower: str) -> bool:
    looks = [look for look, _ in told.views]
    return view_in(said.text) == one_of([b for a, b in pairwise(looks) if a == (upper, lower)], None)


def was_before(told: Told, said: Said, upper: str, lower: str) -> bool:
    looks = [look for look, _ in told.views]
    return view_in(said.text) == one_of([a for a, b in pairwise(looks) if b == (upper, lower)], None)


def changes_at(told: Told, said: Said, *looks: str) -> bool:
    views = told.views
    found = [b[1].start for a, b in pairwise(views) if (*a[0], *b[0]) == looks]
    return abs(seconds_of(said.text) - one_of(found, None)) <= ROUNDED + OFF


def view_changes(told: Told, said: Said) -> bool:
    match = re.search(rf"\b({'|'.join(NUMBERS)}|\d+)\b", said.text)
    if not match:
        raise Undecided(said.text)
    count = int(match[1]) if match[1].isdigit() else NUMBERS.index(match[1])
    return count == len([look for look, _ in groupby(told.views, key=lambda view: view[0])]) - 1


def events_ordered(told: Told, said: Said) -> bool:
    """Whether there are stretches that the titles fit, each over before the next begins."""
    return in_order([spans_of(told, title) for title in three_of(said.text)])


def next_event(told: Told, said: Said, title: str) -> bool:
    """Whether it is the first of what is offered to come after the other, in the same place or the next one."""
    before = min(spans_of(told, title), key=lambda span: span.end, default=None)
    if before is None:
        raise Baseless(title)

    def first(text: str) -> float:
        starts = [span.start for span in spans_of(told, text) if span.start >= before.end - OFF]
        return min(starts, default=told.seconds + 1)

    own, script = first(said.text), told.script
    near = (
        own <= told.seconds and script.stay(min(own + OFF, told.seconds - 0.1)) - script.stay(before.start + OFF) <= 1
    )
    return near and all(own <= first(other) for other in said.others)


def main_event(told: Told, said: Said, start: str, end: str) -> bool:
    """Whether the title fits a stretch of that time."""
    low, high = seconds_of(start) - ROUNDED - OFF, seconds_of(end) + ROUNDED + OFF
    return any(low <= span.start and span.end <= high for span in spans_of(told, said.text))


def longest_event(told: Told, said: Said) -> bool:
    """By how long the view stays that the event is in; an event that is a part of that is not decided."""
    title, _, lasting = said.text.partition(": this takes ")
    stays = [told.script.stays[told.script.stay(min(s.start + OFF, told.seconds - 0.1))] for s in spans_of(told, title)]
    lengths = [stay.end - stay.start for stay in told.script.stays]
    if lasting and not any(same_duration(lasting, stay.end - stay.start) for stay in stays):
        raise Undecided("the event is a part of a stay")
    if any(stay.end - stay.start >= 0.9 * max(lengths) for stay in stays):
        return True
    if said.others or not stays:
        return False
    raise Undecided("the event may be more than a stay")


def account(told: Told, said: Said) -> bool:
    return fits(told, said.text)
