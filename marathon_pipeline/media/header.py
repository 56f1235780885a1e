"""Reads a media file's header, first frame or packets: the script of a process that a hostile file may bring down.

`header.py {"what": "probe" | "ends", "path", "options", "stream", "max_pixels", "max_memory"}` prints the finding
as JSON, or `{"reason", "message"}`. It stands by itself, so that it starts in a tenth of a second.
"""

import json
import logging
import resource
import sys
from fractions import Fraction
from typing import Any

import av
from av.stream import Disposition

MAX_SIDE = 16_384  # what scalers and encoders take
_PACKETS_TO_A_FRAME = 256


class _Refused(Exception):
    """reason, message"""


def header(path: str, options: dict[str, str], max_pixels: int) -> dict[str, Any]:
    with _open(path, options) as container:
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise _Refused("no_video", "has no video stream")
        best = container.streams.best("video")
        stream = best if best in streams else streams[0]
        if stream.codec_context is None:
            raise _Refused("unknown_codec", "no decoder for its video stream")
        stated = (stream.width, stream.height)
        if stated[0] * stated[1] > max_pixels:
            raise _Refused("picture_size", f"its header claims {stated[0]} x {stated[1]} pixels")
        seconds = _stated_seconds(container, stream)
        if seconds <= 0:
            seconds = packet_ends(path, options, stream.index)["own"]
        frame = _first_frame(container, stream, max_pixels)
        width, height = Fraction(frame.width), Fraction(frame.height)
        if aspect := stream.sample_aspect_ratio:
            width *= aspect
        if frame.rotation % 180:
            width, height = height, width
        if width * height > max_pixels or max(width, height, frame.width, frame.height) > MAX_SIDE:
            raise _Refused("picture_size", f"a picture of {round(width)} x {round(height)} pixels")
        return {
            "seconds": round(seconds, 3),
            "width": max(1, round(width)),
            "height": max(1, round(height)),
            "fps": round(float(stream.average_rate or 0), 3),
            "codec": stream.codec_context.name,
            "stream": stream.index,
            "audio": bool(container.streams.audio),
        }


def packet_ends(path: str, options: dict[str, str], stream: int) -> dict[str, float]:
    own = every = 0.0
    with _open(path, options) as container:
        origin = (container.start_time or 0) / av.time_base
        try:
            for packet in container.demux():
                if packet.pts is None or packet.time_base is None or packet.is_corrupt:
                    continue
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - origin
                every = max(every, end)
                if packet.stream.index == stream:
                    own = max(own, end)
        except av.FFmpegError:  # damage ends the reading; what came before it counts
            pass
    return {"own": own, "every": every}


def _open(path: str, options: dict[str, str]) -> Any:
    return av.open(f"file:{path}", options=options, metadata_errors="replace")


def _stated_seconds(container: Any, stream: Any) -> float:
    if stream.duration and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    return float((container.duration or 0) / av.time_base)


def _first_frame(container: Any, stream: Any, max_pixels: int) -> Any:
    stream.thread_type = "NONE"
    stream.codec_context.options = {"max_pixels": str(max_pixels)}
    said = ""
    for count, packet in enumerate(container.demux(stream)):
        try:
            if frames := packet.decode():
                return frames[0]
        except av.FFmpegError as error:  # a damaged packet: a later one may decode
            log: Any = error.log  # PyAV's own types say otherwise: level, component, message
            said = said or (str(log[-1]).strip() if log else "")
        if count == _PACKETS_TO_A_FRAME:
            break
    if "icture size" in said:  # libav's word for more than max_pixels
        raise _Refused("picture_size", said)
    raise _Refused("no_frames", f"no frame decodes{said and ': '}{said}")


def main() -> None:
    asked = json.loads(sys.argv[1])
    av.logging.set_level(av.logging.ERROR)  # an error comes with what the decoder said
    logging.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere an address space is not what a process uses
        resource.setrlimit(resource.RLIMIT_AS, (asked["max_memory"], asked["max_memory"]))
    found: dict[str, Any]
    try:
        if asked["what"] == "probe":
            found = header(asked["path"], asked["options"], asked["max_pixels"])
        else:
            found = packet_ends(asked["path"], asked["options"], asked["stream"])
    except _Refused as refused:
        found = {"reason": refused.args[0], "message": refused.args[1]}
    except MemoryError:
        found = {"reason": "memory", "message": f"reading its header takes more than {asked['max_memory']:,} bytes"}
    except (av.FFmpegError, OSError) as error:
        said = str(getattr(error, "strerror", None) or error).splitlines()[0]
        found = {"reason": "memory" if getattr(error, "errno", 0) == 12 else "unreadable", "message": said}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
