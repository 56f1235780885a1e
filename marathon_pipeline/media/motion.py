"""How a picture changes from one small frame to the next: what moves in it, and where the camera turns."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from marathon_pipeline.records import Camera

GRID = 3
_SIDE = 96  # longer side of the luma that is compared
_NOISE = 1.0  # mean change, of 255, that an encoder makes by itself
_EXPLAINS = 0.8  # a shift explains a cell where it leaves less than this share of the cell's change
_EXPLAINED = 5  # cells, of 9, that one shift has to explain: a thing that moves over a calm ground explains fewer
_STIR = 4.0  # change of a cell, of 255, beyond its change in brightness, from which it counts as stirred
_STIRRED = 7  # cells, of 9, that have to be stirred at once before the camera and not the scene is taken for its cause
_TURN = 0.004  # of the picture's side between two frames: slower than 2 % a second is still
_SAME = 0.75  # share of a second's frame pairs that have to agree on a direction


@dataclass(frozen=True)
class Change:
    """From one frame to the next."""

    cells: NDArray[np.floating]  # mean absolute luma change by grid cell, 0 to 1, the camera's shift taken out
    x: float = 0.0  # that shift of the picture's content, as a share of its width
    y: float = 0.0  # and of its height
    stirred: bool = False  # all of the picture changes, by more than its brightness


class MotionMeter:
    """Compares each frame with the one before it."""

    def __init__(self) -> None:
        self._before: NDArray[np.float32] | None = None
        self._window: cv2.typing.MatLike | None = None

    def add(self, grey: cv2.typing.MatLike) -> Change:
        """grey: (height, width). The first frame has not changed."""
        height, width = grey.shape
        scale = min(1.0, _SIDE / max(height, width))
        size = (max(GRID, round(width * scale)), max(GRID, round(height * scale)))
        now = cv2.resize(grey, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        before, self._before = self._before, now
        if before is None:
            return Change(np.zeros((GRID, GRID), np.float32))
        if self._window is None:
            self._window = cv2.createHanningWindow(size, cv2.CV_32F)
        difference = now - before
        plain = _cells(np.abs(difference))
        stirred = bool(np.count_nonzero(plain - np.abs(_cells(difference)) > _STIR) >= _STIRRED)
        if np.count_nonzero(plain > _NOISE) >= _EXPLAINED:
            # It windows its arguments in place (OpenCV 5.0).
            (dx, dy), _ = cv2.phaseCorrelate(before.copy(), now.copy(), self._window)
            move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
            rest = _cells(cv2.absdiff(now, cv2.warpAffine(before, move, size, borderMode=cv2.BORDER_REPLICATE)))
            if np.count_nonzero((plain > _NOISE) & (rest < _EXPLAINS * plain)) >= _EXPLAINED:
                return Change(rest / 255, dx / size[0], dy / size[1], stirred)
        return Change(plain / 255, stirred=stirred)


def _cells(change: cv2.typing.MatLike) -> NDArray[np.floating]:
    return np.asarray(cv2.resize(change, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def packed(changes: list[Change]) -> NDArray[np.float64]:
    """Changes as numbers, (n, 12): a fifth of their memory."""
    return np.array([(*change.cells.ravel(), change.x, change.y, change.stirred) for change in changes], np.float64)


def unpacked(numbers: NDArray[np.float64]) -> list[Change]:
    """The changes of which `packed` made the numbers."""
    return [
        Change(row[:9].reshape(GRID, GRID).astype(np.float32), float(row[9]), float(row[10]), bool(row[11]))
        for row in numbers
    ]


def camera_of(changes: list[Change]) -> Camera:
    """Where the camera turns in one second: a direction only where its frames agree. Content moves the other way."""
    if not changes:
        return "still"
    shifts = np.array([(change.x, change.y) for change in changes])
    middle = np.median(shifts, axis=0)
    axis = int(np.abs(middle).argmax())
    along = shifts[:, axis] * np.sign(middle[axis])
    if np.mean(along >= _TURN) >= _SAME and abs(middle[axis]) >= 2 * abs(middle[1 - axis]):
        directions: tuple[tuple[Camera, Camera], ...] = (("right", "left"), ("down", "up"))
        return directions[axis][int(middle[axis] > 0)]
    moving = (np.abs(shifts).max(axis=1) >= _TURN) | np.array([change.stirred for change in changes])
    return "unsteady" if moving.mean() >= _SAME else "still"
