"""Judging when, how long, in which order, and where."""

import re
from itertools import pairwise

from truth.reading import (
    OFF,
    PICTURE,
    ROUNDED,
    THIRDS,
    Said,
    cell_in,
    name_in,
    one_of,
    same_duration,
    seconds_of,
    three_of,
    when,
)
from truth.told import LATE, NAME, VIEW, Baseless, Time, Told, Undecided


def follows(told: Told, said: Said, clause: str) -> bool:
    """Whether it is what begins first after the other is over."""
    before = told.once(clause)
    over = before.end - 2 * OFF
    own = [time.start for time in told.times(said.text, loosely=True) if time.start >= max(over, before.start + LATE)]
    rest = [time.start for time in told.starts if time.start >= over and time.start > before.start + OFF]
    return bool(own) and own[0] <= min(rest, default=0) + 2 * OFF


def precedes(told: Told, said: Said, clause: str) -> bool:
    """Whether it is what begins last before the other does."""
    begin = told.once(clause).start - 0.5
    own = [time.start for time in told.times(said.text, loosely=True) if time.start < begin]
    rest = [time.start for time in told.starts if time.start < begin]
    return bool(own) and own[-1] >= max(rest) - 2 * OFF


def in_view_for(told: Told, said: Said, name: str, which: str | None) -> bool:
    time = one_of(told.stretches.get(name, []), which)
    return same_duration(said.text, time.end - time.start)


def view_lasts(told: Told, said: Said, upper: str, lower: str) -> bool:
    time = one_of([time for look, time in told.views if look == (upper, lower)], None)
    return same_duration(said.text, time.end - time.start)


def deed_lasts(told: Told, said: Said, name: str, deed: str) -> bool:
    time = told.once(f"the {name} {deed.replace('go', 'goes', 1)}")
    return same_duration(said.text, time.end - time.start)


def goes_on_for(told: Told, said: Said, length: str) -> bool:
    """Whether what is said to go on does so for that time, at any time that is meant."""
    if match := re.fullmatch(rf"the ({NAME}) stays in view(?:, the (\w+) time)?", said.text):
        return in_view_for(told, Said(length), *match.groups())
    if match := re.fullmatch(rf"the view is {VIEW}", said.text):
        return view_lasts(told, Said(length), *match.groups())
    if said.text == "the picture stays calm":
        return calm_for(told, Said(length))
    time = told.once(said.text)
    return same_duration(length, time.end - time.start)


def calm_for(told: Told, said: Said) -> bool:
    """The longest time in which nothing happens at all."""
    ends = [0.0, *(time.end for time in told.starts)]
    starts = [*(time.start for time in told.starts), told.seconds]
    return same_duration(said.text, max(b - a for a, b in zip(ends, starts, strict=True)))


def part_of(told: Told, part: str) -> tuple[float, float]:
    low = ("first", "middle", "last").index(part) * told.seconds / 3
    return low + OFF, low + told.seconds / 3 - OFF


def seen_in_part(told: Told, said: Said, part: str) -> bool:
    return told.seen(name_in(said.text), *part_of(told, part))


def part_shows(told: Told, said: Said, part: str, name: str) -> bool:
    return said.text.startswith("yes") == told.seen(name, *part_of(told, part))


def gap(told: Told, said: Said, first: str, second: str) -> bool:
    return same_duration(said.text, told.moment(second) - told.moment(first))


def ordered(told: Told, said: Said, subject: str = "") -> bool:
    """Whether the three come in this order; each is known by a clause that fits one time only."""
    parts = three_of(said.text)
    times = [told.once(re.sub(r"^it ", f"{subject.lower()} ", part)) for part in parts]
    return all(a.start < b.start for a, b in pairwise(times))


def located(told: Told, said: Said, clause: str) -> bool:
    return abs(seconds_of(said.text) - told.moment(clause)) <= ROUNDED + OFF


def located_in_full(told: Told, said: Said, clause: str) -> bool:
    """`The red circle grows about 20 seconds in`: the time stands at the end."""
    time = re.search(r"(at the very start|about [^,]* in)$", said.text)
    if not time:
        raise Undecided(said.text)
    return located(told, Said(time[0]), clause)


def at_place(told: Told, said: Said, name: str, time: str) -> bool:
    t, cell = when(told, time), cell_in(said.text.replace(name, ""))
    places = [told.place(name, t + shift) for shift in (-OFF, 0, OFF)]
    return any(place and in_cell(place, cell) for place in places)


