"""A proxy, decoded into what a vision tower is given."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from marathon_pipeline.errors import Failed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from av.container import InputContainer
    from numpy.typing import NDArray

    Shape = tuple[int, int, int, int]


def decoded(proxy: bytes, name: str, side: int | None = None) -> "torch.Tensor":
    """All frames of a proxy, (frames, height, width, 3) uint8 RGB, one for each second.

    side: both sides of the frames, to which they are brought while they are decoded, as SigLIP's preprocessing does
    (an hour of 384 x 682 takes 2.8 GB, of 384 x 384 1.6 GB); none: as they are. The paper samples videos of less than
    128 s faster, to 128 frames at least. A proxy holds one frame a second and no more: it gives all that it has, and
    none of them twice, so that frame i stays second i. Raises Failed `unreadable`.
    """
    import torch

    with opened(proxy, name, side) as (shape, pictures):
        frames = torch.empty(shape, dtype=torch.uint8)
        for frame, picture in zip(frames, pictures, strict=True):
            frame.copy_(torch.from_numpy(picture))
    return frames


@contextmanager
def opened(proxy: bytes, name: str, side: int | None) -> "Iterator[tuple[Shape, Iterator[NDArray[np.uint8]]]]":
    """A proxy's shape, (frames, height, width, 3), and its frames, one at a time: all of them, or Failed."""
    import av

    try:
        with av.open(io.BytesIO(proxy), mode="r", format="mp4") as container:  # no playlist, which names other files
            if not container.streams.video:
                raise Failed("unreadable", f"{name}: it holds no video")
            codec = container.streams.video[0].codec_context
            width, height = (side, side) if side else (codec.width, codec.height)
            frames = container.streams.video[0].frames
            if not frames:
                raise Failed("unreadable", f"{name}: it holds no frame")
            yield (frames, height, width, 3), _pictures(container, name, frames, width, height)
    except (av.FFmpegError, OSError) as error:
        raise Failed("unreadable", f"{name}: {error}") from None


def _pictures(
    container: "InputContainer", name: str, frames: int, width: int, height: int
) -> "Iterator[NDArray[np.uint8]]":
    import numpy as np
    from av.video.reformatter import VideoReformatter

    scaler = VideoReformatter()  # one for all: a frame's own is set up anew for each, which takes as long as scaling
    stream = container.streams.video[0]
    stream.thread_type = "NONE"  # the workers are as many as the cores: threads would only wait for each other
    count = 0
    for frame in container.decode(stream):
        count += 1
        if count <= frames:
            scaled = scaler.reformat(frame, width, height, "rgb24", interpolation="BICUBIC", threads=1)
            yield scaled.to_ndarray().astype(np.uint8, copy=False)
    if count != frames:
        raise Failed("unreadable", f"{name}: {count} of {frames} frames decode")
