"""Shots by PySceneDetect's own detectors, fed with small frames."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise

import cv2

from marathon_pipeline.ffmpeg import without_terminal
from marathon_pipeline.records import Span

with without_terminal():  # PySceneDetect runs ffmpeg as it is imported
    from scenedetect import AdaptiveDetector, FrameTimecode, HashDetector, SceneDetector, ThresholdDetector

RATE = 5  # frames a second that are measured
_SHORTEST = 3  # frames: a shot is 0.6 s at least
_BLACK = 12  # mean level of 255 under which a picture counts as faded out
_DISSOLVE = 8  # frames around a cut in which a dissolve is the same change seen again


class ShotFinder:
    """Finds cuts, fades through black and dissolves in frames that come in order, `RATE` a second.

    A cut stands out from the frames around it, by far in a calm video; a hand-held camera changes colour and light
    without pause, and there it has to change the picture's structure too. A dissolve changes too little from one frame
    to the next: it is a cut in one frame a second. There people who walk by change much too, so it has to stand out
    more.
    """

    def __init__(self) -> None:
        self._clear = AdaptiveDetector(adaptive_threshold=3.3, min_content_val=15.0, min_scene_len=1)
        self._change = AdaptiveDetector(adaptive_threshold=1.8, min_content_val=3.0, min_scene_len=1)
        self._structure = HashDetector(threshold=0.4, min_scene_len=1)
        self._fade = ThresholdDetector(threshold=_BLACK, min_scene_len=_SHORTEST)
        self._seconds = AdaptiveDetector(adaptive_threshold=5.0, min_content_val=22.0, min_scene_len=1)
        self._found: dict[SceneDetector, set[int]] = defaultdict(set)
        self._count = 0

    def add(self, frames: Sequence[cv2.typing.MatLike]) -> None:
        """frames: each (height, width, 3), BGR."""
        for frame in frames:
            time = FrameTimecode(self._count, fps=float(RATE))
            detectors = [self._clear, self._change, self._structure, self._fade]
            if self._count % RATE == RATE // 2:
                detectors.append(self._seconds)
            for detector in detectors:
                self._found[detector].update(cut.frame_num for cut in detector.process_frame(time, frame))
            self._count += 1

    def cuts(self) -> tuple[float, ...]:
        """Seconds at which a new shot begins, in order, none within 0.6 s of another or of either end."""
        found = self._found
        sudden = found[self._clear] | found[self._fade] | (found[self._change] & found[self._structure])
        dissolves = {frame - RATE // 2 for frame in found[self._seconds]}
        gradual = {frame for frame in dissolves if all(abs(frame - cut) > _DISSOLVE for cut in sudden)}
        kept: list[int] = []
        for cut in sorted(sudden | gradual):
            if cut - (kept[-1] if kept else 0) >= _SHORTEST and self._count - cut >= _SHORTEST:
                kept.append(cut)
        return tuple(cut / RATE for cut in kept)


def shots_of(cuts: Iterable[float], seconds: float) -> tuple[Span, ...]:
    """The shots between cuts, from 0 to `seconds`."""
    return tuple(Span(start=start, end=end) for start, end in pairwise((0.0, *cuts, seconds)))
