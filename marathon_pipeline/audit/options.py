"""Whether the right option can be told by its look: the only number among colours, the only one with a full stop."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from marathon_pipeline.wording import moments, words

_NUMBERS = frozenset(
    words(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand once "
        "twice thrice"
    )
)
_AROUND_NUMBERS = frozenset(words("about around roughly nearly almost only exactly just over under and a time times"))
_UNITS = frozenset(words("second seconds minute minutes hour hours"))
_COLOURS = frozenset(
    words(
        "black white grey gray red orange yellow green blue purple violet pink brown beige turquoise gold golden silver"
    )
)
_AROUND_COLOURS = frozenset(words("light dark pale bright and"))
_NEGATIONS = frozenset(words("no not never none nobody nothing nowhere without neither nor"))
_ONE = frozenset(words("a an one another each every"))
_SEVERAL = _NUMBERS - {"zero", "one", "once", "twice", "thrice"} | {"several", "many", "some", "both", "these", "those"}
_PERSONS = frozenset(words("it he she they we someone nobody there"))
_VERBS = frozenset(words("is are was were has have had does did"))
_RELATIVES = frozenset(words("that which who whose what where"))
_CONTRACTED = re.compile(r"n['\u2019]t\b", re.IGNORECASE)


def kind(option: str) -> str:
    """`yes or no`, `moment`, `duration`, `number`, `colour`; else `other`."""
    said = words(option)
    if said[:1] in (["yes"], ["no"]):
        return "yes or no"
    found = set(said)
    if moments(option):
        return "moment"
    counted = found & _NUMBERS or any(map(str.isdecimal, said))
    if found & _UNITS and (counted or found & {"a", "an", "half"}):
        return "duration"
    if counted and all(word in _NUMBERS or word in _AROUND_NUMBERS or word.isdecimal() for word in said):
        return "number"
    if found & _COLOURS and found <= _COLOURS | _AROUND_COLOURS:
        return "colour"
    return "other"


def _form(option: str) -> str | None:
    """`He stands`, `the gate is open`: a sentence; `a gate that is open`, `two gates`: phrases; `the man stays`: who
    knows."""
    said = words(option)
    verbs = (word in _VERBS and before not in _RELATIVES for before, word in pairwise(said))
    if any(verbs) or not _PERSONS.isdisjoint(said[:1]):
        return "sentence"
    ends = (len(word) > 3 and word.endswith(("s", "ed")) and before not in _SEVERAL for before, word in pairwise(said))
    return None if any(ends) else "phrase"


def _full_stop(option: str) -> str:
    return "with" if option.rstrip().endswith((".", "!")) else "without"


def _capital(option: str) -> str | None:
    first = option.lstrip()[:1]
    return None if first.upper() == first.lower() else "large" if first == first.upper() else "small"


def _negated(option: str) -> str:
    found = words(option)
    return "negated" if _NEGATIONS & {*found[found[:1] == ["no"] :]} or _CONTRACTED.search(option) else "plain"


def _number(option: str) -> str | None:
    first = (words(option) or [""])[0]
    return "one" if first in _ONE else "several" if first in _SEVERAL else None


_LOOKS: tuple[Callable[[str], str | None], ...] = (kind, _form, _full_stop, _capital, _negated, _number)


def ways_apart(options: Sequence[str], right: int) -> int:
    """In how many ways the option at `right` looks otherwise than all others, which look alike.

    The ways: its kind, whether it is a sentence, its full stop, capital letter, negation, and whether it is one or
    several. Of fewer than three options none stands apart.
    """
    if len(options) < 3 or not 0 <= right < len(options):
        return 0
    return sum(_apart([look(option) for option in options], right) for look in _LOOKS)


def _apart(looks: Sequence[str | None], right: int) -> bool:
    others = {*looks[:right], *looks[right + 1 :]}
    return None not in looks and len(others) == 1 and looks[right] not in others
