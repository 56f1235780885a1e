"""A proxy, decoded into the tensor that a vision tower is given."""

import io
from typing import TYPE_CHECKING

from marathon_pipeline.errors import Failed

if TYPE_CHECKING:
    import torch


def decoded(proxy: bytes, name: str, side: int | None = None) -> "torch.Tensor":
    """All frames of a proxy, (frames, height, width, 3) uint8 RGB, one for each second.

    side: both sides of the frames, to which they are brought while they are decoded, as SigLIP's preprocessing does
    (an hour of 384 x 682 takes 2.8 GB, of 384 x 384 1.6 GB); none: as they are. The paper samples videos of less than
    128 s faster, to 128 frames at least. A proxy holds one frame a second and no more: it gives all that it has, and
    none of them twice, so that frame i stays second i. Raises Failed `unreadable`.
    """
    import av
    import torch

    try:
        with av.open(
            io.BytesIO(proxy), mode="r", format="mp4"
        ) as container:  # nothing but an mp4: a playlist names other files
            if not container.streams.video:
                raise Failed("unreadable", f"{name}: it holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # the workers are as many as the cores: threads would only wait for each other
            width, height = (side, side) if side else (stream.codec_context.width, stream.codec_context.height)
            frames = torch.empty((stream.frames, height, width, 3), dtype=torch.uint8)
            count = 0
            for frame in container.decode(stream):
                if count == len(frames):
                    raise Failed("unreadable", f"{name}: it holds more frames than its header says")
                scaled = frame.reformat(width, height, format="rgb24", interpolation="BICUBIC")
                frames[count] = torch.from_numpy(scaled.to_ndarray())
                count += 1
    except (av.FFmpegError, OSError, ValueError) as error:
        raise Failed("unreadable", f"{name}: {error}") from None
    if count == 0 or count < len(frames):
        raise Failed("unreadable", f"{name}: {count} of {len(frames)} frames decode")
    return frames
