"""Shots, colours, motion, camera and things, on drawn pictures, rendered videos and real ones."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from marathon_pipeline.media.colours import NAMES, names
from marathon_pipeline.media.decode import Decoded, decode_once
from marathon_pipeline.media.motion import MotionMeter, camera_of
from marathon_pipeline.media.shots import ShotFinder
from marathon_pipeline.media.signals import SignalMeter, frame_hash
from marathon_pipeline.media.things import things_in
from marathon_pipeline.records import Span

RED, BLUE, YELLOW, GREY = (30, 30, 220), (220, 90, 30), (20, 215, 235), (128, 128, 128)


def canvas(colour: tuple[int, int, int] = GREY) -> np.ndarray:
    return np.full((180, 320, 3), colour, np.uint8)


def noise(seed: int, size: tuple[int, int] = (360, 640)) -> np.ndarray:
    """A textured picture, such as a camera sees."""
    grain = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    return cv2.resize(grain, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((10, 10, 10), "black"),
        ((245, 245, 240), "white"),
        ((120, 124, 120), "grey"),
        ((200, 30, 30), "red"),
        ((240, 130, 20), "orange"),
        ((240, 220, 40), "yellow"),
        ((40, 150, 50), "green"),
        ((40, 80, 200), "blue"),
        ((120, 40, 170), "purple"),
        ((240, 110, 180), "pink"),
        ((250, 150, 150), "pink"),
        ((110, 70, 40), "brown"),
    ],
)
def test_colours_have_the_names_people_give_them(rgb: tuple[int, int, int], name: str) -> None:
    assert NAMES[names(np.array([[rgb[::-1]]], np.uint8))[0][0, 0]] == name


def test_things_are_named_by_colour_and_outline_and_placed() -> None:
    image = canvas()
    cv2.circle(image, (50, 50), 16, RED, -1, cv2.LINE_AA)
    cv2.rectangle(image, (120, 30), (160, 70), BLUE, -1)
    cv2.rectangle(image, (200, 40), (290, 65), YELLOW, -1)
    cv2.fillPoly(image, [np.array([(80, 110), (55, 155), (105, 155)])], RED, cv2.LINE_AA)
    cv2.rectangle(image, (180, 90), (200, 170), BLUE, -1)
    things, covered = things_in(image, names(image)[1])
    assert {(thing.colour, thing.shape) for thing in things} == {
        ("red", "circle"),
        ("blue", "square"),
        ("yellow", "bar"),
        ("red", "triangle"),
        ("blue", "bar"),
    }
    assert [thing.area for thing in things] == sorted((thing.area for thing in things), reverse=True)
    circle = next(thing for thing in things if thing.shape == "circle")
    assert circle.x == pytest.approx(50 / 320, abs=0.01) and circle.y == pytest.approx(50 / 180, abs=0.01)
    assert covered.mean() == pytest.approx(sum(thing.area for thing in things), abs=0.001)


def test_touching_things_of_two_colours_are_two_and_a_cut_one_has_no_outline() -> None:
    image = canvas()
    cv2.rectangle(image, (100, 60), (139, 99), BLUE, -1)
    cv2.rectangle(image, (140, 60), (179, 99), RED, -1)
    cv2.circle(image, (308, 150), 16, YELLOW, -1)
    things, _ = things_in(image, names(image)[1])
    assert sorted((thing.colour, thing.shape) for thing in things) == [
        ("blue", "square"),
        ("red", "square"),
        ("yellow", "thing"),
    ]


def test_scenery_and_pale_and_tangled_regions_are_no_things() -> None:
    meadow = canvas((200, 190, 180))
    meadow[90:] = (40, 160, 60)
    cv2.circle(meadow, (160, 130), 20, (60, 200, 80), -1)
    pale = canvas()
    cv2.circle(pale, (160, 90), 30, (150, 150, 200), -1)
    tangle = canvas()
    for step in range(0, 120, 16):
        cv2.line(tangle, (60 + step, 40), (60 + step, 140), RED, 3)
        cv2.line(tangle, (60, 40 + step % 100), (180, 40 + step % 100), RED, 3)
    assert [things_in(image, names(image)[1])[0] for image in (meadow, pale, tangle)] == [(), (), ()]


@pytest.mark.parametrize(
    ("step", "camera"), [((6, 0), "right"), ((-6, 0), "left"), ((0, 5), "down"), ((0, -5), "up"), ((0, 0), "still")]
)
def test_the_camera_turns_against_its_content(step: tuple[int, int], camera: str) -> None:
    scene, meter = noise(1), MotionMeter()
    changes = []
    for frame in range(6):
        x, y = 160 + frame * step[0], 90 + frame * step[1]
        changes.append(meter.add(cv2.cvtColor(scene[y : y + 180, x : x + 320], cv2.COLOR_BGR2GRAY)))
    assert camera_of(changes[1:]) == camera
    assert all(change.cells.max() < 0.06 for change in changes), "the camera's movement is no motion"


def test_a_thing_that_moves_is_motion_where_it_moves_and_no_camera() -> None:
    meter, changes = MotionMeter(), []
    for frame in range(6):
        image = canvas()
        cv2.circle(image, (40 + 5 * frame, 90), 20, RED, -1)
        changes.append(meter.add(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)))
    assert camera_of(changes[1:]) == "still"
    cells = np.mean([change.cells for change in changes[1:]], axis=0)
    assert cells[1, 0] > 0.005 and cells[:, 2].max() == 0


def test_a_camera_that_shakes_is_unsteady() -> None:
    scene, meter = noise(2), MotionMeter()
    offsets = [(0, 0), (9, -7), (-8, 6), (7, 9), (-9, -8), (8, 5)]
    frames = [scene[90 + y : 270 + y, 160 + x : 480 + x] for x, y in offsets]
    changes = [meter.add(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)) for frame in frames]
    assert camera_of(changes[1:]) == "unsteady"


def test_cuts_fades_and_dissolves_begin_shots() -> None:
    scenes = [cv2.GaussianBlur(noise(seed, (90, 160)), (0, 0), 3) for seed in range(4)]
    black = np.zeros_like(scenes[0])
    frames = [scenes[0]] * 30 + [scenes[1]] * 30
    frames += [cv2.addWeighted(scenes[1], 1 - share, black, share, 0) for share in np.linspace(0, 1, 8)] + [black] * 3
    frames += [cv2.addWeighted(black, 1 - share, scenes[2], share, 0) for share in np.linspace(0, 1, 8)]
    frames += [scenes[2]] * 30
    frames += [cv2.addWeighted(scenes[2], 1 - share, scenes[3], share, 0) for share in np.linspace(0, 1, 5)]
    frames += [scenes[3]] * 30
    finder = ShotFinder()
    finder.add(frames)
    cuts, true = finder.cuts(), (6.0, 13.8, 21.9)
    assert all(min(abs(cut - place) for cut in cuts) < 0.8 for place in true)
    assert all(min(abs(cut - place) for place in true) < 0.8 for cut in cuts)


def halves(image: np.ndarray) -> tuple[str, str]:
    """The colours that cover more than half of the upper, and of the lower half."""
    meter = SignalMeter("video")
    meter.add(image[None], [image])
    (row,) = meter.rows((Span(start=0, end=1),))
    return (row.upper if row.upper_share > 0.5 else "", row.lower if row.lower_share > 0.5 else "")


@pytest.mark.parametrize("bars", [(50, 0), (0, 90), (40, 60)])
def test_black_bars_are_no_part_of_the_view(bars: tuple[int, int]) -> None:
    rows, columns = bars
    image = np.zeros((180, 320, 3), np.uint8)
    shown = image[rows : 180 - rows, columns : 320 - columns]
    shown[:] = (60, 160, 60)
    shown[: len(shown) // 2] = (200, 120, 60)
    assert halves(image) == ("blue", "green")


def test_a_title_on_black_and_a_dark_foreground_are_black() -> None:
    title = np.zeros((180, 320, 3), np.uint8)
    cv2.putText(title, "A FILM", (90, 100), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (255, 255, 255), 6)
    assert halves(title) == halves(np.zeros_like(title)) == ("black", "black")
    night = np.zeros((180, 320, 3), np.uint8)
    night[:80] = (200, 120, 60)
    assert halves(night) == ("blue", "black")


def test_pictures_that_look_alike_have_near_hashes() -> None:
    def bits(a: np.ndarray, b: np.ndarray) -> int:
        hashes = (frame_hash(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)) for image in (a, b))
        return (int(next(hashes), 16) ^ int(next(hashes), 16)).bit_count()

    image = noise(3)
    assert bits(image, cv2.resize(image, (320, 180), interpolation=cv2.INTER_AREA)) <= 4
    assert bits(image, noise(4)) >= 16


def decoded(path: Path, tmp_path: Path) -> Decoded:
    return decode_once(path, tmp_path / "proxy.mp4", "video")


def test_a_synthetic_video_is_read_back_as_it_was_scripted(tmp_path: Path) -> None:
    from marathon_pipeline.synthetic.script import Script
    from marathon_pipeline.synthetic.videos import write_videos

    (video,) = write_videos(tmp_path / "videos", 1, 3, 77)
    script = Script.model_validate_json(video.with_suffix(".json").read_text())
    result = decoded(video, tmp_path)
    expected = found = reported = 0
    for row in result.signals:
        time = row.second + 0.4
        if any(abs(time - stay.start) < 1.2 for stay in script.stays):
            continue
        for thing in script.things:
            box, action = script.box(thing.id, time), script.action(thing.id, time)
            if not box or not action or action.kind == "turn" or min(box) < 0.01 or max(box) > 0.99:
                continue
            expected += 1
            x, y, colour = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, script.colour(thing.id, time)
            found += any(
                (seen.colour, seen.shape) == (colour, thing.shape) and abs(seen.x - x) < 0.03 and abs(seen.y - y) < 0.03
                for seen in row.things
            )
        reported += sum(seen.shape != "thing" for seen in row.things)
        visible = sum(script.visible(thing.id, time) for thing in script.things)
        assert len(row.things) <= visible
    assert expected > 100 and found >= 0.99 * expected and reported <= 1.05 * expected
    assert {row.camera for row in result.signals} == {"still"}
    cuts = [stay.start for stay in script.stays[1:]]
    assert [shot.start for shot in result.shots[1:]] == pytest.approx(cuts, abs=1.2)


def test_rows_are_complete_and_compact(tmp_path: Path, real_videos: Path) -> None:
    result = decoded(real_videos / "googlework.mp4", tmp_path)
    assert len(result.shots) >= 18
    for row in result.signals:
        assert sum(row.colours.model_dump().values()) == pytest.approx(1, abs=0.001)
        assert len(row.motion_grid) == 9 and len(row.frame_hash) == 16
        shot = result.shots[row.shot]
        assert shot.start <= row.second + 0.4 < max(shot.end, row.second + 0.41)
    assert max(len(row.model_dump_json()) for row in result.signals) < 1500


@pytest.mark.parametrize("name", ["charades_indoor.mp4", "highway_cam_mpeg4.avi", "chaplin.mp4"])
def test_a_fixed_camera_is_still_and_a_single_shot(tmp_path: Path, real_videos: Path, name: str) -> None:
    result = decoded(real_videos / name, tmp_path)
    assert len(result.shots) == 1 and {row.camera for row in result.signals} == {"still"}


def test_a_head_camera_is_not_still(tmp_path: Path, real_videos: Path) -> None:
    result = decoded(real_videos / "kitchen_ego.mp4", tmp_path)
    assert len(result.shots) == 1
    assert sum(row.camera != "still" for row in result.signals) > len(result.signals) / 2
    assert not any(row.things for row in result.signals)
