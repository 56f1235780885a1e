"""The synthetic videos: what their scripts promise, and that the pictures keep it."""

import json
import multiprocessing
from itertools import combinations, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given, settings
from hypothesis import strategies as st

from marathon_pipeline.errors import UserError
from marathon_pipeline.synthetic.director import write_script
from marathon_pipeline.synthetic.render import CALM, VIVID, render, rgb
from marathon_pipeline.synthetic.script import Script, reach
from marathon_pipeline.synthetic.videos import write_videos

scripts = st.builds(write_script, st.integers(0, 2**32), st.floats(1, 45))
full_scripts = st.builds(write_script, st.integers(0, 2**32), st.floats(3, 45))
many = settings(max_examples=25, deadline=None)


def moments(script: Script, step: float = 0.4) -> list[float]:
    return [index * step for index in range(int(script.seconds / step))]


@given(st.integers(0, 2**32), st.floats(1, 45))
@many
def test_the_same_seed_writes_the_same_script(seed: int, minutes: float) -> None:
    script = write_script(seed, minutes)
    assert script == write_script(seed, minutes)
    assert script == Script.model_validate_json(script.model_dump_json())
    assert script.things != write_script(seed + 1, minutes).things


@given(scripts)
@many
def test_stays_follow_each_other_to_the_end_and_change_the_place(script: Script) -> None:
    assert script.stays[0].start == 0 and script.stays[-1].end == script.seconds
    assert all(20 <= stay.end - stay.start <= 90 for stay in script.stays)
    for before, after in pairwise(script.stays):
        assert before.end == after.start and before.place != after.place
    assert len({place.name for place in script.places}) == len(script.places)


@given(scripts)
@many
def test_things_take_their_time(script: Script) -> None:
    for thing in script.things:
        for action in thing.actions:
            seconds = round(action.end - action.start, 3)
            assert seconds == 0.4 if action.kind == "turn" else seconds >= (5 if action.kind == "rest" else 4)
            assert script.stay(action.start) == script.stay(action.end - 0.01), (
                "no action reaches over a change of place"
            )
        for before, after in pairwise(thing.actions):
            assert after.start == before.end or after.start >= before.end + 8
            if after.start > before.end:
                assert before.kind == "leave" or before.end in {stay.end for stay in script.stays}
                assert after.kind == "return" or after.start in {stay.start for stay in script.stays}
            else:
                assert (
                    before.kind != "leave"
                    and (before.target if before.kind != "pace" else before.origin) == after.origin
                )


@given(scripts)
@many
def test_at_most_three_things_of_different_colours_are_visible(script: Script) -> None:
    for t in moments(script):
        colours = [script.colour(thing.id, t) for thing in script.things if script.visible(thing.id, t)]
        assert len(colours) <= 3 and len(set(colours)) == len(colours)


@given(scripts)
@many
def test_every_thing_keeps_its_colour_and_shape_to_itself(script: Script) -> None:
    owners: dict[tuple[str, str], str] = {}
    for thing in script.things:
        for colour in {thing.colour, *(action.colour for action in thing.actions)}:
            assert owners.setdefault((colour, thing.shape), thing.id) == thing.id


def gap(script: Script, a: str, b: str, t: float) -> float:
    """The shortest horizontal gap between two things' outlines, in heights; negative where they overlap."""
    aspect = script.width / script.height
    (one, first), (other, second) = [
        (next(thing for thing in script.things if thing.id == name), script.pose(name, t)) for name in (a, b)
    ]
    assert first and second
    gaps = []
    for y in np.linspace(0, 1, 721):
        left, right = (reach(one.shape, first.radius, y - first.y), reach(other.shape, second.radius, y - second.y))
        if left is not None and right is not None:
            gaps.append(abs(first.x - second.x) * aspect - left - right)
    return min(gaps, default=1.0)


