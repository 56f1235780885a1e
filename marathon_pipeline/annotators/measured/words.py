"""How the offline annotator says things: names, places, times and durations in plain English.

Numbers are rounded so that a claim stays true when a measured time is 1.5 s off.
"""

from collections.abc import Sequence

from marathon_pipeline.records import Colour, Shape

DURATIONS: tuple[int, ...] = (  # what people say, in seconds
    *range(3, 17), 18, 20, 25, 30, 35, 40, 45, 50, 60, 75, 90, 105, 120, 150, 180, 210, 240, 270, 300,
    *range(360, 3660, 60),
)  # fmt: skip
_NUMBERS = (
    "no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_APART = 5  # seconds between two durations to choose from: both ends are measured to 1.5 s
_MINUTE_PARTS = {0: "", 15: " and a quarter", 30: " and a half", 45: " and three quarters"}
PLACES = {  # (column, row) of the picture's thirds
    (0, 0): "in the upper left", (1, 0): "at the top", (2, 0): "in the upper right",
    (0, 1): "on the left", (1, 1): "in the middle", (2, 1): "on the right",
    (0, 2): "in the lower left", (1, 2): "at the bottom", (2, 2): "in the lower right",
}  # fmt: skip
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
OPPOSITE_SIDE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


def number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{number(count)} times")


def ordinal(index: int) -> str:
    """0: first."""
    return _ORDINALS[index] if index < len(_ORDINALS) else f"{index + 1}th"


def a(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def name_of(colour: Colour, shape: Shape) -> str:
    return f"{colour} {shape}"


def view_of(upper: str, lower: str) -> str:
    """A setting by its two halves' colours, as far as they are known: `blue above and green below`."""
    parts = [f"{upper} above"] if upper else []
    return " and ".join([*parts, f"{lower} below"] if lower else parts)


def listed(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def spoken(seconds: float) -> int:
    """The duration on the spoken scale that is nearest by ratio."""
    return min(DURATIONS, key=lambda known: max(known / max(seconds, 0.1), seconds / known))


def duration(seconds: float) -> str:
    """`about 8 seconds`, `about a minute and a half`, `about twelve minutes`."""
    known = spoken(seconds)
    if known < 60:
        return f"about {known} seconds"
    minutes, rest = divmod(known, 60)
    if minutes == 1:
        return f"about a minute{_MINUTE_PARTS[rest]}"
    return f"about {number(minutes)}{_MINUTE_PARTS[rest]} minutes"


def about(seconds: float) -> str:
    """A time from the start, to 5 s: `about 40 seconds in`, `about 1 minute 20 seconds in`."""
    said = _clock(seconds)
    return f"about {said} in" if said else "at the very start"


def stretch(start: float, end: float) -> str:
    """`from about 40 seconds to about 1 minute 20 seconds in`."""
    first = _clock(start)
    return f"from {f'about {first}' if first else 'the very start'} to about {_clock(end)} in"


def to_five(seconds: float) -> int:
    """Rounded to 5 s, as times are said."""
    return int(seconds / 5 + 0.5) * 5


def _clock(seconds: float) -> str:
    minutes, rest = divmod(to_five(seconds), 60)
    parts = [f"{minutes} minute{'s' * (minutes > 1)}"] if minutes else []
    return " ".join([*parts, f"{rest} seconds"] if rest else parts)


def unlike(one: float, other: float) -> bool:
    """Whether two spoken durations can be told from each other: by a factor of 1.6, and by `_APART`."""
    return max(one, other) >= 1.6 * min(one, other) and abs(one - other) >= _APART


def factors_apart(seconds: float, rank: int, most: float, least: float = 1.6) -> list[int]:
    """Spoken durations a factor of `least` or more, and `_APART`, from each other, four where the scale has them
    between 3 s and `most`.

    The true one comes at `rank` (0: the shortest) where there is room for it.
    """
    true = spoken(seconds)
    shorter, longer = [true], [true]
    while known := [one for one in DURATIONS if one <= min(shorter[-1] / least, shorter[-1] - _APART)]:
        shorter.append(known[-1])
    while known := [one for one in DURATIONS if max(longer[-1] * least, longer[-1] + _APART) <= one <= max(most, 60)]:
        longer.append(known[0])
    below = min(rank, len(shorter) - 1)
    above = min(3 - below, len(longer) - 1)
    below = min(3 - above, len(shorter) - 1)
    return [*reversed(shorter[1 : below + 1]), *longer[: above + 1]]
