"""Shots, without the cuts that are none: a thing that turns its colour at once changes a calm picture much, too."""

import math
from collections.abc import Sequence

from marathon_pipeline.records import ColourShares, Signals, Thing

_LATER = 2  # seconds after a cut: where one view fades into another, the next second still shows the first one
_ALIKE = 0.2  # of the picture, at most, has another colour
_SAME_SIZE = 0.35  # the logarithm of two areas' ratio, at most
_ON_ITS_WAY, _IN_ITS_PLACE = 0.3, 0.05  # of the picture: how far a thing of the same colour, of another one, may be off


def joined_shots(signals: Sequence[Signals]) -> list[Signals]:
    """The same seconds, with one shot where the view and every thing in it go on after a cut."""
    rows = list(signals[:1])
    afterwards = [*signals[1 + _LATER :], *(signals[-1] for _ in range(_LATER))]
    for before, row, later in zip(signals, signals[1:], afterwards, strict=False):
        shot = rows[-1].shot if row.shot == before.shot or _goes_on(before, later) else row.shot
        rows.append(row if shot == row.shot else row.model_copy(update={"shot": shot}))
    return rows


def _goes_on(before: Signals, after: Signals) -> bool:
    return (
        bool(before.things)
        and (before.upper, before.lower) == (after.upper, after.lower)
        and _changed(before.colours, after.colours) < _ALIKE
        and all(any(_same(one, other) for other in after.things) for one in before.things)
    )


def _changed(before: ColourShares, after: ColourShares) -> float:
    shares = zip(before.model_dump().values(), after.model_dump().values(), strict=True)
    return sum(abs(float(one) - float(other)) for one, other in shares) / 2


def _same(one: Thing, other: Thing) -> bool:
    reach = _ON_ITS_WAY if one.colour == other.colour else _IN_ITS_PLACE
    alike = one.shape == other.shape and abs(math.log(one.area / other.area)) < _SAME_SIZE
    return alike and math.dist((one.x, one.y), (other.x, other.y)) < reach
