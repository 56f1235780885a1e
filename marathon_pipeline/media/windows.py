"""The windows that a video is captioned in."""

from marathon_pipeline.records import Span


def windows(seconds: float, clip_seconds: float = 30.0, stride_seconds: float = 20.0) -> list[Span]:
    """Overlapping windows over a video, in order: one every `stride_seconds`, the last one ending at `seconds`.

    No window lies wholly in the one before it: so the last one may be shorter, and a video that a window holds has one.
    """
    if not (seconds > 0 and 0 < stride_seconds <= clip_seconds):
        raise ValueError(f"no windows of {clip_seconds} s every {stride_seconds} s over {seconds} s")
    spans: list[Span] = []
    while not spans or spans[-1].end < seconds:
        start = len(spans) * stride_seconds
        spans.append(Span(start=start, end=min(start + clip_seconds, seconds)))
    return spans
