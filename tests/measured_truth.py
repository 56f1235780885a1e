"""The truth about synthetic videos, from their scripts, for the tests of the offline annotator."""

import asyncio
import pickle
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import made_once

from marathon_pipeline.annotators.measured import Measured
from marathon_pipeline.annotators.measured.timeline import Timeline
from marathon_pipeline.annotators.protocol import Described
from marathon_pipeline.errors import Filtered
from marathon_pipeline.media.decode import decode_once
from marathon_pipeline.media.windows import windows
from marathon_pipeline.records import Clip, ClipCaption, Event, Fact, QAPair, Signals, Summary
from marathon_pipeline.synthetic.director import write_script
from marathon_pipeline.synthetic.render import render
from marathon_pipeline.synthetic.script import Action, Script
from marathon_pipeline.taxonomy import load_taxonomy

OFF = 1.5  # seconds that a measured time may be off
STEP = 0.2


class Told(NamedTuple):
    script: Script  # none in tests of made-up signals
    captions: list[ClipCaption]
    events: list[Event]
    summary: Summary
    pairs: list[QAPair]
    filtered: dict[tuple[str, str], str]

    @property
    def timeline(self) -> Timeline:
        return Timeline.of(self.captions)


def tell(video_id: str, script: Any, seconds: float, signals: list[Signals]) -> Told:
    """All that the annotator writes about a video."""
    annotator = Measured()
    pairs: list[QAPair] = []
    filtered: dict[tuple[str, str], str] = {}

    async def write() -> Told:
        captions = []
        for window in windows(seconds):
            rows = [row for row in signals if window.start <= row.second < window.end]
            clip = Clip(
                video_id=video_id,
                clip_id=f"c{int(window.start):05}",
                start=window.start,
                end=window.end,
                shots=(),
                frame_hashes=tuple(row.frame_hash for row in rows),
            )
            captions.append(await annotator.caption_clip(clip, rows))
        events = []
        for event in await annotator.split_events(video_id, captions):
            own = [caption for caption in captions if caption.clip_id in event.clip_ids]
            events.append(await annotator.caption_event(event, None, None, own))
        summary = await annotator.summarize(events)
        for task in load_taxonomy().tasks.values():
            for format in ("open", "choice"):
                if getattr(task.per_video, format):
                    try:
                        pairs.extend(await annotator.write_qa(task, format, Described(captions, events, summary)))
                    except Filtered as left_out:
                        filtered[task.task, format] = left_out.rule
        return Told(script, captions, events, summary, pairs, filtered)

    return asyncio.run(write())


@pytest.fixture(scope="session")
def told_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, float], Told]:
    """What is written about the synthetic video of a seed and of so many minutes."""

    @cache
    def told_of(seed: int, minutes: float) -> Told:
        def make(folder: Path) -> None:
            script, path = write_script(seed, minutes), folder / f"synthetic_{seed}.mp4"
            render(script, path)
            decoded = decode_once(path, path.with_stem("proxy"), path.stem)
            told = tell(path.stem, script, decoded.seconds, decoded.signals)
            (folder / "told").write_bytes(pickle.dumps(told))

        return pickle.loads((made_once(tmp_path_factory, f"told-{seed}-{minutes}", make) / "told").read_bytes())

    return told_of


@pytest.fixture(params=[(3, 4.0), (17, 5.0)], ids=["3", "17"])
def told(request: pytest.FixtureRequest, told_of: Callable[[int, float], Told]) -> Told:
    return told_of(*request.param)


# The truth, from the script.


def moments(start: float, end: float) -> Iterator[float]:
    count = max(1, int((end - start) / STEP))
    yield from (start + (end - start) * (index + 0.5) / count for index in range(count))


def bearers(script: Script, name: str, t: float) -> list[str]:
    """The things that look so, and are in the picture, at time t."""
    colour, shape = name.split()
    return [
        one.id
        for one in script.things
        if one.shape == shape and script.colour(one.id, t) == colour and script.visible(one.id, t)
    ]


def seen(script: Script, name: str, start: float, end: float) -> bool:
    return any(bearers(script, name, t) for t in moments(start, end))


def seen_all_along(script: Script, name: str, start: float, end: float) -> bool:
    return all(bearers(script, name, t) for t in moments(start, end))


