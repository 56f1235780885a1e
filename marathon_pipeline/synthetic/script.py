"""The script of a synthetic video: what is where, when, and what it does.

Times are seconds, positions the centre as fractions of the picture's width and height, radii fractions of its height.
"""

from bisect import bisect_right
from functools import cached_property
from math import sqrt
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.records import Colour

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom
Outline = Literal["circle", "square", "triangle", "bar"]
Size = Literal["small", "large"]
Side = Literal["left", "right", "top", "bottom"]
Direction = Literal["left", "right", "up", "down"]
Kind = Literal["enter", "return", "rest", "move", "pace", "grow", "shrink", "turn", "touch", "leave"]

RADIUS: dict[Size, float] = {"small": 0.09, "large": 0.18}
EXTENT: dict[Outline, Point] = {  # half the width and half the height of a shape of radius 1
    "circle": (1.0, 1.0),
    "square": (0.88, 0.88),
    "triangle": (1.05, 0.92),
    "bar": (1.45, 0.5),
}
FADE = 1.0  # a place fades in over the first second of its stay


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(_Strict):
    """A backdrop: one calm colour above the horizon, another below it."""

    id: str
    upper: Colour
    lower: Colour
    light: Literal["day", "night"]
    horizon: float  # from the top, as a fraction of the height

    @property
    def name(self) -> str:
        return f"{self.upper} above, {self.lower} below"


class Stay(_Strict):
    """A stretch of the video in one place; `into`: how the picture comes to it."""

    place: str
    start: float
    end: float
    into: Literal["cut", "fade"]


class Action(_Strict):
    """What one thing does from `start` to `end`, at constant speed. Colour and size are those at its end.

    side: where it enters or leaves. direction: of a move, a touch, or the first leg of pacing. other: in a touch the
    thing that is touched; in a move or a turn the thing whose touch caused it. A `return` is an entrance of a thing
    that was seen before.
    """

    kind: Kind
    start: float
    end: float
    origin: Point
    target: Point
    colour: Colour
    size: Size
    side: Side | None = None
    direction: Direction | None = None
    other: str | None = None
    legs: int = 1  # of pacing: an even number, so that it ends where it began


class Thing(_Strict):
    """A compact coloured shape. Its actions leave no gap while it is in the picture; between them it is absent."""

    id: str
    shape: Outline
    colour: Colour  # when first seen
    size: Size
    actions: tuple[Action, ...]


class Episode(_Strict):
    """An event of the video: one coherent episode, from the start of its first action to the end of its last one."""

    id: str
    title: str
    start: float
    end: float
    things: tuple[str, ...]
    place: str


class Pose(NamedTuple):
    """How a thing looks at one moment. `turned`: the share of a change from `before` to `colour` that is done."""

    x: float
    y: float
    radius: float
    before: Colour
    colour: Colour
    turned: float


class Script(_Strict):
    version: Literal[1] = 1  # of the renderer: a video of another version is rendered anew
    seed: int
    seconds: float
    width: int
    height: int
    fps: int
    places: tuple[Place, ...]
    stays: tuple[Stay, ...]
    things: tuple[Thing, ...]
    events: tuple[Episode, ...]

    @cached_property
    def _things(self) -> dict[str, Thing]:
        return {thing.id: thing for thing in self.things}

    @cached_property
    def _places(self) -> dict[str, Place]:
        return {place.id: place for place in self.places}

    def stay(self, t: float) -> int:
        """The index of the stay at time t."""
        return bisect_right(self.stays, t, key=lambda stay: stay.start) - 1

    def place(self, t: float) -> Place:
        return self._places[self.stays[self.stay(t)].place]

    def action(self, thing: str, t: float) -> Action | None:
        """What the thing does at time t; None while it is absent."""
        actions = self._things[thing].actions
        index = bisect_right(actions, t, key=lambda action: action.start) - 1
        return actions[index] if index >= 0 and t < actions[index].end else None

    def pose(self, thing: str, t: float) -> Pose | None:
        actor = self._things[thing]
        index = bisect_right(actor.actions, t, key=lambda action: action.start) - 1
        if index < 0 or t >= actor.actions[index].end:
            return None
        action, before = actor.actions[index], actor.actions[index - 1] if index else actor
        done = (t - action.start) / (action.end - action.start)
        way = done * action.legs % 2
        way = min(way, 2 - way) if action.kind == "pace" else done
        (x0, y0), (x1, y1) = action.origin, action.target
        r0, r1 = RADIUS[before.size], RADIUS[action.size]
        return Pose(
            x0 + (x1 - x0) * way,
            y0 + (y1 - y0) * way,
            r0 + (r1 - r0) * done,
            before.colour,
            action.colour,
            done if before.colour != action.colour else 1.0,
        )

    def box(self, thing: str, t: float) -> Box | None:
        """The upright box around the thing, which may reach beyond the picture; None while it is absent."""
        pose = self.pose(thing, t)
        if pose is None:
            return None
        return box_at(self._things[thing].shape, (pose.x, pose.y), pose.radius, self.width / self.height)

    def visible(self, thing: str, t: float) -> bool:
        """Whether any part of the thing is in the picture."""
        box = self.box(thing, t)
        return box is not None and box[0] < 1 and box[1] < 1 and box[2] > 0 and box[3] > 0

    def position(self, thing: str, t: float) -> Point | None:
        pose = self.pose(thing, t)
        return None if pose is None else (pose.x, pose.y)

    def colour(self, thing: str, t: float) -> Colour | None:
        pose = self.pose(thing, t)
        return None if pose is None else pose.colour if pose.turned >= 0.5 else pose.before

    def size(self, thing: str, t: float) -> float | None:
        """The radius as a fraction of the picture's height; None while the thing is absent."""
        pose = self.pose(thing, t)
        return None if pose is None else pose.radius


def box_at(shape: Outline, centre: Point, radius: float, aspect: float) -> Box:
    """The upright box around a shape. aspect: the picture's width over its height."""
    across, down = EXTENT[shape][0] * radius / aspect, EXTENT[shape][1] * radius
    return centre[0] - across, centre[1] - down, centre[0] + across, centre[1] + down


def reach(shape: Outline, radius: float, below: float) -> float | None:
    """Half the width of a shape at a height `below` its centre, all in fractions of the height; None outside it."""
    across, down = EXTENT[shape][0] * radius, EXTENT[shape][1] * radius
    if abs(below) > down:
        return None
    if shape == "circle":
        return sqrt(radius**2 - below**2)
    return across * (below + down) / (2 * down) if shape == "triangle" else across


def touching_distance(a: Outline, a_radius: float, b: Outline, b_radius: float) -> float:
    """How far apart the centres of two shapes at the same height are when their outlines touch, in heights."""
    steps = [step / 1000 for step in range(-200, 201)]
    reaches = [(reach(a, a_radius, y), reach(b, b_radius, y)) for y in steps]
    return max(left + right for left, right in reaches if left is not None and right is not None)
