"""Where the ffmpeg binary is, and how to keep it off the terminal."""

import functools
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marathon_pipeline.errors import Failed, UserError

_EXIT_SIGNALLED = 255  # what ffmpeg makes of SIGINT and SIGTERM
_SENT_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@functools.cache
def ffmpeg_binary() -> str:
    """The system's ffmpeg, else the one that comes with imageio-ffmpeg; raises UserError where there is neither."""
    if found := shutil.which("ffmpeg"):
        return found
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        return str(get_ffmpeg_exe())
    except RuntimeError as error:
        raise UserError(
            "ffmpeg was not found on PATH and imageio-ffmpeg holds none for this system: install ffmpeg"
        ) from error


def failed_from_outside(status: int, said: str, name: str) -> Failed | None:
    """Why an ffmpeg ended badly, where that says nothing about the video. said: on its stderr."""
    if "No space left on device" in said:
        return Failed("disk_full", f"{name}: {said.strip().splitlines()[-1]}", transient=True)
    if -status in _SENT_FROM_OUTSIDE or status == _EXIT_SIGNALLED:
        return Failed("decoder_killed", f"{name}: a signal from outside ended the decoder", transient=True)
    return None


@contextmanager
def without_terminal() -> Iterator[None]:
    """What is started meanwhile finds /dev/null on its stdin.

    An ffmpeg that finds a terminal there takes hold of it. In a background process group, as Ray's workers are, the
    kernel then stops it together with its worker, and the run hangs without a word.
    """
    try:
        own = os.dup(0)
    except OSError:  # no stdin at all, as a daemon may have it
        yield
        return
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    try:
        yield
    finally:
        os.dup2(own, 0)
        os.close(own)
