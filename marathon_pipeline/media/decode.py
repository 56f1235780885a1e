"""The single decode of a video: one ffmpeg process writes the proxy and pipes small frames to what measures them."""

import math
import resource
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from marathon_pipeline.errors import Failed
from marathon_pipeline.ffmpeg import failed_from_outside, ffmpeg_binary
from marathon_pipeline.media.probe import OPEN_OPTIONS, Probe, packet_ends, probe
from marathon_pipeline.media.settings import DecodeSettings
from marathon_pipeline.media.shots import RATE, ShotFinder, shots_of
from marathon_pipeline.media.signals import FRAME_OF_SECOND, SignalMeter
from marathon_pipeline.records import Packed, Signals, Span

__all__ = ["DecodeSettings", "Decoded", "decode_once"]

_SMALL_PIXELS = 320 * 180
_SMALL_SIDES = (16, 1024)
_NOREF_CODECS = ("h264", "hevc")
_NOREF_FPS = 20.0
_SHRUNK = 1.5
_EXIT_TOO_MANY_ERRORS = 69
_STDERR_TAIL = 8192


@dataclass(frozen=True)
class Decoded:
    seconds: float  # decoded
    shots: tuple[Span, ...]  # they cover 0 to `seconds`
    signals: Packed[Signals]  # one per second begun; row i was measured on the proxy's frame i


def decode_once(
    path: Path,
    proxy: Path,
    video_id: str,
    start: float = 0.0,
    end: float | None = None,
    settings: DecodeSettings | None = None,
) -> Decoded:
    """Decode `start` to `end` (seconds of the file; None: all of it) once: proxy, shots and signals.

    Frames are taken five a second; the proxy holds one of these a second, the one at 0.4 s (the last one of a last
    second that is shorter): H.264, 1 FPS, every frame a key frame, short side `settings.short_side` and never enlarged.
    It appears whole or not at all. Memory does not grow with the length, but for the rows returned.
    Raises Failed with the reasons of `probe`, and `out_of_range` (`start` lies behind the end), `no_frames`,
    `truncated` (the file ends early), `corrupt` (more than `settings.damage` of it does not decode), `decoder_timeout`,
    `decoder_crashed`, `decoder_error`, `memory`, and the transient `disk_full` and `decoder_killed`.
    """
    settings = settings or DecodeSettings()
    header = probe(path, settings)
    stop = header.seconds if end is None else min(end, header.seconds)
    if stop <= start:
        raise Failed("out_of_range", f"{path.name}: {start:g} s lies behind its end at {header.seconds:g} s")
    partial = proxy.with_name(f"{proxy.name}.part.mp4")
    partial.parent.mkdir(parents=True, exist_ok=True)
    width, height = _small_size(header)
    meter, finder = SignalMeter(video_id), ShotFinder()
    frames = 0
    try:
        command = _command(path, partial, header, start, stop, settings)
        with closing(_run(command, (height, width, 3), path.name, stop - start, settings)) as chunks:
            for chunk in chunks:
                coarse = [_coarse(frame) for frame in chunk]
                finder.add(coarse)
                meter.add(chunk, coarse)
                frames += len(chunk)
        if frames == 0:
            raise Failed("no_frames", f"{path.name}: no frame decodes between {start:g} and {stop:g} s")
        _check_length(path, header, start, stop, frames / RATE, settings)
        partial.replace(proxy)
    finally:
        partial.unlink(missing_ok=True)
    seconds = frames / RATE
    shots = shots_of(finder.cuts(), seconds)
    return Decoded(seconds=seconds, shots=shots, signals=Packed(meter.rows(shots)))


def _command(path: Path, proxy: Path, header: Probe, start: float, stop: float, settings: DecodeSettings) -> list[str]:
    import ffmpeg

    options: dict[str, Any] = OPEN_OPTIONS | {
        "threads": settings.threads,
        "max_pixels": settings.max_pixels,  # a picture may be larger than the first one was
        "t": f"{stop - start:.3f}",
        "reinit_filter": 0,
    }
    if start > 0:
        options["ss"] = f"{start:.3f}"
    if settings.skip_unreferenced and header.codec in _NOREF_CODECS:
        if header.fps >= _NOREF_FPS:
            options["skip_frame"] = "noref"  # a slower video would lose the moments between its reference frames
        if min(header.width, header.height) >= _SHRUNK * settings.short_side:
            # Its blocks vanish as the picture shrinks: a tenth to a fifth of the CPU for 0.003 of the proxy's SSIM.
            options["skip_loop_filter"] = "all"
    source = ffmpeg.input(f"file:{path}", **options)[str(header.stream)]
    # A picture may stand for hours: fps repeats it behind the end, and holds what it repeats in memory.
    five = source.filter("fps", RATE, start_time=0).filter("trim", end=f"{stop - start + 1 / RATE:.3f}").split()
    width, height = _small_size(header)
    small = five[0].filter("scale", width, height, flags="area").filter("setsar", 1).filter("format", "bgr24")
    # Clones of the last frame stand in where the last second is too short to have a frame at 0.4 s.
    width, height = _proxy_size(header, settings.short_side)
    second = (
        five[1]
        .filter("tpad", stop_mode="clone", stop=FRAME_OF_SECOND)
        .filter("select", f"eq(mod(n,{RATE}),{FRAME_OF_SECOND})")
        .filter("setpts", "N/TB")
        .filter("scale", width, height, flags="area")
        .filter("setsar", 1)
        .filter("format", "yuv420p")
    )
    pipe = ffmpeg.output(small, "pipe:1", f="rawvideo", fps_mode="passthrough")
    file = ffmpeg.output(
        second,
        f"file:{proxy}",
        f="mp4",
        r=1,
        vcodec="libx264",
        preset="superfast",  # as alike to the source as with veryfast, 9 % larger, and cheaper
        crf=settings.crf,
        g=1,
        sc_threshold=0,  # every frame is a key frame: looking for scene cuts would be for nothing
        threads=1,
        movflags="+faststart",
        map_metadata=-1,
        map_chapters=-1,
        fflags="+bitexact",
        flags="+bitexact",
    )
    command: list[str] = (
        ffmpeg.merge_outputs(pipe, file)
        .global_args(
            *("-v", "error", "-nostdin", "-y", "-filter_complex_threads", "1", "-max_error_rate", str(settings.damage))
        )
        .compile(cmd=ffmpeg_binary())
    )
    return command


