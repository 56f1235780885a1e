"""A stage: one stay in a place, on which things act one after another and never run into each other."""

from dataclasses import dataclass, field
from random import Random

from marathon_pipeline.records import Colour
from marathon_pipeline.synthetic.script import (
    RADIUS,
    Action,
    Box,
    Direction,
    Episode,
    Kind,
    Outline,
    Point,
    Side,
    Size,
    Thing,
    box_at,
    touching_distance,
)

COLUMNS, ROWS = (0.2, 0.5, 0.8), (0.3, 0.7)  # any two large things fit into neighbouring ones
TICK = 0.2  # times are whole frames at 5, 10, 15 and 30 frames a second
ACT, REST, ABSENCE, TURN = 4.0, 5.0, 8.0, 0.4  # the shortest of each, seconds
MARGIN = 0.02
SIDES: tuple[Side, ...] = ("left", "right", "top", "bottom")


def on_tick(seconds: float) -> float:
    return round(round(seconds / TICK) * TICK, 1)


@dataclass
class Actor:
    id: str
    shape: Outline
    colours: tuple[Colour, Colour]  # the present one, and the one it turns to
    size: Size
    first: tuple[Colour, Size]
    actions: list[Action] = field(default_factory=list)
    until: float = -ABSENCE
    at: Point | None = None

    @property
    def name(self) -> str:
        return f"the {self.colours[0]} {self.shape}"

    def thing(self) -> Thing:
        colour, size = self.first
        return Thing(id=self.id, shape=self.shape, colour=colour, size=size, actions=tuple(self.actions))


