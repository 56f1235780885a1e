"""What the script of a synthetic video says of the clauses that a text is made of: whether and when they happen."""

import re
from functools import cached_property
from typing import NamedTuple

from marathon_pipeline.synthetic.script import FADE, Action, Script, Thing

COLOURS = "red|orange|yellow|green|blue|purple|pink"
NAME = rf"(?:{COLOURS}) (?:circle|square|triangle|bar)"
VIEW = r"(\w+) above and (\w+) below"
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
WAYS = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}
INWARDS = {"left": "right", "right": "left", "top": "down", "bottom": "up"}
OUTWARDS = {"left": "left", "right": "right", "top": "up", "bottom": "down"}
BEGUN = {"move": "moves", "go": "goes", "grow": "grows", "shrink": "shrinks", "turn": "turns"}
LATE = 0.1  # seconds that two times may differ and still be the same


class Undecided(Exception):
    """The script does not say it, or the text is not understood."""


class Baseless(Exception):
    """What the text rests on is not in the video, or is there more than once."""


class Time(NamedTuple):
    start: float
    end: float


class Deed(NamedTuple):
    """Something that the script lets happen. `does`: as a text tells it."""

    start: float
    end: float
    name: str
    does: str
    kind: str


class Told:
    """The script, as a list of what happens and of what is in view."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seconds = script.seconds
        self.shapes = {thing.id: thing.shape for thing in script.things}

    # What is in view.

    @cached_property
    def stretches(self) -> dict[str, list[Time]]:
        """By name, such as `red circle`: the stretches in which any part of such a thing is in the picture."""
        pieces: dict[str, list[Time]] = {}
        for thing in self.script.things:
            colour = thing.colour
            for action in thing.actions:
                middle = (action.start + action.end) / 2 if action.colour != colour else action.start
                pieces.setdefault(f"{colour} {thing.shape}", []).append(Time(action.start, middle))
                colour = action.colour
                pieces.setdefault(f"{colour} {thing.shape}", []).append(Time(middle, action.end))
        return {name: _joined(times) for name, times in pieces.items()}

    @cached_property
    def presences(self) -> dict[str, list[Time]]:
        """By thing, whatever its colour: the stretches in which it is in the picture."""
        return {thing.id: _joined([Time(a.start, a.end) for a in thing.actions]) for thing in self.script.things}

    def seen(self, name: str, start: float, end: float) -> bool:
        return any(time.start < end and time.end > start for time in self.stretches.get(name, ()))

    def seen_throughout(self, name: str, start: float, end: float) -> bool:
        return any(time.start <= start and time.end >= end for time in self.stretches.get(name, ()))

    def total(self, name: str) -> float:
        return sum(time.end - time.start for time in self.stretches.get(name, ()))

    def bearer(self, name: str, t: float) -> str | None:
        """The thing that looks so at a time."""
        colour, shape = name.split()
        for thing in self.script.things:
            if thing.shape == shape and self.script.colour(thing.id, t) == colour:
                return thing.id
        return None

    def place(self, name: str, t: float) -> tuple[float, float] | None:
        thing = self.bearer(name, t)
        return self.script.position(thing, t) if thing else None

    def rests(self, name: str, t: float) -> bool:
        thing = self.bearer(name, t)
        action = self.script.action(thing, t) if thing else None
        return action is not None and action.kind in ("rest", "turn", "grow", "shrink")

    def look(self, t: float) -> tuple[str, str]:
        place = self.script.place(min(t, self.seconds - 0.1))
        return place.upper, place.lower

    @cached_property
    def views(self) -> list[tuple[tuple[str, str], Time]]:
        return [(self.look(stay.start), Time(stay.start, stay.end)) for stay in self.script.stays]

    # What happens.

    @cached_property
    def deeds(self) -> list[Deed]:
        """All that things do, in order."""
        found = []
        for thing in self.script.things:
            colour = thing.colour
            for action in thing.actions:
                if action.kind != "rest":
                    found.append(
                        Deed(action.start, action.end, f"{colour} {thing.shape}", self._does(action), action.kind)
                    )
                colour = action.colour
        return sorted(found)

    @cached_property
    def changes(self) -> list[float]:
        """When the view changes."""
        return [stay.start for stay in self.script.stays[1:]]

    @cached_property
    def starts(self) -> list[Time]:
        """All that happens, as far as a text tells of it."""
        return sorted([*(Time(t, t) for t in self.changes), *(Time(deed.start, deed.end) for deed in self.deeds)])

    def _does(self, action: Action) -> str:
        match action.kind:
            case "move":
                return f"moves {WAYS[str(action.direction)]}"
            case "pace":
                sideways = action.direction in ("left", "right")
                return "goes back and forth" if sideways else "goes up and down again and again"
            case "grow" | "shrink":
                return f"{action.kind}s"
            case "turn":
                return f"turns {action.colour}"
            case "enter" | "return":
                return f"comes in from the {action.side}"
            case "leave":
                return f"goes out {'at' if action.side in ('top', 'bottom') else 'to'} the {action.side}"
            case "touch":
                other = str(action.other)
                return f"comes up against the {self.script.colour(other, action.end - LATE)} {self.shapes[other]}"
        raise ValueError(action.kind)

    def _besides(self, thing: Thing, action: Action) -> list[str]:
        """What can be said of an action as well: who comes in from the left moves to the right."""
        match action.kind:
            case "enter" | "return":
                return [f"moves {WAYS[INWARDS[str(action.side)]]}"]
            case "leave":
                return [f"moves {WAYS[OUTWARDS[str(action.side)]]}"]
            case "touch":
                return [f"moves {WAYS[str(action.direction)]}"]
            case "pace":
                sideways = action.direction in ("left", "right")
                return [f"moves {WAYS[way]}" for way in (("left", "right") if sideways else ("up", "down"))]
        return []

    def times(self, clause: str, loosely: bool = False) -> list[Time]:
        """When a clause is true, by start; of `for the second time` only that one.

        loosely: also where it is only a part of something else. Raises Undecided where the clause is not understood.
        """
        clause, _, which = clause.lower().strip(" ?.,").partition(" for the ")
        clause = re.sub(r"\bbegins to (\w+)", lambda match: BEGUN.get(match[1], match[1]), clause)
        clause = clause.replace("has gone out", "goes out")
        found = self._found(clause)
        if loosely or not found:
            found = sorted({*found, *self._loosely(clause)})
        if which:
            ordinal = re.fullmatch(r"(\w+) time", which)
            if not ordinal:
                raise Undecided(clause)
            index = index_of(ordinal[1])
            return found[index : index + 1]
        return found

    def _found(self, clause: str) -> list[Time]:
        if match := re.fullmatch(rf"the view changes to {VIEW}", clause):
            return [Time(time.start, time.start + FADE) for look, time in self.views[1:] if look == match.groups()]
        if re.fullmatch(r"the camera turns .*", clause):
            return []
        match = re.fullmatch(rf"the ({NAME}) (.+)", clause)
        if not match or not _is_deed(match[2]):
            raise Undecided(clause)
        return [Time(deed.start, deed.end) for deed in self.deeds if deed.name == match[1] and deed.does == match[2]]

    def _loosely(self, clause: str) -> list[Time]:
        match = re.fullmatch(rf"the ({NAME}) (.+)", clause)
        if not match:
            return []
        name, does = match.groups()
        if does == "comes into view":
            return [Time(time.start, time.start + 1) for time in self.stretches.get(name, ())]
        if does == "goes out of view":
            leaving = {deed.end: deed.start for deed in self.deeds if deed.name == name and deed.kind == "leave"}
            return [Time(leaving.get(time.end, time.end - 1), time.end) for time in self.stretches.get(name, ())]
        found = []
        for thing in self.script.things:
            colour = thing.colour
            for action in thing.actions:
                if f"{colour} {thing.shape}" == name and does in self._besides(thing, action):
                    found.append(Time(action.start, action.end))
                colour = action.colour
        return found

    def once(self, clause: str) -> Time:
        """When the clause is true; raises Baseless where it is at no time, or at several."""
        found = self.times(clause)
        if len(found) != 1:
            raise Baseless(f"{clause}: {len(found)} times")
        return found[0]

    def moment(self, clause: str) -> float:
        """The moment that the clause names: the end of a way out, or of a way up to something; else the beginning."""
        time = self.once(clause)
        return time.end if re.search(r"gone out|goes out|comes up against", clause) else time.start


def index_of(ordinal: str) -> int:
    """0 for `first`, 10 for `11th`."""
    if ordinal in ORDINALS:
        return ORDINALS.index(ordinal)
    if match := re.fullmatch(r"(\d+)th", ordinal):
        return int(match[1]) - 1
    raise Undecided(ordinal)


def _is_deed(does: str) -> bool:
    sides = r"(left|right|top|bottom)"
    return bool(
        re.fullmatch(
            rf"comes in from the {sides}|goes out (to|at) the {sides}|moves (to the left|to the right|up|down)"
            rf"|goes back and forth|goes up and down again and again|grows|shrinks|turns ({COLOURS})"
            rf"|comes up against the {NAME}|comes into view|goes out of view",
            does,
        )
    )


def _joined(times: list[Time]) -> list[Time]:
    joined: list[Time] = []
    for time in sorted(time for time in times if time.end > time.start):
        if joined and time.start - joined[-1].end < LATE:
            joined[-1] = Time(joined[-1].start, max(joined[-1].end, time.end))
        else:
            joined.append(time)
    return joined
