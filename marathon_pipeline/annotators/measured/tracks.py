"""Things followed from second to second within one window."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from marathon_pipeline.records import Colour, Shape, Signals, Thing

GAP = 3.0  # an absence shorter than this is a flaw of the measurement, not of the thing
_REACH = 0.12  # how far off its foreseen place a thing may be found again, plus so much for each second
_REACH_PER_SECOND = 0.16
_CLEAR_SHAPE = 0.6  # share of the seconds at which a thing has one outline, for it to be named by that outline
_EDGE = 0.012
REST = 0.012  # of the picture in a second: less is rest


class Point(NamedTuple):
    second: int
    thing: Thing
    shot: int


@dataclass(eq=False)
class Track:
    """One thing's places, at most one a second, in order."""

    colour: Colour
    points: list[Point] = field(default_factory=list)

    @property
    def start(self) -> float:
        return float(self.points[0].second)

    @property
    def end(self) -> float:
        return float(self.points[-1].second + 1)

    @property
    def shape(self) -> Shape:
        """The outline of most seconds; those at which the picture's edge cuts it count where there is no other."""
        whole = [point.thing.shape for point in self.points if not at_edge(point.thing)]
        counts = Counter(whole or [point.thing.shape for point in self.points])
        shape, seconds = counts.most_common(1)[0]
        return shape if seconds >= _CLEAR_SHAPE * counts.total() else "thing"

    def at(self, second: float) -> Thing | None:
        return next((point.thing for point in self.points if point.second == int(second)), None)


def edges(thing: Thing) -> dict[str, float]:
    """The room between a thing and each side of the picture."""
    return {
        "left": thing.x - thing.width / 2,
        "right": 1 - thing.x - thing.width / 2,
        "top": thing.y - thing.height / 2,
        "bottom": 1 - thing.y - thing.height / 2,
    }


def at_edge(thing: Thing) -> bool:
    return min(edges(thing).values()) < _EDGE


def follow(signals: Sequence[Signals]) -> list[Track]:
    """Join each second's things to tracks: same colour and shot, near where the track leads, alike in outline."""
    tracks: list[Track] = []
    for row in signals:
        open_tracks = [track for track in tracks if row.second - track.points[-1].second <= GAP]
        pairs = sorted(
            (cost, thing_index, track_index)
            for track_index, track in enumerate(open_tracks)
            for thing_index, thing in enumerate(row.things)
            if (cost := _cost(track, thing, row)) < 1
        )
        taken_things: set[int] = set()
        taken_tracks: set[int] = set()
        for _, thing_index, track_index in pairs:
            if thing_index in taken_things or track_index in taken_tracks:
                continue
            taken_things.add(thing_index)
            taken_tracks.add(track_index)
            open_tracks[track_index].points.append(Point(row.second, row.things[thing_index], row.shot))
        for index, thing in enumerate(row.things):
            if index not in taken_things:
                tracks.append(Track(thing.colour, [Point(row.second, thing, row.shot)]))
    return tracks


def _cost(track: Track, thing: Thing, row: Signals) -> float:
    """How unlikely it is that `thing` is the track's; 1 and more: it is not."""
    last = track.points[-1]
    if last.thing.colour != thing.colour or last.shot != row.shot:
        return math.inf
    seconds = row.second - last.second
    x, y = last.thing.x, last.thing.y
    if len(track.points) > 1:
        before = track.points[-2]
        ahead = seconds / (last.second - before.second)
        x, y = x + (x - before.thing.x) * ahead, y + (y - before.thing.y) * ahead
    reach = _REACH + _REACH_PER_SECOND * seconds
    distance = min(math.dist((x, y), (thing.x, thing.y)), math.dist((last.thing.x, last.thing.y), (thing.x, thing.y)))
    size = abs(math.log(thing.area / last.thing.area))
    unlike = 0.0 if thing.shape == track.shape else 0.2 if "thing" in (thing.shape, track.shape) else 0.5
    return distance / reach + 0.4 * size + unlike


def joined_runs(seconds: Iterable[int], gap: float = GAP) -> list[tuple[float, float]]:
    """Stretches (start, end) of the given seconds; gaps shorter than `gap` are closed."""
    runs: list[list[float]] = []
    for second in sorted(set(seconds)):
        if runs and second - runs[-1][1] < gap:
            runs[-1][1] = second + 1.0
        else:
            runs.append([float(second), second + 1.0])
    return [(start, end) for start, end in runs]


def turned_colour(tracks: Sequence[Track]) -> list[tuple[Track, Track]]:
    """Pairs (before, after): a thing ends where, and as large as, one of another colour begins, within one shot."""
    found = []
    for before in tracks:
        for after in tracks:
            last, first = before.points[-1], after.points[0]
            if (
                before.colour != after.colour
                and 0 < first.second - last.second <= 2
                and last.shot == first.shot
                and not at_edge(last.thing)
                and not at_edge(first.thing)
                and math.dist((last.thing.x, last.thing.y), (first.thing.x, first.thing.y)) < 0.05
                and abs(math.log(last.thing.area / first.thing.area)) < 0.35
                and before.shape == after.shape != "thing"
            ):
                found.append((before, after))
    return found