def _run(
    command: list[str], shape: tuple[int, int, int], name: str, seconds: float, settings: DecodeSettings
) -> Generator[Any, None, None]:
    """Chunks of frames, (1 to RATE, height, width, 3) uint8 BGR; each is overwritten by the next one."""
    import numpy as np

    buffer = np.empty((RATE, *shape), np.uint8)
    view = memoryview(buffer.data).cast("B")
    limit = settings.timeout_seconds + settings.timeout_per_second * seconds
    late = threading.Event()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
        assert process.stdout and process.stderr
        if sys.platform == "linux":  # elsewhere an address space is not what a process uses
            with suppress(OSError):  # it may be dead already
                resource.prlimit(process.pid, resource.RLIMIT_AS, (settings.max_memory, settings.max_memory))
        tail = _Tail(process.stderr)

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit, kill)
        timer.start()
        try:
            while count := _fill(process.stdout, view) // math.prod(shape):
                yield buffer[:count]
            status = process.wait()
        finally:
            timer.cancel()
            with suppress(ProcessLookupError):
                process.kill()
            said = tail.text()
    if late.is_set():
        raise Failed("decoder_timeout", f"{name}: not decoded within {limit:.0f} s")
    if status:
        raise _failure(status, said, name)


def _fill(stream: IO[bytes], view: memoryview) -> int:
    filled = 0
    while filled < len(view) and (got := stream.readinto(view[filled:])):  # type: ignore[attr-defined]
        filled += got
    return filled


class _Tail:
    """Drains a stream on a thread, so that its writer never waits, and keeps the end of it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._kept = stream, b""
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while chunk := self._stream.read1(4096):  # type: ignore[attr-defined]
            self._kept = (self._kept + chunk)[-_STDERR_TAIL:]

    def text(self) -> str:
        self._thread.join()
        return self._kept.decode(errors="replace")


def _coarse(frame: Any) -> Any:
    """Half a small frame, which is enough to see that something changes, at a quarter of the cost."""
    import cv2

    height, width, _ = frame.shape
    if min(height, width) < 2 * _SMALL_SIDES[0]:
        return frame.copy()
    return cv2.resize(frame, (width // 2, height // 2), interpolation=cv2.INTER_AREA)


def _failure(status: int, said: str, name: str) -> Failed:
    last = said.strip().splitlines()[-1] if said.strip() else f"exit status {status}"
    if (failure := failed_from_outside(status, said, name)) is not None:
        return failure
    if "Cannot allocate memory" in said:
        return Failed("memory", f"{name}: decoding it takes more than max_memory")
    if status < 0:
        return Failed("decoder_crashed", f"{name}: the decoder died of signal {-status}")
    if status == _EXIT_TOO_MANY_ERRORS:
        return Failed("corrupt", f"{name}: more of it does not decode than the setting damage allows")
    if "Invalid data" in said:
        return Failed("corrupt", f"{name}: {last}")
    return Failed("decoder_error", f"{name}: {last}")


def _check_length(
    path: Path, header: Probe, start: float, stop: float, decoded: float, settings: DecodeSettings
) -> None:
    """Tell a file that was cut off, or that does not decode, from one whose picture ends before its sound does."""

    def short(found: float, wanted: float) -> bool:
        return found < wanted * (1 - settings.damage) - 2 / RATE

    if not short(decoded, stop - start):
        return
    own, every = packet_ends(path, header.stream, settings)
    if short(every, header.seconds):
        raise Failed("truncated", f"{path.name} ends at {every:.1f} s of {header.seconds:.1f} s")
    if short(decoded, min(stop, own) - start):
        raise Failed("corrupt", f"{path.name}: {decoded:.1f} s of {stop - start:.1f} s decode")


def _small_size(header: Probe) -> tuple[int, int]:
    """Width and height of the frames that are measured: the aspect kept, the number of pixels bounded."""
    scale = min(1.0, math.sqrt(_SMALL_PIXELS / (header.width * header.height)))
    low, high = _SMALL_SIDES
    return tuple(min(high, max(low, round(side * scale))) for side in (header.width, header.height))  # type: ignore[return-value]


def _proxy_size(header: Probe, short_side: int) -> tuple[int, int]:
    scale = min(1.0, short_side / min(header.width, header.height))
    return tuple(max(2, 2 * round(side * scale / 2)) for side in (header.width, header.height))  # type: ignore[return-value]
