"""Pictures read back from a proxy."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marathon_pipeline.errors import Failed


def is_whole(data: bytes) -> bool:
    """Whether the boxes of an MP4 are all there, to its last byte: a file that was cut off, or is empty, is none."""
    at, kinds = 0, set()
    while 0 <= at < len(data):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if size == 1:  # the box is large, and tells its size behind its name
            size = int.from_bytes(data[at + 8 : at + 16])
        kinds.add(kind)
        at = at + size if size >= 8 else -1
    return at == len(data) and {b"moov", b"mdat"} <= kinds


def proxy_frame(path: Path, second: int) -> NDArray[np.uint8]:
    """The frame of one second of a proxy, (height, width, 3) uint8 RGB. Raises Failed(`no_frames`) behind its end."""
    import av

    try:
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            stream = container.streams.video[0]
            container.seek(second * av.time_base)  # every frame is a key frame
            for frame in container.decode(stream):
                if frame.time is not None and round(frame.time) == second:
                    return frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except (av.FFmpegError, OSError) as error:
        raise Failed("unreadable", f"{path.name}: {error}") from error
    raise Failed("no_frames", f"{path.name} has no second {second}")


def proxy_jpeg(path: Path, second: int, width: int = 320) -> bytes:
    """The frame of one second of a proxy as a JPEG, at most `width` pixels wide."""
    import cv2

    frame: cv2.typing.MatLike = proxy_frame(path, second)[..., ::-1]
    if frame.shape[1] > width:
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(frame), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return bytes(data)
