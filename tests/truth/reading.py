"""Reading what is said: times, durations, places, names.

What is given away: times are measured to 1.5 s and said to 5 s; durations are said on a scale whose steps are up to a
third apart. A wrong option within these bounds counts as right.
"""

import re
from typing import NamedTuple

from truth.told import NAME, VIEW, Baseless, Told, Undecided, index_of

OFF = 1.5  # seconds that a measured time may be off
ROUNDED = 2.5  # seconds that a time may be off because it is said to 5 s
RATIO, SPREAD = 1.27, 2.5  # a duration said may be so many times the true one, or so many seconds off
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
PARTS = {None: 0, " and a quarter": 15, " and a half": 30, " and three quarters": 45}
CELLS = {
    "upper left": (0, 0), "top": (1, 0), "upper right": (2, 0), "left": (0, 1), "middle": (1, 1),
    "right": (2, 1), "lower left": (0, 2), "bottom": (1, 2), "lower right": (2, 2),
}  # fmt: skip
THIRDS = ("left", "middle", "right")
PICTURE = 16 / 9


class Said(NamedTuple):
    """An answer, and what else is offered; lower case, without the full stop."""

    text: str
    others: tuple[str, ...] = ()


def seconds_of(text: str) -> float:
    """A duration, or a time of the video, in seconds."""
    if "very start" in text:
        return 0.0
    if match := re.search(r"about a minute( and a quarter| and a half| and three quarters)?(?! \d)", text):
        return 60.0 + PARTS[match[1]]
    spelled = "|".join(NUMBERS)
    if match := re.search(rf"({spelled})( and a quarter| and a half| and three quarters)? minutes", text):
        return 60.0 * NUMBERS.index(match[1]) + PARTS[match[2]]
    minutes, rest = re.search(r"(\d+) minute", text), re.search(r"(\d+) second", text)
    if not minutes and not rest:
        raise Undecided(text)
    return 60.0 * int(minutes[1] if minutes else 0) + int(rest[1] if rest else 0)


def same_duration(text: str, true: float) -> bool:
    said = seconds_of(text)
    return abs(said - true) <= SPREAD or 1 / RATIO <= said / max(true, 0.1) <= RATIO


def nth(which: str | None) -> int | None:
    return None if which is None else index_of(which)


def one_of(found: list, which: str | None):  # type: ignore[no-untyped-def,type-arg]
    """The one meant; raises Baseless where there is none, or where it is not clear which."""
    index = nth(which)
    if (index is None and len(found) != 1) or (index is not None and index >= len(found)):
        raise Baseless(f"{len(found)} times, {which or 'the only'} one asked about")
    return found[index or 0]


def name_in(text: str) -> str:
    match = re.search(NAME, text)
    if not match:
        raise Undecided(text)
    return match[0]


def view_in(text: str) -> tuple[str, ...]:
    match = re.search(VIEW, text)
    if not match:
        raise Undecided(text)
    return match.groups()


def cell_in(text: str) -> tuple[int, int]:
    match = re.search(r"\b(upper left|upper right|lower left|lower right|top|bottom|left|right|middle)\b", text)
    if not match:
        raise Undecided(text)
    return CELLS[match[1]]


def when(told: Told, text: str) -> float:
    """The time of `about 20 seconds in`, or of `at the moment when ...`."""
    _, named, clause = text.partition("at the moment when ")
    return told.moment(clause) if named else seconds_of(text)


def clause_of(text: str, name: str) -> str:
    """`it grows`, `then the red circle grows`: the whole clause."""
    return f"the {name} " + re.sub(rf"^(then )?(it|the {name}) ", "", text)


def three_of(text: str) -> tuple[str, ...]:
    match = re.fullmatch(r"first (.+), then (.+), and last (.+)", text)
    if not match:
        raise Undecided(text)
    return match.groups()
