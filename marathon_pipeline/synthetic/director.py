"""Writes scripts: places, a cast, and what happens, all from one seed."""

from collections.abc import Callable, Iterator
from itertools import combinations
from random import Random
from typing import Literal, NamedTuple

from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Colour, digest
from marathon_pipeline.synthetic.script import Episode, Outline, Place, Script, Side, Size, Stay
from marathon_pipeline.synthetic.stage import ABSENCE, ACT, REST, TURN, Actor, Stage, on_tick

LONGEST = 24 * 60.0  # minutes
VIVID: tuple[Colour, ...] = ("red", "orange", "yellow", "green", "blue", "purple", "pink")
CALM: tuple[Colour, ...] = ("black", "white", "grey", "blue", "green", "purple", "brown", "yellow", "pink")
DARKENS = {"black", "grey", "blue", "green", "purple", "brown"}  # by night these keep their names
# The seconds that each kind of episode needs, with the rest after it.
EPISODES = {"touch": 36.0, "return": 46.4, "change": 46.6, "gather": 47.0, "stroll": 32.0}


def write_script(seed: int, minutes: float, height: int = 180, fps: int = 15) -> Script:
    """The script of a 16:9 video of 1 minute to 24 hours; the same arguments give the same script.

    height: a multiple of 90. Raises UserError where an argument is out of its range.
    """
    if not 1 <= minutes <= LONGEST:
        raise UserError(f"a synthetic video of {minutes:g} minutes cannot be written: give 1 to {LONGEST:g}")
    if height < 90 or height % 90 or fps not in (5, 10, 15, 30):
        raise UserError(f"{height} lines at {fps} fps: give a multiple of 90 lines, and 5, 10, 15 or 30 fps")
    rng = Random(int(digest(["script", seed])[:16], 16))  # noqa: S311
    places = _places(rng, min(7, 3 + int(minutes / 6)))
    actors = _actors(rng, 6 if minutes < 10 else 7)
    stays: list[Stay] = []
    events: list[Episode] = []
    episodes = _episodes(rng)
    seconds = on_tick(60 * minutes)
    start = 0.0
    for index, (length, eventful) in enumerate(_lengths(rng, seconds)):
        end = round(start + length, 1)
        others = [place for place in places if not stays or place.id != stays[-1].place]
        place = places[index] if index < len(places) else rng.choice(others)
        into: Literal["cut", "fade"] = "fade" if stays and rng.random() < 0.3 else "cut"
        stays.append(Stay(place=place.id, start=start, end=end, into=into))
        stage = Stage(rng, start, end, _cast(rng, actors, start))
        if eventful:
            _perform(stage, next(kind for kind in episodes if EPISODES[kind] <= length + 1e-6))
            events.append(stage.event(f"event_{len(events) + 1:03}", place.id))
        else:
            for actor in stage.cast[: rng.choice((0, 1, 1, 2))]:
                stage.set_there(actor)
        stage.close()
        start = end
    return Script(
        seed=seed,
        seconds=seconds,
        width=height * 16 // 9,
        height=height,
        fps=fps,
        places=tuple(place for place in places if place.id in {stay.place for stay in stays}),
        stays=tuple(stays),
        things=tuple(actor.thing() for actor in actors if actor.actions),
        events=tuple(events),
    )


def _places(rng: Random, count: int) -> list[Place]:
    """Places that differ from each other above the horizon and below it."""
    upper, lower = rng.sample(CALM, count), rng.sample(CALM, count)
    while any(a == b for a, b in zip(upper, lower, strict=True)):
        rng.shuffle(lower)
    return [
        Place(
            id=f"{above}_{below}",
            upper=above,
            lower=below,
            light="night" if {above, below} <= DARKENS and rng.random() < 0.5 else "day",
            horizon=round(rng.uniform(0.47, 0.53), 2),
        )
        for above, below in zip(upper, lower, strict=True)
    ]


def _lengths(rng: Random, seconds: float) -> list[tuple[float, bool]]:
    """The lengths of the stays and which of them hold an event: 20 to 90 s each, about 12 events in 20 minutes."""
    minutes = seconds / 60
    events = max(3 if minutes >= 3 else 1, round(0.6 * minutes))
    quiet = max(1, round((seconds - 65 * events) / 42))
    spread = 0.04 if minutes < 4 else 0.14  # short videos have no time to spare
    calm = 40.0 if quiet > 1 or minutes > 3.5 or minutes < 2.5 else 32.0
    kinds = [True] * events + [False] * quiet
    rng.shuffle(kinds)
    weights = [rng.uniform(1 - spread, 1 + spread) * (65.0 if kind else calm) for kind in kinds]
    total, passed, at, lengths = sum(weights), 0.0, 0.0, []
    for weight in weights:
        passed += weight
        end = on_tick(seconds * passed / total)
        lengths.append(round(end - at, 1))
        at = end
    return list(zip(lengths, kinds, strict=True))


def _episodes(rng: Random) -> Iterator[str]:
    """Endless; the three that show what every video must hold come first."""
    first, others = ["touch", "return", "change"], ["gather", "stroll"]
    rng.shuffle(first)
    yield from first
    while True:
        kinds = [*first, *others]
        rng.shuffle(kinds)
        yield from kinds