@given(scripts)
@many
def test_things_never_overlap_and_meet_only_in_a_touch(script: Script) -> None:
    touches = [(thing.id, action) for thing in script.things for action in thing.actions if action.kind == "touch"]
    for a, touch in touches:
        assert touch.other
        assert abs(gap(script, a, touch.other, touch.end)) < 0.002
    for t in moments(script):
        boxes = [(thing.id, box) for thing in script.things if (box := script.box(thing.id, t))]
        for (a, (l1, t1, r1, b1)), (b, (l2, t2, r2, b2)) in combinations(boxes, 2):
            if l1 < r2 - 1e-6 and l2 < r1 - 1e-6 and t1 < b2 - 1e-6 and t2 < b1 - 1e-6:
                assert any({a, b} == {thing, touch.other} for thing, touch in touches)
                assert gap(script, a, b, t) > -0.002


@given(scripts)
@many
def test_what_rests_is_wholly_within_the_picture(script: Script) -> None:
    for thing in script.things:
        for action in thing.actions:
            if action.kind not in ("enter", "return", "leave"):
                for t in (action.start, action.end - 1e-6):
                    box = script.box(thing.id, t)
                    assert box and min(box) >= 0 and max(box) <= 1
            edge = script.box(thing.id, action.start if action.kind in ("enter", "return") else action.end - 1e-6)
            if action.kind in ("enter", "return", "leave"):
                assert edge and (min(edge[:2]) < 1e-3 or max(edge[2:]) > 1 - 1e-3)
                assert max(edge[2:]) < 1e-3 or min(edge[2:]) < 1e-3 or max(edge[:2]) > 1 - 1e-3


@given(full_scripts)
@many
def test_three_minutes_hold_all_that_a_video_must_show(script: Script) -> None:
    kinds = [action.kind for thing in script.things for action in thing.actions]
    assert len(script.stays) >= 4 and len({stay.place for stay in script.stays}) >= 3
    assert len(script.things) >= 3
    assert {"return", "leave", "touch", "turn", "pace", "move"} <= set(kinds)
    assert {"grow", "shrink"} & set(kinds)
    assert len({action.direction for thing in script.things for action in thing.actions if action.direction}) >= 2
    assert any(
        before.kind == "leave" and after.kind == "return" and script.stay(before.end) == script.stay(after.start)
        for thing in script.things
        for before, after in pairwise(thing.actions)
    )


@given(full_scripts)
@many
def test_events_are_episodes_within_one_stay_each(script: Script) -> None:
    for event in script.events:
        stay = script.stays[script.stay(event.start)]
        assert stay.start <= event.start < event.end <= stay.end and stay.place == event.place
        assert event.title and event.things
    minutes = script.seconds / 60
    assert max(3, 5 * minutes / 20) <= len(script.events) <= max(3, 15 * minutes / 20)


@pytest.mark.parametrize(("seed", "height"), [(1, 180), (2, 270)])
def test_decoded_pictures_show_what_the_script_says(tmp_path: Path, seed: int, height: int) -> None:
    script = write_script(seed, 3, height=height, fps=15)
    render(script, tmp_path / "video.mp4")
    seen, pixels = 0, 0
    with av.open(tmp_path / "video.mp4") as container:
        for frame in container.decode(video=0):
            seen += 1
            t = float(frame.time or 0)
            if seen % 5 or t - script.stays[script.stay(t)].start < 1:
                continue
            picture = frame.to_ndarray(format="rgb24").astype(float)
            place = script.place(t)
            boxes = [box for thing in script.things if (box := script.box(thing.id, t))]
            for y, name in ((0.06, place.upper), (0.5, None), (0.94, place.lower)):
                if name and not any(box[0] < 0.04 and box[1] < y + 0.05 and box[3] > y - 0.05 for box in boxes):
                    assert np.abs(at(picture, 0.02, y) - rgb(CALM[place.light][name])).max() < 24
                    pixels += 1
            for thing in script.things:
                pose = script.pose(thing.id, t)
                if pose and pose.turned in (0, 1) and 0.02 < pose.x < 0.98 and 0.02 < pose.y < 0.98:
                    assert (
                        np.abs(
                            at(picture, pose.x, pose.y) - rgb(VIVID[script.colour(thing.id, t) or pose.colour])
                        ).max()
                        < 40
                    )
                    pixels += 1
    assert seen == script.seconds * script.fps
    assert pixels > 1000


