"""Shots by PySceneDetect's own detectors, fed with small frames."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from marathon_pipeline.ffmpeg import without_terminal
from marathon_pipeline.records import Span

with without_terminal():  # PySceneDetect runs ffmpeg as it is imported
    from scenedetect import AdaptiveDetector, FrameTimecode, HashDetector, SceneDetector, ThresholdDetector

RATE = 5  # frames a second that are measured
_SHORTEST = 3  # frames: a shot is 0.6 s at least
_BLACK = 12  # mean level of 255 under which a picture counts as faded out
_HASH = 8  # side of a perceptual hash
_RESTRUCTURED = 0.4  # share of its bits that a cut changes
_CELLS = 6  # a side of the grid in which parts of a picture are compared
_TEXTURE = 6.0  # deviation of the value in a cell: less is flat, and may be alike in two shots
_SAME = 8.0  # mean change of a cell's hue, saturation and value under which it stays as it was
_STAYS = 0.18  # share of the cells that stay as they were when only a part of the picture changes
_CALM = 0.05  # of a change: the changes before and after it, where a new slide and no movement is the cause
_DISSOLVE = 8  # frames around a cut in which a dissolve is the same change seen again


class _Adaptive(AdaptiveDetector):  # type: ignore[misc]  # it has no types
    """PySceneDetect's detector for HSV frames, its score computed by OpenCV: the same number in a fifth of the time."""

    _before: cv2.typing.MatLike | None = None

    def _calculate_frame_score(self, timecode: FrameTimecode, frame_img: cv2.typing.MatLike) -> float:
        before, self._before = self._before, frame_img
        return 0.0 if before is None else _amount(cv2.absdiff(before, frame_img))


class ShotFinder:
    """Finds cuts, fades through black and dissolves in frames that come in order, `RATE` a second.

    A cut stands out from the frames around it, by far in a calm video; a hand-held camera changes colour and light
    without pause, and there it has to change the picture's structure too. What passes close to the camera changes a
    part of the picture only. A dissolve changes too little from one frame to the next: it is a cut in one frame a
    second. There people who walk by change much too, so it has to stand out more.
    """

    def __init__(self) -> None:
        self._clear = _Adaptive(adaptive_threshold=3.3, min_content_val=15.0, min_scene_len=1)
        self._change = _Adaptive(adaptive_threshold=1.8, min_content_val=3.0, min_scene_len=1)
        self._fade = ThresholdDetector(threshold=_BLACK, min_scene_len=_SHORTEST)
        self._seconds = _Adaptive(adaptive_threshold=5.0, min_content_val=22.0, min_scene_len=1)
        self._around: deque[cv2.typing.MatLike] = deque(maxlen=1 + 2 * self._clear.event_buffer_length)
        self._sudden: set[int] = set()
        self._dissolves: set[int] = set()
        self._count = 0

    def add(self, frames: Sequence[cv2.typing.MatLike]) -> None:
        """frames: each (height, width, 3), BGR."""
        for frame in frames:
            time = FrameTimecode(self._count, fps=float(RATE))
            self._around.append(frame)
            hsv = cv2.cvtColor(frame, cv2.COLOR_BGR2HSV)
            clear, changes = _cuts(self._clear, time, hsv), _cuts(self._change, time, hsv)
            if (clear or (changes and self._structure_changes())) and not self._only_a_part_changes():
                self._sudden.update(changes)  # whatever is clear is a change too
            self._sudden.update(_cuts(self._fade, time, frame))
            if self._count % RATE == RATE // 2:
                self._dissolves.update(cut - RATE // 2 for cut in _cuts(self._seconds, time, hsv))
            self._count += 1

    def _structure_changes(self) -> bool:
        """Whether the picture that the detectors look at differs from the one before as much as HashDetector asks."""
        before, after = (HashDetector.hash_frame(self._around[index], _HASH, 2) for index in (1, 2))
        return bool(np.count_nonzero(before != after) >= _RESTRUCTURED * _HASH**2)

    def _only_a_part_changes(self) -> bool:
        """Whether something large has moved, before pictures that stay and are not flat."""
        earlier, before, after, later, _ = (cv2.cvtColor(frame, cv2.COLOR_BGR2HSV) for frame in self._around)
        change = cv2.absdiff(before, after)
        same = (_in_cells(change).mean(axis=2) < _SAME) & (_texture(before) > _TEXTURE) & (_texture(after) > _TEXTURE)
        moves = max(_amount(cv2.absdiff(earlier, before)), _amount(cv2.absdiff(after, later)))
        return bool(same.mean() >= _STAYS and moves > _CALM * _amount(change))

    def cuts(self) -> tuple[float, ...]:
        """Seconds at which a new shot begins, in order, none within 0.6 s of another or of either end."""
        gradual = {cut for cut in self._dissolves if all(abs(cut - other) > _DISSOLVE for other in self._sudden)}
        kept: list[int] = []
        for cut in sorted(self._sudden | gradual):
            if cut - (kept[-1] if kept else 0) >= _SHORTEST and self._count - cut >= _SHORTEST:
                kept.append(cut)
        return tuple(cut / RATE for cut in kept)


def _cuts(detector: SceneDetector, time: FrameTimecode, frame: cv2.typing.MatLike) -> list[int]:
    return [cut.frame_num for cut in detector.process_frame(time, frame)]


def _amount(change: cv2.typing.MatLike) -> float:
    """The mean of three channels."""
    return sum(cv2.mean(change)) / 3


def _in_cells(values: cv2.typing.MatLike) -> NDArray[np.float32]:
    """Means by grid cell."""
    cells = cv2.resize(values.astype(np.float32), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    return np.asarray(cells, np.float32)


def _texture(hsv: cv2.typing.MatLike) -> NDArray[np.float32]:
    """The deviation of the value in each cell."""
    value = hsv[..., 2].astype(np.float32)
    variance = _in_cells(value**2) - _in_cells(value) ** 2
    deviation: NDArray[np.float32] = np.sqrt(np.maximum(variance, 0))
    return deviation


def shots_of(cuts: Iterable[float], seconds: float) -> tuple[Span, ...]:
    """The shots between cuts, from 0 to `seconds`."""
    return tuple(Span(start=start, end=end) for start, end in pairwise((0.0, *cuts, seconds)))
