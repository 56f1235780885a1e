"""How a thing comes into the picture and goes out of it: over which side, and when its first or last part is seen."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from marathon_pipeline.annotators.measured.tracks import REST, Point, Track, edges
from marathon_pipeline.annotators.measured.words import OPPOSITE_SIDE, name_of
from marathon_pipeline.records import Fact, Signals

MOMENT = 0.4  # when in a second its picture was taken
_NEXT = 0.04  # of the picture: what comes so near to a side within a second goes over it
_PART_SEEN = 0.2  # the same, where a part of the thing was seen a second further on
_STEADY = 0.6  # of the largest step: one that is shorter holds a rest, and says nothing of the speed
_LONGEST = 6  # seconds over a side: a slower passage is not followed
_WHOLE = 3.0  # times the area of the thing as it was last seen: a colour that covers more is not its own
_TINT = 0.0008  # of the picture: a colour that covers less is not seen
_BEFORE = 0.5  # seconds outside the window: what came in before it, or goes out after it, does not do so in it
_FRINGE = 0.15  # of the thing's area: so much of its colour, where it stays, is the edges of other things


class _Crossing(NamedTuple):
    side: str
    seconds: float  # that the thing takes from its outermost measured place to beyond the picture


def presence(track: Track, signals: Sequence[Signals]) -> Iterator[Fact]:
    """The stretch in view, with the passages at its ends."""
    subject = name_of(track.colour, track.shape)
    first, last = track.points[0], track.points[-1]
    rows = {row.second: row for row in signals}
    before = [rows.get(second) for second in range(first.second - 1, first.second - 2 - _LONGEST, -1)]
    after = [rows.get(second) for second in range(last.second + 1, last.second + 2 + _LONGEST)]
    start, end = track.start, track.end
    parts = _parts(first, before)
    way = _crossing(first, track.points[1:3], before, parts)
    if way or (parts and _near_side(first)):
        lead = parts + 0.5 if parts is not None else way.seconds if way else 0.0
        start = round(first.second + MOMENT - lead, 1)
    begun = start < signals[0].second - _BEFORE
    start = max(float(signals[0].second), start)
    if way and not begun:
        yield Fact(kind="enters", start=start, end=start + 1, subject=subject, value=way.side)
    parts = _parts(last, after)
    way = _crossing(last, track.points[-3:-1][::-1], after, parts)
    if way or (parts and _near_side(last)):
        lead = parts + 0.5 if parts is not None else way.seconds if way else 0.0
        end = round(last.second + MOMENT + lead, 1)
    goes_on = end > signals[-1].second + 1 + _BEFORE
    end = min(signals[-1].second + 1.0, end)
    if way and not goes_on:
        yield Fact(kind="leaves", start=end - 1, end=end, subject=subject, value=way.side)
    area = sum(point.thing.area for point in track.points) / len(track.points)
    yield Fact(kind="visible", start=start, end=end, subject=subject, amount=round(area, 4))


def _parts(point: Point, beyond: Sequence[Signals | None]) -> int | None:
    """For how many of the seconds beyond a track's end a part of the thing is seen, by its colour alone.

    None where that cannot be told: its colour is also the setting's or another thing's, or it stays.
    """
    for count, row in enumerate(beyond):
        if row is None or row.shot != point.shot:
            return None
        share = getattr(row.colours, point.thing.colour)
        if share > _WHOLE * point.thing.area:
            return None
        further = beyond[count + 1] if count + 1 < len(beyond) else None
        stays = further is not None and share - getattr(further.colours, point.thing.colour) < _TINT / 4
        if share < _TINT or (share < _FRINGE * point.thing.area and stays):
            return count
    return None


def _near_side(point: Point) -> bool:
    return min(edges(point.thing).values()) < _PART_SEEN


def _crossing(
    outer: Point, inner: Sequence[Point], beyond: Sequence[Signals | None], parts: int | None
) -> _Crossing | None:
    """How the way from the inner points through the outer one leads over a side, where it does so within a second."""
    if len(inner) < 2 or beyond[0] is None or beyond[0].shot != outer.shot:
        return None
    dx, dy = outer.thing.x - inner[-1].thing.x, outer.thing.y - inner[-1].thing.y
    side = ("right" if dx > 0 else "left") if abs(dx) > abs(dy) else ("bottom" if dy > 0 else "top")
    room, far = edges(outer.thing)[side], OPPOSITE_SIDE[side]
    # The far edge's way, for the picture's side does not cut it; the largest step, for the others may hold a rest.
    steps = [
        (edges(a.thing)[far] - edges(b.thing)[far]) / abs(a.second - b.second) for a, b in pairwise([outer, *inner])
    ]
    speed = max(steps)
    steady = parts is not None or min(steps) >= _STEADY * speed
    if speed < REST or not steady or room - speed > (_PART_SEEN if parts else _NEXT):
        return None
    across = outer.thing.width if side in ("left", "right") else outer.thing.height
    return _Crossing(side, min(float(_LONGEST), (across + max(0.0, room)) / speed))
