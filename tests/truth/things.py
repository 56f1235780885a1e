"""Judging what things look like, do, and do to each other."""

import re
from itertools import pairwise

from truth.reading import NUMBERS, OFF, ROUNDED, Said, clause_of, name_in, one_of, same_duration, when
from truth.told import COLOURS, NAME, Baseless, Told, Undecided


def who(told: Told, said: Said, deed: str) -> bool:
    return bool(told.times(f"the {name_in(said.text)} {deed.split(',')[0]}", loosely=True))


def there_all_along(told: Told, said: Said, upper: str, lower: str) -> bool:
    time = one_of([time for look, time in told.views if look == (upper, lower)], None)
    return told.seen_throughout(name_in(said.text), time.start + OFF, time.end - OFF)


def coloured(told: Told, said: Said, shape: str, time: str) -> bool:
    colour = re.search(COLOURS, said.text)
    t = when(told, time)
    if not colour:
        raise Undecided(said.text)
    return told.seen(f"{colour[0]} {shape}", t - OFF, t + OFF)


def shaped(told: Told, said: Said, colour: str, time: str) -> bool:
    shape = re.search("circle|square|triangle|bar", said.text)
    t = when(told, time)
    if not shape:
        raise Undecided(said.text)
    return told.seen(f"{colour} {shape[0]}", t - OFF, t + OFF)


def effect(told: Told, said: Said, other: str, one: str) -> bool:
    """What the other does as the one comes up against it; loosely: for a few seconds afterwards."""
    met = told.once(f"the {one} comes up against the {other}").end
    text = re.sub(rf"^(it|the {other}) ", "", said.text).split(", as soon")[0]
    return any(abs(time.start - met) <= 2 * OFF for time in told.times(f"the {other} {text}", loosely=True))


def effect_of(told: Told, said: Said, one: str, other: str) -> bool:
    return effect(told, said, other, one)


def toucher(told: Told, said: Said, other: str) -> bool:
    return bool(told.times(f"the {name_in(said.text)} comes up against the {other}"))


def toucher_from(told: Told, said: Said, other: str) -> bool:
    return toucher(told, said, other) and met_from(told, said, name_in(said.text), other)


def touched(told: Told, said: Said, one: str) -> bool:
    return bool(told.times(f"the {one} comes up against the {re.findall(NAME, said.text)[-1]}"))


def met_from(told: Told, said: Said, one: str, other: str) -> bool:
    start = told.once(f"the {one} comes up against the {other}").start
    mine, its = told.place(one, start + 0.1), told.place(other, start + 0.1)
    assert mine and its
    return said.text.split()[-1] == ("left" if mine[0] < its[0] else "right")


def change(told: Told, said: Said, name: str) -> bool:
    return bool(told.times(clause_of(said.text, name)))


def longest(told: Told, said: Said, of_these: str) -> bool:
    return _most(told, said, bool(of_these), 1)


def shortest(told: Told, said: Said, of_these: str) -> bool:
    return _most(told, said, bool(of_these), -1)


def _most(told: Told, said: Said, of_these: bool, sign: int) -> bool:
    """By seconds in view; what is within a tenth of the most counts as the most."""
    name = name_in(said.text)
    own, names = told.total(name), [name_in(text) for text in said.others] if of_these else list(told.stretches)
    if not own:
        return False
    first = all(sign * (told.total(other) - own) <= 0.1 * own for other in names)
    return first and ("about" not in said.text or same_duration(said.text, own))


def cause(told: Told, said: Said, what: str) -> bool:
    """Who comes up against one that begins to move, or turns, at once."""
    name = name_in(said.text)
    kind = "moves" if "move" in what else "turns"
    for deed in told.deeds:
        if deed.kind == "touch" and deed.name == name:
            other = name_in(deed.does)
            if any(d.name == other and d.does.startswith(kind) and abs(d.start - deed.end) <= OFF for d in told.deeds):
                return True
    return False


def counted(told: Told, said: Said, name: str) -> bool:
    match = re.search(r"\b(once|twice|(\w+) times)$", said.text)
    if not match:
        raise Undecided(said.text)
    count = {"once": 1, "twice": 2}.get(match[1]) or NUMBERS.index(match[2])
    return count == len(told.stretches.get(name, ()))


def counted_so(told: Told, said: Said, count: str) -> bool:
    return counted(told, Said(count), name_in(said.text))


def appears(told: Told, said: Said, name: str) -> bool:
    right = said.text.startswith("yes") == (name in told.stretches)
    return right and ("about" not in said.text or same_duration(said.text, told.total(name)))


def one_appears(told: Told, said: Said) -> bool:
    return name_in(said.text) in told.stretches


def one_never_appears(told: Told, said: Said) -> bool:
    return not one_appears(told, said)


def gap_of(told: Told, name: str, which: str | None) -> tuple[float, float]:
    found = told.stretches.get(name, [])
    time = one_of([(a.end, b.start) for a, b in pairwise(found)], which)
    return time[0], time[1]


def away_for(told: Told, said: Said, name: str, which: str | None) -> bool:
    start, end = gap_of(told, name, which)
    return same_duration(said.text, end - start)


def back_from(told: Told, said: Said, name: str, which: str | None) -> bool:
    _, end = gap_of(told, name, which)
    came = told.times(f"the {name} comes in from the {said.text.split()[-1]}")
    return any(abs(time.start - end) <= OFF for time in came)


def meanwhile(told: Told, said: Said, name: str, which: str | None) -> bool:
    start, end = gap_of(told, name, which)
    found = told.times(said.text, loosely=True)
    return any(time.end > start - OFF and time.start < end + OFF for time in found)


def comes_back(told: Told, said: Said) -> bool:
    """It is the name that counts: `the red circle` is away while the thing is blue."""
    found = told.stretches.get(name_in(said.text), [])
    if len(found) < 2:
        return False
    if "about" not in said.text:
        return True
    return any(same_duration(said.text, b.start - a.end) for a, b in pairwise(found))


def does_at(told: Told, said: Said, name: str, time: str) -> bool:
    t = when(told, time)
    found = told.times(clause_of(said.text, name), loosely=True)
    return any(time.start < t + ROUNDED + OFF and time.end > t - ROUNDED - OFF for time in found)


def seen_then(told: Told, said: Said, time: str) -> bool:
    name = name_in(said.text)
    return does_at(told, Said(said.text.removeprefix(f"the {name} ")), name, time)


def own_next(told: Told, said: Said, name: str, clause: str) -> bool:
    """What the same thing does next."""
    begin = told.once(f"the {name} {clause}").start
    own = [time.start for time in told.times(clause_of(said.text, name), loosely=True) if time.start > begin + OFF]
    thing = told.bearer(name, begin + 0.1)
    rest = [d.start for d in told.deeds if d.start > begin + OFF and told.bearer(d.name, d.start) == thing]
    return bool(own) and own[0] <= min(rest, default=0) + OFF


def happens_as(told: Told, said: Said, other: str, deed: str) -> bool:
    """Who comes up against the other as that one begins to move, or turns."""
    names = re.findall(NAME, said.text)
    begun = [time.start for time in told.times(f"the {other} {deed}")]
    met = [time.end for time in told.times(f"the {names[0]} comes up against the {other}")]
    if not begun:
        raise Baseless("it never does so")
    return any(abs(a - b) <= OFF for a in begun for b in met)


def left_alone(told: Told, said: Said, clause: str) -> bool:
    t, name = told.moment(clause), name_in(said.text)
    there = {one for one in told.stretches if told.seen(one, t + OFF, t + 2 * OFF)}
    return there == {name}
