"""Facts about things: where they are, how they move, what happens between them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import NamedTuple

from marathon_pipeline.annotators.measured.passages import MOMENT, presence
from marathon_pipeline.annotators.measured.tracks import REST, Point, Track, at_edge, turned_colour
from marathon_pipeline.annotators.measured.words import OPPOSITE, name_of
from marathon_pipeline.records import Fact, Signals, Thing

_LEG = 0.08  # of the picture: the shortest movement that is told
_STRAIGHT = 0.5  # of the way along the other axis: more is neither sideways nor up and down
_GROWTH = 1.5  # times the area
_GROWING = 2  # seconds at least: what is larger at once is another thing, which fades in where the first one was
_CONTACT = 0.02  # of the picture, between two outlines' boxes
_NEAR = 0.06  # less may be contact, too: outlines touch before their boxes do, and are measured to a hundredth or so
_APART = 0.04
_LASTING = 1.0  # seconds that two rests have in common for their relation to count
_TURNING = 1.5  # seconds at most between two legs of pacing: each one's time is measured to half a second or so
_MARGIN = 0.02  # of the picture: nearer to the border of two thirds, a thing is in neither


class Leg(NamedTuple):
    """A stretch of movement in one direction, or of rest (direction `""`)."""

    start: float
    end: float
    direction: str
    amount: float
    straight: bool
    last: int  # the second of its last picture
    place: str  # where it ends, as `column,row` of the picture's thirds; empty near their borders


def facts(signals: Sequence[Signals], tracks: Sequence[Track]) -> list[Fact]:
    legs = {id(track): legs_of(track) for track in tracks}
    found: list[Fact] = []
    for track in tracks:
        found += [*presence(track, signals), *_sizes(track)]
        found += _movements(track, legs[id(track)])
    views = {row.second: (row.upper, row.lower) for row in signals}
    turns = [pair for pair in turned_colour(tracks) if _in_one_view(*pair, views)]
    found += [_turn(before, after) for before, after in turns]
    for one in tracks:
        for other in tracks:
            if one is not other:
                found += _meetings(one, other, legs[id(one)], legs[id(other)], turns)
                found += _relations(one, other, legs[id(one)], legs[id(other)])
    return found


def _in_one_view(before: Track, after: Track, views: Mapping[int, tuple[str, str]]) -> bool:
    """Whether the view stays as it is: where it fades into another, one thing may only give its place to the next."""
    first, last = before.points[-1].second, after.points[0].second
    return len({views[second] for second in range(first - 1, last + 2) if second in views}) == 1


def name(track: Track) -> str:
    return name_of(track.colour, track.shape)


def _cell(thing: Thing) -> str:
    column, row = _third(thing.x), _third(thing.y)
    return "" if column is None or row is None else f"{column},{row}"


def _third(position: float) -> int | None:
    near = any(abs(position - border) < _MARGIN for border in (1 / 3, 2 / 3))
    return None if near else min(2, int(position * 3))


def _sizes(track: Track) -> Iterator[Fact]:
    if track.shape == "thing":  # what has no outline has no steady size
        return
    points = [point for point in track.points if not at_edge(point.thing)]
    changes = [(a, b, math.log(b.thing.area / a.thing.area)) for a, b in pairwise(points)]
    for sign, group in groupby(changes, key=lambda change: (change[2] > 0.06) - (change[2] < -0.06)):
        run = list(group)
        ratio = math.exp(abs(math.log(run[-1][1].thing.area / run[0][0].thing.area)))
        if sign and ratio >= _GROWTH and len(run) >= _GROWING:
            yield Fact(
                kind="grows" if sign > 0 else "shrinks",
                start=run[0][0].second,
                end=run[-1][1].second + 1,
                subject=name(track),
                amount=round(ratio, 2),
            )


def legs_of(track: Track) -> list[Leg]:
    """The track's movements and rests, in order."""
    steps = []
    for a, b in pairwise(_placed(track)):
        seconds = b.second - a.second
        dx, dy = b.thing.x - a.thing.x, b.thing.y - a.thing.y
        across = abs(dx) >= abs(dy)
        direction = ("right" if dx > 0 else "left") if across else ("down" if dy > 0 else "up")
        still = max(abs(dx), abs(dy)) < REST * seconds
        steps.append((a, b, "" if still else direction))
    legs = []
    for direction, group in groupby(steps, key=lambda step: step[2]):
        run = [(a, b) for a, b, _ in group]
        first, last = run[0][0], run[-1][1]
        ways = sorted((abs(last.thing.x - first.thing.x), abs(last.thing.y - first.thing.y)))
        start, end = _ends(run)
        straight = ways[0] <= _STRAIGHT * ways[1]
        legs.append(Leg(start, end, direction, ways[1], straight, last.second, _cell(last.thing)))
    return legs


def _placed(track: Track) -> list[Point]:
    """The track's points but for those at its ends that are half faded, or joined to another thing: their middle is not
    the thing's own."""
    points = list(track.points)
    for end in (-1, 0):
        while (
            track.shape != "thing" and points and points[end].thing.shape == "thing" and not at_edge(points[end].thing)
        ):
            points.pop(end)
    return points


def _ends(run: Sequence[tuple[Point, Point]]) -> tuple[float, float]:
    """When a movement begins and ends: a first or last step shorter than the middle one took less than its second."""
    ways = [math.dist((a.thing.x, a.thing.y), (b.thing.x, b.thing.y)) / (b.second - a.second) for a, b in run]
    usual = max(median(ways), 1e-6)
    start = run[0][1].second + MOMENT - min(1.0, ways[0] / usual) * (run[0][1].second - run[0][0].second)
    end = run[-1][0].second + MOMENT + min(1.0, ways[-1] / usual) * (run[-1][1].second - run[-1][0].second)
    return round(start, 1), round(max(end, start + 0.5), 1)