def is_there(told: Told, said: Said, place: str, time: str) -> bool:
    return at_place(told, Said(place), name_in(said.text), time)


def in_cell(place: tuple[float, float], cell: tuple[int, int]) -> bool:
    return all(index / 3 - 0.01 <= value <= (index + 1) / 3 + 0.01 for value, index in zip(place, cell, strict=True))


def busiest(told: Told, said: Said, time: str) -> bool:
    """By the thirds that hold the parts of what moves then: all its breadth, or its sides where it goes sideways."""
    t, held = when(told, time), dict.fromkeys(THIRDS, 0)
    for step in range(-5, 6):
        for thing in told.script.things:
            action, box = told.script.action(thing.id, t + step / 2), told.script.box(thing.id, t + step / 2)
            if action and box and action.kind != "rest":
                sideways = abs(action.target[0] - action.origin[0]) > abs(action.target[1] - action.origin[1])
                shares = (0, 0, 0, 1, 1, 1) if sideways else (0, 0.2, 0.4, 0.6, 0.8, 1)
                for x in (box[0] + share * (box[2] - box[0]) for share in shares):
                    if 0 <= x < 1:
                        held[THIRDS[int(x * 3)]] += 1
    most, second, _ = sorted(held.values(), reverse=True)
    if second > 0.8 * most:
        raise Undecided("two thirds hold as much")
    word = next((third for third in THIRDS if third in said.text), "")
    return bool(word) and held[word] == most


def on_side(told: Told, said: Said, whom: str, name: str) -> bool:
    """Whether it holds all the while that both rest."""
    text = said.text.replace(name, "").replace(whom, "")
    word = next((word for word in ("left", "right", "above", "below") if word in text), None)
    found = _sides(told, name, whom)
    if not found:
        raise Baseless("they never rest at the same time")
    return found == {word}


def beside(told: Told, said: Said, name: str, side: str) -> bool:
    """Whether the two ever rest at the same time, and it holds all that while."""
    return _sides(told, name, name_in(said.text)) == {side.split()[0]}


def _sides(told: Told, name: str, whom: str) -> set[str]:
    """Where the one is, seen from the other, while both rest."""
    found = set()
    for time in told.stretches.get(name, ()):
        for step in range(int(time.start * 2), int(time.end * 2) + 1):
            t = step / 2
            if all(told.rests(one, t + shift) for one in (name, whom) for shift in (-2, 0, 2)):
                one, other = told.place(name, t), told.place(whom, t)
                assert one and other
                across, down = (one[0] - other[0]) * PICTURE, one[1] - other[1]
                sideways = abs(across) > abs(down)
                found.add(("left" if across < 0 else "right") if sideways else ("above" if down < 0 else "below"))
    return found


def in_and_out(told: Told, said: Said, name: str, which: str | None) -> bool:
    time = one_of(told.stretches.get(name, []), which)
    match = re.search(r"in from the (\w+),? .*over the (\w+)", said.text)
    if not match:
        raise Undecided(said.text)
    return _passes(told, name, time, match[1], f"{'at' if match[2] in ('top', 'bottom') else 'to'} the {match[2]}")


def _passes(told: Told, name: str, time: Time, side: str, out: str) -> bool:
    came, went = told.times(f"the {name} comes in from the {side}"), told.times(f"the {name} goes out {out}")
    return any(abs(t.start - time.start) <= OFF for t in came) and any(abs(t.end - time.end) <= OFF for t in went)


def passes(told: Told, said: Said, side: str, out: str) -> bool:
    name = name_in(said.text)
    return any(_passes(told, name, time, side, out) for time in told.stretches.get(name, ()))


def shifted(told: Told, said: Said, name: str, before: str, after: str) -> bool:
    match = re.search(r"from (.+) to (.+)", said.text)
    if not match:
        raise Undecided(said.text)
    return at_place(told, Said(match[1]), name, before) and at_place(told, Said(match[2]), name, after)


def brought_to(told: Told, said: Said, name: str, clause: str) -> bool:
    end = told.once(f"the {name} {clause}").end
    place, cell = told.place(name, end + 0.1), cell_in(said.text.replace(name, ""))
    if not place:
        raise Baseless("it is gone then")
    return in_cell(place, cell)