def _actors(rng: Random, count: int) -> list[Actor]:
    """At most 7 things. Each has two colours that no other thing of its shape has, so it keeps its name to itself."""
    colours = rng.sample(VIVID, len(VIVID))
    actors: list[Actor] = []
    for index in range(count):
        own = colours[2 * index % 7], colours[(2 * index + 1) % 7]
        taken = {actor.shape for actor in actors if set(actor.colours) & set(own)}
        shapes: tuple[Outline, ...] = ("circle", "square", "triangle", "bar")
        shape = rng.choice([shape for shape in shapes if shape not in taken])
        size: Size = rng.choice(("small", "large"))
        actors.append(Actor(f"{own[0]}_{shape}", shape, own, size, (own[0], size)))
    return actors


def _cast(rng: Random, actors: list[Actor], start: float) -> list[Actor]:
    """Three things, or two, that have been away long enough and share no colour; new ones first until three were seen.

    Of six or seven things at most three were there a moment ago, and no three of the others all share colours with
    each other: there are always two.
    """
    free = [actor for actor in actors if actor.until <= start - ABSENCE]
    rng.shuffle(free)
    if sum(bool(actor.actions) for actor in actors) < 3:
        free.sort(key=lambda actor: bool(actor.actions))
    casts = (cast for size in (3, 2) for cast in combinations(free, size))
    return list(
        next(cast for cast in casts if len({colour for actor in cast for colour in actor.colours}) == 2 * len(cast))
    )


class _Beat(NamedTuple):
    """rest: the shortest pause before it. cost: the shortest time it takes."""

    rest: float
    cost: float
    act: Callable[[], object]


def _perform(stage: Stage, kind: str) -> None:
    """Play an episode, then add to it while there is time."""
    beats = _beats(stage, kind)
    for index, beat in enumerate(beats):
        needed = REST + sum(later.rest + later.cost for later in beats[index:])
        stage.spare = max(0.0, (stage.end - stage.now - needed) / (len(beats) - index))
        stage.wait(beat.rest)
        beat.act()
    for _ in range(3):
        stage.spare = stage.end - stage.now - 2 * REST - 12
        if stage.spare < 0:
            return
        stage.wait(REST)
        _improvise(stage)


def _beats(stage: Stage, kind: str) -> list[_Beat]:
    a, b, *others = stage.cast
    if kind == "touch":
        return _touch(stage, a, b)
    if kind == "gather":
        arrivals = [_Beat(2, ACT, lambda: stage.enter(a)), _Beat(REST, ACT, lambda: stage.enter(b))]
        if others:
            arrivals.append(_Beat(REST, ACT, lambda: stage.enter(others[0])))
        return [*arrivals, _Beat(REST, ACT, lambda: stage.leave(b)), _Beat(REST, ACT, lambda: stage.leave(a))]
    if stage.rng.random() < 0.5:
        stage.set_there(b)
    if kind == "return":
        return [
            _Beat(2, ACT, lambda: stage.enter(a)),
            _Beat(REST, TURN, lambda: stage.turn(a)),
            _Beat(REST, ACT, lambda: stage.leave(a)),
            _Beat(ABSENCE, ACT, lambda: stage.enter(a)),
            _Beat(REST, ACT, lambda: stage.move(a)),
        ]
    stage.set_there(a)
    first, move = _Beat(REST, ACT, lambda: stage.resize(a)), _Beat(REST, ACT, lambda: stage.move(a))
    pace, leave = _Beat(REST, 9.6, lambda: stage.pace(a)), _Beat(REST, ACT, lambda: stage.leave(a))
    return [first, move, pace, leave] if kind == "change" else [move, move, leave]


def _touch(stage: Stage, a: Actor, b: Actor) -> list[_Beat]:
    """`b` is there or comes first; `a` comes in from a side, goes up to it and touches it, and goes away."""
    row, from_left = stage.rng.choice(stage.rows), stage.rng.random() < 0.5
    near, middle, far = (0.17, 0.6, 0.84) if from_left else (0.83, 0.4, 0.16)
    side: Side = "left" if from_left else "right"
    beats = []
    if stage.end - stage.start > EPISODES["touch"] + REST + ACT:
        beats.append(_Beat(2, ACT, lambda: stage.enter(b, (middle, row))))
    else:
        stage.set_there(b, (middle, row))
    beats.append(_Beat(REST, ACT, lambda: stage.enter(a, (near, row), side)))
    if stage.rng.random() < 0.6:
        beats.append(_Beat(REST, 2 * ACT, lambda: stage.touch(a, b, far)))
        beats.append(_Beat(REST, ACT, lambda: stage.leave(a)))
    else:
        beats.append(_Beat(REST, ACT + TURN, lambda: stage.touch(a, b)))
        beats.append(_Beat(REST, ACT, lambda: stage.leave(a, side)))  # the way it came: the other ways lead along `b`
    return beats


def _improvise(stage: Stage) -> None:
    present = [actor for actor in stage.cast if actor.at]
    away = [actor for actor in stage.cast if not actor.at and actor.until <= stage.now - ABSENCE]
    if away and (not present or stage.rng.random() < 0.35):
        stage.enter(stage.rng.choice(away))
    elif present:
        act = stage.rng.choice((stage.move, stage.move, stage.pace, stage.resize, stage.turn, stage.leave))
        act(stage.rng.choice(present))