def _movements(track: Track, legs: Sequence[Leg]) -> Iterator[Fact]:
    told = [leg for leg in legs if (leg.direction and leg.amount >= _LEG) or (not leg.direction and _rests(leg))]
    pacing = _pacing(told)
    for start, end, axis, count in pacing:
        yield Fact(kind="paces", start=start, end=end, subject=name(track), value=axis, amount=count)
    for leg in told:
        if any(start <= leg.start and leg.end <= end for start, end, _, _ in pacing):
            continue
        if not leg.direction:
            yield Fact(kind="rests", start=leg.start, end=leg.end, subject=name(track), value=leg.place)
        elif leg.straight:
            amount = round(leg.amount, 3)
            yield Fact(
                kind="moves", start=leg.start, end=leg.end, subject=name(track), value=leg.direction, amount=amount
            )


def _rests(leg: Leg) -> bool:
    return leg.end - leg.start >= 3 and leg.amount < 0.03


def _pacing(legs: Sequence[Leg]) -> list[tuple[float, float, str, int]]:
    """(start, end, axis, legs) of runs of three and more legs that turn back on each other."""
    runs: list[list[Leg]] = []
    for leg in legs:
        last = runs[-1][-1] if runs else None
        if (
            last
            and leg.direction
            and leg.direction == OPPOSITE.get(last.direction)
            and leg.start - last.end <= _TURNING
        ):
            runs[-1].append(leg)
        else:
            runs.append([leg])
    return [
        (run[0].start, run[-1].end, "sideways" if run[0].direction in ("left", "right") else "up and down", len(run))
        for run in runs
        if len(run) >= 3
    ]


def _turn(before: Track, after: Track) -> Fact:
    start, end = before.points[-1].second, after.points[0].second + 1
    return Fact(kind="turns", start=start, end=end, subject=name(before), other=name(after), value=after.colour)


def _meetings(
    one: Track, other: Track, legs: Sequence[Leg], other_legs: Sequence[Leg], turns: Sequence[tuple[Track, Track]]
) -> Iterator[Fact]:
    """`one` comes up against `other`, which is at rest; and what becomes of it."""
    for leg in legs:
        if leg.direction not in ("left", "right") or leg.amount < _LEG:
            continue
        gap = _gap_at_end(one, other, leg)
        if gap is None or gap >= _NEAR:
            continue
        contact = leg.end
        who = {"subject": name(one), "other": name(other), "start": contact, "end": contact + 1}
        if gap >= _CONTACT:
            yield Fact.model_validate({"kind": "nears", **who})
            continue
        yield Fact.model_validate({"kind": "reaches", **who})
        for after in other_legs:
            if after.direction and after.amount >= _LEG and after.straight and abs(after.start - contact) <= 1.5:
                yield Fact.model_validate({"kind": "sets_off", "value": after.direction, **who})
        for before, turned in turns:
            if before is other and -1.5 <= before.points[-1].second + 0.5 - contact <= 1.5:
                yield Fact.model_validate({"kind": "recolours", "value": turned.colour, **who})


def _gap_at_end(one: Track, other: Track, leg: Leg) -> float | None:
    """The room between the two where a leg of `one` ends at the side of `other`, which has not moved before."""
    mover, approaching = one.at(leg.last), one.at(leg.last - 2)
    still, earlier = other.at(leg.last - 1), other.at(leg.last - 2)  # at the last picture it may be on its way already
    if not (mover and approaching and still and earlier):
        return None
    level = abs(mover.y - still.y) < 0.5 * min(mover.height, still.height)
    ahead = (still.x > mover.x) == (leg.direction == "right")
    before, gap = _gap(approaching, earlier), _gap(mover, still)
    # The boxes of slanting outlines overlap before the outlines touch.
    comes = before > max(gap, _APART + min(0.0, gap)) and abs(still.x - earlier.x) < REST
    return gap if level and ahead and comes else None


def _gap(one: Thing, other: Thing) -> float:
    return abs(one.x - other.x) - (one.width + other.width) / 2


def _relations(one: Track, other: Track, legs: Sequence[Leg], other_legs: Sequence[Leg]) -> Iterator[Fact]:
    """How `one` lies to `other` while both are at rest: told of the left one, the upper one, or the first name."""
    for rest in legs:
        for other_rest in other_legs:
            start, end = max(rest.start, other_rest.start), min(rest.end, other_rest.end)
            a, b = one.at(start + 1), other.at(start + 1)
            if rest.direction or other_rest.direction or end - start < _LASTING or not a or not b:
                continue
            value = _relation(a, b)
            if value or (not _relation(b, a) and name(one) < name(other)):
                who = {"subject": name(one), "other": name(other), "start": start, "end": end}
                yield Fact.model_validate({"kind": "beside", "value": value or "askew", **who})


def _relation(a: Thing, b: Thing) -> str:
    """`left of` and `above` only where the one is on a level with, or straight over, the other."""
    if b.x - a.x > (a.width + b.width) / 2 and abs(b.y - a.y) < 0.5 * min(a.height, b.height):
        return "left of"
    if b.y - a.y > (a.height + b.height) / 2 and abs(b.x - a.x) < 0.5 * min(a.width, b.width):
        return "above"
    return ""
