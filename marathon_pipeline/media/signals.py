"""What is measured in each second of a video, from its small frames."""

import bisect
import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from marathon_pipeline.media.colours import NAMES, names
from marathon_pipeline.media.motion import MotionMeter, camera_of, packed, unpacked
from marathon_pipeline.media.shots import RATE
from marathon_pipeline.media.things import things_in
from marathon_pipeline.records import Colour, ColourShares, Signals, Span

FRAME_OF_SECOND = 2  # which of a second's frames stands for it: the middle one
_BLACK = 24  # of 255: no pixel of a black bar is brighter
_SPECKS = 0.02  # share of a bar's row that may be brighter
_STRAIGHT = 0.5  # share of the row next to a bar that is brighter: less is a dark scene, or a title on black
_BAR = 0.4  # share of the picture's height, or width, that a bar takes at most

cv2.setNumThreads(1)


class SignalMeter:
    """Measures a video second by second; `rows` closes it, when the shots are known."""

    def __init__(self, video_id: str) -> None:
        self._video_id = video_id
        self._seconds: deque[tuple[bytes, NDArray[np.float64]]] = deque()  # packed: a video may last for hours
        self._motion = MotionMeter()

    def add(self, frames: NDArray[np.uint8], coarse: Sequence[cv2.typing.MatLike]) -> None:
        """One second's frames, (`RATE`, in the last second fewer, height, width, 3), BGR; coarse: the same, smaller."""
        greys = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in coarse]
        middle = min(FRAME_OF_SECOND, len(frames) - 1)
        picture = _picture(frames[middle], greys[middle])
        changes = [self._motion.add(grey) for grey in greys]
        self._seconds.append((pickle.dumps(picture), packed(changes)))

    def rows(self, shots: tuple[Span, ...]) -> Iterator[Signals]:
        """One row per second, once. What changes at a cut is no motion."""
        starts = [shot.start for shot in shots]
        cuts = {round(start * RATE) for start in starts}
        for second in range(len(self._seconds)):
            picture, found = self._seconds.popleft()
            changes = [change for frame, change in enumerate(unpacked(found), second * RATE) if frame not in cuts]
            cells = np.mean([change.cells for change in changes], axis=0) if changes else np.zeros((3, 3))
            yield Signals(
                video_id=self._video_id,
                second=second,
                shot=bisect.bisect_right(starts, second + FRAME_OF_SECOND / RATE) - 1,
                motion=round(float(cells.mean()), 4),
                motion_grid=tuple(round(float(cell), 4) for cell in cells.ravel()),
                camera=camera_of(changes),
                **pickle.loads(picture),  # noqa: S301
            )


def _picture(image: NDArray[np.uint8], grey: cv2.typing.MatLike) -> dict[str, Any]:
    named, strong = names(image)
    things, covered = things_in(image, strong)
    shares = _shares(named)
    shown = _shown(image)
    framed, hidden = named[shown], covered[shown]
    half = max(1, len(framed) // 2)
    upper, upper_share = _dominant(framed[:half], hidden[:half])
    lower, lower_share = _dominant(framed[-half:], hidden[-half:])
    return {
        "frame_hash": frame_hash(grey),
        "brightness": round(float(grey.mean()) / 255, 4),
        "colours": ColourShares(**{name: round(float(share), 4) for name, share in zip(NAMES, shares, strict=True)}),
        "upper": upper,
        "lower": lower,
        "upper_share": upper_share,
        "lower_share": lower_share,
        "things": things,
    }


def _shown(image: NDArray[np.uint8]) -> tuple[slice, slice]:
    """The rows and columns of a picture between its black bars."""
    bright = cv2.max(cv2.max(image[..., 0], image[..., 1]), image[..., 2]) > _BLACK
    return _between_bars(bright.mean(axis=1)), _between_bars(bright.mean(axis=0))


def _between_bars(lit: NDArray[np.floating]) -> slice:
    """lit: the share of each row, or column, that is not black. Bars are alike, and one of them has a straight edge."""
    seen = np.flatnonzero(lit > _SPECKS)
    if len(seen) == 0:
        return slice(None)
    bar = int(min(seen[0], len(lit) - 1 - seen[-1]))
    straight = max(lit[bar : bar + 3].max(), lit[len(lit) - bar - 3 : len(lit) - bar].max()) >= _STRAIGHT
    return slice(bar, len(lit) - bar) if straight and bar <= _BAR * len(lit) else slice(None)


def _shares(named: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.bincount(named.ravel(), minlength=len(NAMES)) / named.size


def _dominant(named: NDArray[np.uint8], covered: NDArray[np.bool_]) -> tuple[Colour, float]:
    """The colour that covers most of a half, things left out, and its share of what is left."""
    left = named[~covered] if not covered.all() else named
    shares = _shares(left)
    index = int(shares.argmax())
    return NAMES[index], round(float(shares[index]), 4)


def frame_hash(grey: cv2.typing.MatLike) -> str:
    """64-bit difference hash of a picture, 16 hex digits: pictures that look alike differ in few bits."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return bits.tobytes().hex()
