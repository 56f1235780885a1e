"""The windows that a video is captioned in."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marathon_pipeline.media.windows import windows

lengths = st.floats(0.2, 4_000)
clips = st.floats(10, 120)
strides = st.floats(0.2, 1)  # of a clip


@given(lengths, clips, strides)
def test_windows_cover_a_video_and_nothing_else(seconds: float, clip: float, stride: float) -> None:
    found = windows(seconds, clip, clip * stride)
    assert found[0].start == 0 and found[-1].end == seconds
    assert all(after.start <= before.end for before, after in pairwise(found))


@given(lengths, clips, strides)
def test_no_window_lies_wholly_in_the_one_before(seconds: float, clip: float, stride: float) -> None:
    found = windows(seconds, clip, clip * stride)
    assert all(before.start < after.start and before.end < after.end for before, after in pairwise(found))
    assert all(window.end - window.start <= clip * (1 + 1e-9) for window in found)


def test_windows_of_a_hundred_seconds() -> None:
    assert [(window.start, window.end) for window in windows(100)] == [(0, 30), (20, 50), (40, 70), (60, 90), (80, 100)]
    assert [(window.start, window.end) for window in windows(12)] == [(0, 12)]


@pytest.mark.parametrize("arguments", [(0, 30, 20), (10, 20, 30), (10, 20, 0)])
def test_windows_that_leave_gaps_are_refused(arguments: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="no windows"):
        windows(*arguments)
