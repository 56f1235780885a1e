"""Renders a script to an H.264 video."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import ffmpeg
import numpy as np
from numpy.typing import NDArray

from marathon_pipeline.errors import UserError
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.records import Colour, digest
from marathon_pipeline.synthetic.script import EXTENT, FADE, Outline, Place, Pose, Script

Frame = NDArray[np.uint8]
Hsv = tuple[float, float, float]  # degrees, 0 to 1, 0 to 1

VIVID: dict[str, Hsv] = {
    "red": (0, 0.9, 0.85),
    "orange": (28, 0.95, 0.95),
    "yellow": (55, 0.92, 0.95),
    "green": (120, 0.85, 0.7),
    "blue": (220, 0.88, 0.9),
    "purple": (280, 0.85, 0.75),
    "pink": (325, 0.85, 0.95),
}
CALM: dict[str, dict[str, Hsv]] = {  # too weak in colour to be taken for a thing, strong enough to have a name
    "day": {
        "black": (0, 0, 0.08),
        "white": (0, 0, 0.94),
        "grey": (0, 0, 0.55),
        "blue": (215, 0.32, 0.82),
        "green": (120, 0.32, 0.74),
        "purple": (280, 0.32, 0.76),
        "brown": (24, 0.34, 0.5),
        "yellow": (55, 0.34, 0.92),
        "pink": (328, 0.3, 0.92),
    },
    "night": {
        "black": (0, 0, 0.06),
        "grey": (0, 0, 0.36),
        "blue": (218, 0.34, 0.4),
        "green": (120, 0.34, 0.38),
        "purple": (280, 0.34, 0.4),
        "brown": (24, 0.34, 0.34),
    },
}
SUBPIXEL = 4  # bits: what moves slowly moves smoothly


def render(script: Script, path: Path, progress: Callable[[float], None] | None = None) -> None:
    """Write the video of a script: H.264 in mp4, with B-frames and few key frames.

    The file appears whole or not at all; the same script gives the same frames. progress: called with the seconds
    rendered. Raises UserError where ffmpeg fails.
    """
    temporary = path.with_name(f".{path.name}.part")
    picture = ffmpeg.input(
        "pipe:", format="rawvideo", pix_fmt="yuv420p", s=f"{script.width}x{script.height}", r=script.fps
    )
    process = picture.output(
        f"file:{temporary}",  # a colon in a folder's name is no protocol
        format="mp4",
        vcodec="libx264",
        preset="veryfast",
        crf=22,
        bf=3,
        g=20 * script.fps,
        threads=1,
        movflags="+faststart",
        fflags="+bitexact",
        colorspace="smpte170m",
        color_primaries="smpte170m",
        color_trc="smpte170m",
        color_range="tv",
    ).global_args("-loglevel", "error", "-nostdin", "-y")
    with process.run_async(cmd=ffmpeg_binary(), pipe_stdin=True, pipe_stderr=True) as encoder:
        try:
            for count, frame in enumerate(frames(script)):
                encoder.stdin.write(frame.data)
                if progress and count % (10 * script.fps) == 0:
                    progress(count / script.fps)
        except BrokenPipeError:
            pass
        except BaseException:
            encoder.kill()
            encoder.communicate()
            temporary.unlink(missing_ok=True)
            raise
        _, said = encoder.communicate()
    if encoder.returncode:
        temporary.unlink(missing_ok=True)
        reason = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise UserError(f"{path}: ffmpeg could not write the video: {reason[-1]}")
    temporary.replace(path)


def frames(script: Script) -> Iterator[Frame]:
    """Every frame as planar YUV 4:2:0 (BT.601, limited range), (height * 3 / 2, width); not to be written to."""
    painter = _Painter(script)
    shown: object = None
    stay = -1
    picture = before = painter.backdrop(script.place(0.0))
    for count in range(round(script.seconds * script.fps)):
        t = count / script.fps
        now = script.stay(t)
        if now != stay:
            stay, before = now, picture
        entry = script.stays[stay]
        share = min(1.0, (t - entry.start) / FADE) if entry.into == "fade" else 1.0
        poses = [(thing.id, pose) for thing in script.things if (pose := script.pose(thing.id, t))]
        if (stay, share, poses) != shown:
            shown = (stay, share, poses)
            picture = painter.picture(script.place(t), poses)
            if share < 1:
                picture = cv2.addWeighted(before, 1 - share, picture, share, 0).astype(np.uint8)
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420).astype(np.uint8, copy=False)
        yield planes


class _Painter:
    def __init__(self, script: Script) -> None:
        self.script = script
        self.shapes = {thing.id: thing.shape for thing in script.things}
        self.backdrops: dict[str, Frame] = {}

    def backdrop(self, place: Place) -> Frame:
        if place.id not in self.backdrops:
            self.backdrops[place.id] = _backdrop(place, self.script)
        return self.backdrops[place.id]

    def picture(self, place: Place, poses: list[tuple[str, Pose]]) -> Frame:
        picture = self.backdrop(place).copy()
        for thing, pose in poses:
            _draw(picture, self.shapes[thing], pose)
        return picture


def _backdrop(place: Place, script: Script) -> Frame:
    """Two bands, each a little brighter towards the horizon, with a fine grain that stands still."""
    height, width = script.height, script.width
    rows = (np.arange(height) + 0.5) / height
    above = rows < place.horizon
    nearness = np.where(above, rows / place.horizon, (1 - rows) / (1 - place.horizon))
    colours = np.where(above[:, None], rgb(CALM[place.light][place.upper]), rgb(CALM[place.light][place.lower]))
    shades = colours * (0.96 + 0.08 * nearness)[:, None]
    generator = np.random.default_rng(int(digest(["grain", script.seed, place.id])[:16], 16))
    grain = cv2.resize(
        generator.uniform(-3, 3, (height // 6, width // 6)), (width, height), interpolation=cv2.INTER_LINEAR
    )
    picture: Frame = np.clip(shades[:, None] + grain[:, :, None], 0, 255).astype(np.uint8)
    return picture


def _draw(picture: Frame, shape: Outline, pose: Pose) -> None:
    height, width = picture.shape[:2]
    unit = height * (1 << SUBPIXEL)
    x, y = pose.x * width * (1 << SUBPIXEL), pose.y * unit
    # Pixel centres lie at whole numbers for OpenCV, at halves in the script.
    x, y = x - (1 << SUBPIXEL) / 2, y - (1 << SUBPIXEL) / 2
    across, down = EXTENT[shape][0] * pose.radius * unit, EXTENT[shape][1] * pose.radius * unit
    colour = tuple(_blend(pose.before, pose.colour, pose.turned).round().tolist())
    if shape == "circle":
        cv2.circle(picture, (round(x), round(y)), round(across), colour, cv2.FILLED, cv2.LINE_AA, SUBPIXEL)
        return
    top = [(0.0, -down)] if shape == "triangle" else [(-across, -down), (across, -down)]
    corners = np.add([*top, (across, down), (-across, down)], (x, y))
    cv2.fillPoly(picture, [corners.round().astype(np.int32)], colour, cv2.LINE_AA, SUBPIXEL)


def _blend(before: Colour, after: Colour, share: float) -> NDArray[np.float64]:
    return rgb(VIVID[before]) * (1 - share) + rgb(VIVID[after]) * share


def rgb(colour: Hsv) -> NDArray[np.float64]:
    """Hue, saturation and value as red, green and blue, 0 to 255."""
    hue, saturation, value = colour
    sectors = (np.array([5.0, 3.0, 1.0]) + hue / 60) % 6
    shades: NDArray[np.float64] = 255 * value * (1 - saturation * np.clip(np.minimum(sectors, 4 - sectors), 0, 1))
    return shades
