"""What a video file's header says, checked against its first frame.

A process of its own reads it (`header.py`): libav is C, and a hostile file that crashes it, hangs it or fills the
memory would take a worker down.
"""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from marathon_pipeline.errors import Failed
from marathon_pipeline.ffmpeg import failed_from_outside
from marathon_pipeline.media.settings import DecodeSettings

# Containers that hold their media themselves. Playlists and scripts (HLS, DASH, concat, SDP) are refused: a stranger's
# playlist can name any file of this machine.
CONTAINERS = "mov,matroska,webm,avi,ogg,flv,live_flv,mpegts,mpeg,asf,rm,mxf,gif,nut,ivf,dv,h264,hevc,m4v,mpegvideo"
OPEN_OPTIONS = {"protocol_whitelist": "file,pipe", "format_whitelist": CONTAINERS}
_SCRIPT = Path(__file__).with_name("header.py")


class Probe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float  # of the video stream where the header has it, else of the container, else of the packets
    width: int  # as shown: after rotation, in square pixels
    height: int
    fps: float  # 0: not stated
    codec: str
    stream: int  # index of the video stream in the file
    audio: bool


def probe(path: Path, settings: DecodeSettings | None = None) -> Probe:
    """Read a file's header and first frame.

    Raises Failed: `not_a_file` (a folder, a pipe, a device), `empty` (0 bytes), `unreadable` (no container that is read
    here, a lone fragment), `no_video` (audio or a cover picture only), `unknown_codec`, `no_frames` (a stream without a
    frame that decodes), `picture_size` (more than `settings.max_pixels`, or a side of more than 16,384), `memory`, and
    `decoder_timeout`, `decoder_crashed`, `decoder_error`, and the transient `disk_full` and `decoder_killed`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise Failed("unreadable", f"{path.name}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise Failed("not_a_file", f"{path.name} is a folder, a pipe or a device")
    if status.st_size == 0:
        raise Failed("empty", f"{path.name} has 0 bytes")
    return Probe.model_validate(_ask(path, settings or DecodeSettings(), what="probe"))


def packet_ends(path: Path, stream: int, settings: DecodeSettings) -> tuple[float, float]:
    """Seconds at which the packets of one stream, and of all streams, end. Demuxes the file: costs its reading."""
    found = _ask(path, settings, what="ends", stream=stream)
    return found["own"], found["every"]


def _ask(path: Path, settings: DecodeSettings, **asked: str | int) -> dict[str, Any]:
    limits = {"max_pixels": settings.max_pixels, "max_memory": settings.max_memory}
    command = [
        sys.executable,
        "-P",
        str(_SCRIPT),
        json.dumps({"path": str(path), "options": OPEN_OPTIONS, **limits, **asked}),
    ]
    try:
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=settings.timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired:
        said = f"{path.name}: its header was not read within {settings.timeout_seconds:.0f} s"
        raise Failed("decoder_timeout", said) from None
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode and (failure := failed_from_outside(done.returncode, said, path.name)) is not None:
        raise failure
    if done.returncode < 0:
        raise Failed("decoder_crashed", f"{path.name}: reading its header died of signal {-done.returncode}")
    if done.returncode:
        last = said.splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise Failed("decoder_error", f"{path.name}: {last[0][:300]}")
    found: dict[str, Any] = json.loads(done.stdout)
    if "reason" in found:
        raise Failed(found["reason"], f"{path.name}: {found['message']}")
    return found
