"""Single pictures out of a proxy, as JPEG."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from marathon_pipeline.errors import Failed
from marathon_pipeline.ffmpeg import failed_from_outside, ffmpeg_binary

_QUALITY = 3  # of 2 (best) to 31
_TIMEOUT = 60.0


def jpegs(proxy: Path, seconds: Sequence[int], height: int) -> list[bytes]:
    """The pictures that a proxy holds for these whole seconds, in ascending order, scaled down to a height.

    Raises Failed: `frames` where one is missing, and the transient `decoder_killed` and `disk_full`.
    """
    import ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        # Every picture of a proxy is a key frame, the one for second i shown from i on.
        chosen = "+".join(f"eq(n,{second - seconds[0]})" for second in seconds)
        command = (
            ffmpeg.input(f"file:{proxy}", ss=seconds[0], t=seconds[-1] - seconds[0] + 1, threads=1)
            .filter("select", chosen)
            .filter("scale", -2, f"min({height},ih)", flags="area")
            .output(f"{folder}/%04d.jpg", fps_mode="passthrough", **{"q:v": _QUALITY}, threads=1)
            .global_args("-v", "error", "-nostdin", "-filter_threads", "1")
            .compile(cmd=ffmpeg_binary())
        )
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT)  # noqa: S603
        except subprocess.TimeoutExpired:
            raise Failed("frames", f"{proxy.name}: no pictures within {_TIMEOUT:.0f} s", transient=True) from None
        pictures = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    if len(pictures) != len(seconds):
        said = done.stderr.decode(errors="replace")
        if (failure := failed_from_outside(done.returncode, said, proxy.name)) is not None:
            raise failure
        last = said.strip().splitlines()[-1:]
        raise Failed("frames", f"{proxy.name}: {len(pictures)} of {len(seconds)} pictures {' '.join(last)}".strip())
    return pictures