def actions(script: Script, name: str, start: float, end: float) -> list[Action]:
    """What the bearer of a name does within a stretch, give or take OFF."""
    colour, shape = name.split()
    return [
        action
        for one in script.things
        if one.shape == shape
        for before, action in zip((None, *one.actions), one.actions, strict=False)
        if action.start < end + OFF
        and action.end > start - OFF
        and colour in (action.colour, before.colour if before else one.colour)
    ]


def is_true(script: Script, fact: Fact) -> bool:
    """Whether the script says what the fact says."""
    low, high = fact.start + OFF, fact.end - OFF
    own = actions(script, fact.subject, fact.start, fact.end) if fact.subject and fact.kind != "setting" else []
    match fact.kind:
        case "setting":
            places = {(script.place(t).upper, script.place(t).lower) for t in moments(low, max(low, high))}
            return places == {(fact.subject, fact.other)}
        case "visible":
            return seen_all_along(script, fact.subject, low, max(low, high))
        case "enters":
            return any(
                a.kind in ("enter", "return") and a.side == fact.value and abs(a.start - fact.start) <= OFF for a in own
            )
        case "leaves":
            return any(a.kind == "leave" and a.side == fact.value and abs(a.end - fact.end) <= OFF for a in own)
        case "moves":
            return any(heading(a) == fact.value and abs(a.start - fact.start) <= 4 for a in own)
        case "paces":
            axis = {"left": "sideways", "right": "sideways", "up": "up and down", "down": "up and down"}
            return any(
                a.kind == "pace"
                and axis[str(a.direction)] == fact.value
                and abs(a.start - fact.start) <= OFF
                and abs(a.end - fact.end) <= OFF
                for a in own
            )
        case "rests":
            still = all(
                a.kind in ("rest", "turn", "grow", "shrink")
                for a in actions(script, fact.subject, fact.start + 2 * OFF, fact.end - 2 * OFF)
            )
            return still and (
                not fact.value
                or all(in_cell(script, fact.subject, fact.value, t) for t in moments(low, max(low, high)))
            )
        case "grows" | "shrinks":
            return any(
                a.kind == fact.kind.rstrip("s") and abs(a.start - fact.start) <= OFF and abs(a.end - fact.end) <= OFF
                for a in own
            )
        case "turns":
            return any(a.kind == "turn" and a.colour == fact.value and abs(a.start - fact.start) <= OFF for a in own)
        case "reaches":
            return any(
                a.kind == "touch" and is_name(script, a.other, fact.other, a.end) and abs(a.end - fact.start) <= OFF
                for a in own
            )
        case "sets_off":
            caused = actions(script, fact.other, fact.start, fact.end)
            return any(
                a.kind == "move" and a.direction == fact.value and a.other and abs(a.start - fact.start) <= OFF
                for a in caused
            )
        case "recolours":
            caused = actions(script, fact.other, fact.start, fact.end)
            return any(
                a.kind == "turn" and a.colour == fact.value and a.other and abs(a.start - fact.start) <= OFF
                for a in caused
            )
        case "beside":
            return all(is_beside(script, fact, t) for t in moments(low, max(low, high)))
        case "camera" | "several":
            return False
    return True


def heading(action: Action) -> str | None:
    if action.side:
        inwards = {"left": "right", "right": "left", "top": "down", "bottom": "up"}
        outwards = {"left": "left", "right": "right", "top": "up", "bottom": "down"}
        return (outwards if action.kind == "leave" else inwards)[action.side]
    return action.direction if action.kind in ("move", "touch") else None


def is_name(script: Script, thing: str | None, name: str, t: float) -> bool:
    return thing is not None and any(thing in bearers(script, name, t + shift) for shift in (-1, 0, 1))


def in_cell(script: Script, name: str, cell: str, t: float) -> bool:
    where = [script.position(thing, t) for thing in bearers(script, name, t)]
    return any(at and f"{int(at[0] * 3)},{int(at[1] * 3)}" == cell for at in where)


def is_beside(script: Script, fact: Fact, t: float) -> bool:
    if fact.value == "askew":  # nothing is said of it
        return True
    one, other = (bearers(script, name, t) for name in (fact.subject, fact.other))
    if not one or not other:
        return False
    a, b = script.position(one[0], t), script.position(other[0], t)
    assert a and b
    across, down = b[0] - a[0], b[1] - a[1]
    return across > 0.1 > abs(down) if fact.value == "left of" else down > 0.1 > abs(across)