def at(picture: np.ndarray, x: float, y: float) -> np.ndarray:
    height, width = picture.shape[:2]
    return np.asarray(picture[int(y * height), int(x * width)])


def test_a_backdrop_never_looks_like_a_thing() -> None:
    assert all(saturation <= 0.35 for light in CALM.values() for _, saturation, _ in light.values())
    assert all(saturation >= 0.75 and value >= 0.55 for _, saturation, value in VIVID.values())


def test_the_video_is_h264_with_b_frames_and_few_key_frames_and_lasts_as_long_as_its_script(tmp_path: Path) -> None:
    script = write_script(5, 1)
    for name in ("one.mp4", "two.mp4"):
        render(script, tmp_path / name)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"one.mp4", "two.mp4"}
    with av.open(tmp_path / "one.mp4") as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.duration * stream.time_base) == pytest.approx(script.seconds, abs=0.07)
        kinds = [(PictureType(frame.pict_type).name, frame.key_frame) for frame in container.decode(stream)]
    assert any(kind == "B" for kind, _ in kinds)
    assert 1 <= sum(key for _, key in kinds) <= 8


def test_a_folder_of_videos_has_a_manifest_and_is_not_rendered_twice(tmp_path: Path) -> None:
    out, told = tmp_path / "12:30 videos", []
    paths = write_videos(out, 2, 1, seed=7, progress=lambda done, total: told.append((done, total)))
    assert [path.name for path in paths] == ["synthetic_7_000.mp4", "synthetic_7_001.mp4"]
    assert told[-1] == (120, 120) and told == sorted(told)
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [(row["id"], row["path"], row["licence"]) for row in rows] == [
        (path.stem, path.name, "CC0-1.0") for path in paths
    ]
    first, second = [Script.model_validate_json(path.with_suffix(".json").read_text()) for path in paths]
    assert first.seed != second.seed and first.things != second.things

    before = [path.stat().st_mtime_ns for path in paths]
    paths[1].with_suffix(".json").write_text("{}")
    assert write_videos(out, 2, 1, seed=7) == paths
    after = [path.stat().st_mtime_ns for path in paths]
    assert after[0] == before[0] and after[1] > before[1]


def test_two_commands_that_render_the_same_videos_do_not_tread_on_each_other(tmp_path: Path) -> None:
    together = multiprocessing.get_context("spawn")
    others = [together.Process(target=write_videos, args=(tmp_path / "both", 2, 1, 7)) for _ in range(2)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
    alone = write_videos(tmp_path / "alone", 2, 1, seed=7)
    assert {path.name for path in (tmp_path / "both").iterdir()} == {path.name for path in alone[0].parent.iterdir()}
    assert all((tmp_path / "both" / path.name).read_bytes() == path.read_bytes() for path in alone)


def test_an_interrupted_rendering_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupt(seconds: float) -> None:
        if seconds >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(write_script(1, 1), tmp_path / "video.mp4", interrupt)
    assert not list(tmp_path.iterdir())


def test_a_video_that_ffmpeg_cannot_write_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        render(write_script(1, 1), tmp_path / "nowhere" / "video.mp4")


@pytest.mark.parametrize(("videos", "minutes"), [(0, 3), (1, 0.5), (1, 2000), (1, float("nan"))])
def test_what_cannot_be_written_is_refused_in_one_line(tmp_path: Path, videos: int, minutes: float) -> None:
    with pytest.raises(UserError) as refusal:
        write_videos(tmp_path, videos, minutes, seed=1)
    assert "\n" not in str(refusal.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="taken"):
        write_videos(tmp_path / "taken" / "videos", 1, 1, seed=1)