class Stage:
    """One stay: what its things do, one after another. `now` is where the clock stands, `spare` the time to waste."""

    aspect = 16 / 9

    def __init__(self, rng: Random, start: float, end: float, cast: list[Actor]) -> None:
        self.rng, self.start, self.end, self.cast = rng, start, end, cast
        self.now, self.spare = start, 0.0
        self.said: list[tuple[Actor, str, str]] = []
        self.acts: list[Action] = []
        shift = rng.uniform(-0.02, 0.02), rng.uniform(-0.01, 0.01)
        self.columns = [round(column + shift[0], 3) for column in COLUMNS]
        self.rows = [round(row + shift[1], 3) for row in ROWS]

    # What things can do; each returns whether there was room for it.

    def set_there(self, actor: Actor, target: Point | None = None) -> None:
        """The thing is in the picture when the place appears."""
        targets = [point for point in self.points() if self.clear(actor, point, point, RADIUS["large"])]
        actor.at, actor.until = target or self.rng.choice(targets), self.start

    def enter(self, actor: Actor, target: Point | None = None, side: Side | None = None) -> bool:
        targets = [target] if target else self.points()
        sides: tuple[Side, ...] = (side,) if side else SIDES
        ways = [(way, point) for way in sides for point in targets]
        ways = [(way, point) for way, point in ways if self.clear(actor, self.outside(actor, point, way), point)]
        if not ways:
            return False
        way, point = self.rng.choice(ways)
        actor.at, actor.until = self.outside(actor, point, way), self.now
        kind: Kind = "return" if actor.actions else "enter"
        self.act(actor, kind, f"comes {'back' if actor.actions else 'in'} from the {way}", point, side=way)
        return True

    def leave(self, actor: Actor, side: Side | None = None) -> bool:
        """side: one that is known to be free."""
        assert actor.at
        at = actor.at
        ways = [side] if side else [way for way in SIDES if self.clear(actor, self.outside(actor, at, way), at)]
        if not ways:
            return False
        way = self.rng.choice(ways)
        self.act(actor, "leave", f"leaves to the {way}", self.outside(actor, at, way), side=way)
        actor.at = None
        return True

    def move(self, actor: Actor) -> bool:
        return self.travel(actor, "move", 0.3, 1.1)

    def pace(self, actor: Actor) -> bool:
        return self.travel(actor, "pace", 0.25, 0.7)

    def travel(self, actor: Actor, kind: Kind, shortest: float, longest: float) -> bool:
        assert actor.at
        x, y = actor.at
        targets = [(column, y) for column in self.columns] + [(x, row) for row in self.rows]
        targets = [point for point in targets if shortest <= self.distance(actor.at, point) <= longest]
        targets = [point for point in targets if self.clear(actor, actor.at, point)]
        if not targets:
            return False
        last = next((action.direction for action in reversed(actor.actions) if action.direction), None)
        turning = [point for point in targets if self.heading(actor.at, point) != last]
        target = self.rng.choice(turning or targets)
        direction: Direction = self.heading(actor.at, target)
        if kind == "move":
            self.act(actor, kind, f"moves {direction}", target, direction=direction)
        else:
            legs = 6 if self.spare > 8 and self.rng.random() < 0.5 else 4
            seconds = legs * (2.6 if self.spare > 2 and self.rng.random() < 0.5 else 2.4)
            way = "from side to side" if direction in ("left", "right") else "up and down"
            self.act(actor, kind, f"goes back and forth {way}", target, seconds, direction=direction, legs=legs)
        return True

    def resize(self, actor: Actor) -> bool:
        assert actor.at
        size: Size = "large" if actor.size == "small" else "small"
        if not self.clear(actor, actor.at, actor.at, RADIUS["large"]):
            return False
        actor.size = size
        self.act(actor, "grow" if size == "large" else "shrink", "grows" if size == "large" else "shrinks", actor.at)
        return True

    def turn(self, actor: Actor, other: Actor | None = None) -> bool:
        assert actor.at
        name, actor.colours = actor.name, (actor.colours[1], actor.colours[0])
        self.act(
            actor, "turn", f"turns {actor.colours[0]}", actor.at, TURN, name=name, other=other.id if other else None
        )
        return True

    def touch(self, a: Actor, b: Actor, far: float | None = None) -> bool:
        """`a` goes up to `b`, which is pushed on to x = `far`, or turns its colour."""
        assert a.at and b.at
        direction = self.heading(a.at, b.at)
        apart = touching_distance(a.shape, RADIUS[a.size], b.shape, RADIUS[b.size]) / self.aspect
        target = b.at[0] + (-apart if direction == "right" else apart), a.at[1]
        self.act(a, "touch", f"touches {b.name}", target, direction=direction, other=b.id)
        if far is None:
            return self.turn(b, a)
        self.act(b, "move", f"is pushed {direction}", (far, b.at[1]), direction=direction, other=a.id)
        return True

    # Geometry and bookkeeping.

    def points(self) -> list[Point]:
        return [(column, row) for column in self.columns for row in self.rows]

    def distance(self, a: Point, b: Point) -> float:
        return abs(a[0] - b[0]) * self.aspect + abs(a[1] - b[1])

    def heading(self, a: Point, b: Point) -> Direction:
        if abs(a[0] - b[0]) > abs(a[1] - b[1]):
            return "right" if b[0] > a[0] else "left"
        return "down" if b[1] > a[1] else "up"

    def outside(self, actor: Actor, point: Point, side: Side) -> Point:
        left, top, right, bottom = box_at(actor.shape, point, RADIUS[actor.size], self.aspect)
        x, y = point
        return {"left": (x - right, y), "right": (x + 1 - left, y), "top": (x, y - bottom), "bottom": (x, y + 1 - top)}[
            side
        ]

    def clear(self, actor: Actor, origin: Point, target: Point, radius: float | None = None) -> bool:
        """Whether nothing stands within a margin of the straight way of a thing."""
        ends = [box_at(actor.shape, point, radius or RADIUS[actor.size], self.aspect) for point in (origin, target)]
        left, top = min(box[0] for box in ends) - MARGIN, min(box[1] for box in ends) - MARGIN
        right, bottom = max(box[2] for box in ends) + MARGIN, max(box[3] for box in ends) + MARGIN
        others: list[Box] = [
            box_at(other.shape, other.at, RADIUS[other.size], self.aspect)
            for other in self.cast
            if other.at and other is not actor
        ]
        return all(box[2] <= left or box[0] >= right or box[3] <= top or box[1] >= bottom for box in others)

    def wait(self, shortest: float) -> None:
        more = on_tick(self.rng.uniform(0, min(5.0, max(0.0, self.spare / 2))))
        self.now, self.spare = round(self.now + shortest + more, 1), self.spare - more

    def act(
        self,
        actor: Actor,
        kind: Kind,
        says: str,
        target: Point,
        seconds: float | None = None,
        *,
        name: str = "",
        side: Side | None = None,
        direction: Direction | None = None,
        other: str | None = None,
        legs: int = 1,
    ) -> None:
        assert actor.at
        self.fill(actor)
        if seconds is None:
            wanted = self.distance(actor.at, target) / self.rng.uniform(0.08, 0.13)
            seconds = on_tick(max(ACT, min(wanted, ACT + min(4.0, max(0.0, self.spare)))))
        end = round(self.now + seconds, 1)
        action = Action(
            kind=kind, start=self.now, end=end, origin=actor.at, target=target, colour=actor.colours[0],
            size=actor.size, side=side, direction=direction, other=other, legs=legs,
        )  # fmt: skip
        self.said.append((actor, name or actor.name, says))
        self.acts.append(action)
        actor.actions.append(action)
        actor.at, actor.until, self.now = actor.at if kind == "pace" else target, end, end

    def fill(self, actor: Actor) -> None:
        """Where a thing did nothing until now, it rested."""
        if actor.at and actor.until < self.now:
            rest = Action(
                kind="rest", start=actor.until, end=self.now, origin=actor.at, target=actor.at,
                colour=actor.actions[-1].colour if actor.actions else actor.first[0],
                size=actor.actions[-1].size if actor.actions else actor.first[1],
            )  # fmt: skip
            actor.actions.append(rest)

    def close(self) -> None:
        """The stay ends: what is still there rests, and is gone with the place."""
        self.now = self.end
        for actor in self.cast:
            if actor.at:
                self.fill(actor)
                actor.at, actor.until = None, self.end

    def event(self, name: str, place: str) -> Episode:
        parts: list[list[str]] = []
        last: Actor | None = None
        for actor, subject, says in self.said:
            if actor is last:
                parts[-1].append(says)
            else:
                parts.append([f"{subject} {says}"])
            last = actor
        title = "; ".join(" and ".join([", ".join(part[:-1]), part[-1]] if part[1:] else part) for part in parts)
        things = dict.fromkeys(actor.id for actor, _, _ in self.said)
        return Episode(
            id=name, title=title, start=self.acts[0].start, end=self.acts[-1].end, things=tuple(things), place=place
        )
