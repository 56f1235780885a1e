"""Probing and the single decode, on real videos and on small ones made with ffmpeg."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from marathon_pipeline.errors import Failed
from marathon_pipeline.ffmpeg import ffmpeg_binary
from marathon_pipeline.media import frames
from marathon_pipeline.media.decode import Decoded, decode_once
from marathon_pipeline.media.probe import probe
from marathon_pipeline.media.proxy import proxy_frame, proxy_jpeg
from marathon_pipeline.media.settings import DecodeSettings


def make(path: Path, *arguments: str, source: str = "testsrc=s=320x180:r=25:d=4") -> Path:
    """A video of an ffmpeg test source."""
    command = [ffmpeg_binary(), "-v", "error", "-y", "-f", "lavfi", "-i", source, *arguments, str(path)]
    subprocess.run(command, check=True)
    return path


def decoded(path: Path, tmp_path: Path, **arguments: float) -> tuple[Decoded, Path]:
    proxy = tmp_path / "proxies" / "video.mp4"
    return decode_once(path, proxy, "video", **arguments), proxy


def frames_of(proxy: Path) -> list[np.ndarray]:
    import av

    with av.open(str(proxy)) as container:
        frames = list(container.decode(video=0))
    assert all(frame.key_frame for frame in frames)
    return [frame.to_ndarray(format="rgb24") for frame in frames]


def reason(path: Path, tmp_path: Path, **arguments: float) -> str:
    with pytest.raises(Failed) as failure:
        decoded(path, tmp_path, **arguments)
    folder = tmp_path / "proxies"
    assert not folder.exists() or not list(folder.iterdir()), "a failure leaves nothing behind"
    return failure.value.reason


def test_a_decode_gives_one_row_and_one_key_frame_a_second(tmp_path: Path) -> None:
    result, proxy = decoded(make(tmp_path / "v.mp4", "-g", "100"), tmp_path)
    assert result.seconds == pytest.approx(4.0, abs=0.2)
    assert [row.second for row in result.signals] == [0, 1, 2, 3]
    assert len(frames_of(proxy)) == 4
    assert result.shots[0].start == 0 and result.shots[-1].end == result.seconds
    assert list(proxy.parent.iterdir()) == [proxy]


@pytest.mark.parametrize("length", ["0.1", "0.4", "0.9", "1.0", "1.3", "2.7"])
def test_the_last_second_begun_has_its_row_and_its_frame(tmp_path: Path, length: str) -> None:
    result, proxy = decoded(make(tmp_path / "v.mp4", source=f"testsrc=s=160x90:r=50:d={length}"), tmp_path)
    assert len(result.signals) == len(frames_of(proxy)) == -(-round(result.seconds * 5) // 5) >= 1


def test_a_row_was_measured_on_the_proxys_frame(tmp_path: Path) -> None:
    source = "color=black:s=160x90:r=10:d=12,geq=lum='20*floor(T)':cb=128:cr=128"
    result, proxy = decoded(make(tmp_path / "v.mp4", source=source), tmp_path)
    shown = [frame.mean() / 255 for frame in frames_of(proxy)]
    assert [row.brightness for row in result.signals] == pytest.approx(shown, abs=0.02)


def test_a_part_of_a_video_starts_at_its_own_zero(tmp_path: Path) -> None:
    source = "color=black:s=160x90:r=10:d=12,geq=lum='16+18*floor(T)':cb=128:cr=128"
    video = make(tmp_path / "v.mp4", source=source)
    whole, _ = decoded(video, tmp_path)
    part, _ = decoded(video, tmp_path, start=4.0, end=7.0)
    assert [row.brightness for row in part.signals] == [row.brightness for row in whole.signals[4:7]]
    assert reason(video, tmp_path / "behind", start=12.5) == "out_of_range"


def test_a_proxy_is_never_enlarged_and_has_even_sides(tmp_path: Path) -> None:
    for size, wanted in (("161x91", (90, 160)), ("1280x720", (384, 682))):
        _, proxy = decoded(
            make(tmp_path / f"{size}.mkv", "-c:v", "ffv1", source=f"testsrc=s={size}:r=10:d=1"), tmp_path
        )
        height, width, _ = frames_of(proxy)[0].shape
        assert abs(height - wanted[0]) <= 2 and abs(width - wanted[1]) <= 2
        assert height % 2 == width % 2 == 0


@pytest.mark.parametrize("size", ["10x6", "2000x4", "4x900", "2x2"])
def test_extreme_sizes_decode(tmp_path: Path, size: str) -> None:
    video = make(tmp_path / "v.mkv", "-c:v", "ffv1", source=f"testsrc2=s={size}:r=10:d=2")
    result, proxy = decoded(video, tmp_path)
    assert len(result.signals) == len(frames_of(proxy)) == 2


def test_rotation_and_pixel_shape_are_those_a_viewer_sees(tmp_path: Path, real_videos: Path) -> None:
    upright = probe(real_videos / "rotate90_mov.mov")
    assert (upright.width, upright.height) == (320, 568)
    wide = make(tmp_path / "w.mp4", source="testsrc=s=160x180:r=10:d=1,setsar=2")
    assert (probe(wide).width, probe(wide).height) == (320, 180)
    _, proxy = decoded(wide, tmp_path)
    assert frames_of(proxy)[0].shape == (180, 320, 3)


def test_variable_frame_rate_keeps_time(tmp_path: Path) -> None:
    source = "color=black:s=160x90:r=10:d=10,geq=lum='16+20*floor(T)':cb=128:cr=128,select='lt(mod(n,10),3)'"
    result, _ = decoded(make(tmp_path / "v.mkv", "-fps_mode", "vfr", source=source), tmp_path)
    steps = np.diff([row.brightness for row in result.signals])
    assert len(result.signals) == 10 and (steps > 0.05).all()


def test_a_header_without_a_duration_is_read_by_its_packets(tmp_path: Path) -> None:
    made = make(tmp_path / "v.mkv", "-live", "1", "-f", "matroska")
    assert probe(made).seconds == pytest.approx(4.0, abs=0.1)
    assert len(decoded(made, tmp_path)[0].signals) == 4


def test_a_truncated_file_is_a_typed_failure(tmp_path: Path) -> None:
    whole = make(tmp_path / "v.mp4", "-movflags", "+faststart", source="testsrc2=s=320x180:r=25:d=20").read_bytes()
    half, headless, nearly = tmp_path / "half.mp4", tmp_path / "headless.mp4", tmp_path / "nearly.mp4"
    half.write_bytes(whole[: len(whole) // 2])
    headless.write_bytes(make(tmp_path / "w.mp4").read_bytes()[:-3000])
    nearly.write_bytes(whole[: len(whole) * 97 // 100])
    assert reason(half, tmp_path) in {"truncated", "corrupt"}
    assert reason(headless, tmp_path) == "unreadable"
    assert len(decoded(nearly, tmp_path)[0].signals) >= 18


def test_a_damaged_file_is_a_typed_failure_where_too_little_decodes(tmp_path: Path) -> None:
    video = make(tmp_path / "v.mp4", "-movflags", "+faststart", source="testsrc2=s=320x180:r=25:d=20")
    data = bytearray(video.read_bytes())
    data[len(data) // 4 : 3 * len(data) // 4] = bytes(len(data) // 2)
    video.write_bytes(data)
    assert reason(video, tmp_path) in {"truncated", "corrupt"}


def test_what_is_no_video_is_a_typed_failure(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
    make(tmp_path / "real.ts")
    (tmp_path / "own.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nreal.ts\n#EXT-X-ENDLIST\n")
    sound = make(tmp_path / "sound.m4a", source="sine=d=1")
    reasons = {name: reason(tmp_path / name, tmp_path) for name in ("empty.mp4", "text.mp4", "list.m3u8", "own.m3u8")}
    assert reasons == dict.fromkeys(reasons, "unreadable") | {"empty.mp4": "empty"}
    assert reason(sound, tmp_path) == "no_video"


def test_a_picture_that_ends_before_its_sound_is_no_truncated_file(tmp_path: Path) -> None:
    video = make(tmp_path / "v.mkv", "-f", "lavfi", "-i", "sine=d=12", "-c:v", "libx264", "-c:a", "libvorbis")
    result, _ = decoded(video, tmp_path)
    assert probe(video).seconds == pytest.approx(12, abs=0.2) and result.seconds == pytest.approx(4, abs=0.2)


def test_a_decoder_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    video = make(tmp_path / "v.mp4", source="testsrc2=s=640x360:r=25:d=15")
    hurried = DecodeSettings(timeout_seconds=0.1, timeout_per_second=0)
    with pytest.raises(Failed) as failure:
        decode_once(video, tmp_path / "proxies" / "v.mp4", "v", settings=hurried)
    assert failure.value.reason == "decoder_timeout"
    assert list(tmp_path.rglob("*.mp4")) == [video]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_a_transient_failure(tmp_path: Path) -> None:
    proxy = tmp_path / "proxies" / "video.mp4"
    proxy.parent.mkdir()
    (proxy.parent / "video.mp4.part.mp4").symlink_to("/dev/full")
    with pytest.raises(Failed) as failure:
        decode_once(make(tmp_path / "v.mp4"), proxy, "video")
    assert (failure.value.reason, failure.value.transient) == ("disk_full", True)


def test_the_same_video_gives_the_same_bytes_and_rows(tmp_path: Path) -> None:
    video = make(tmp_path / "v.mp4", source="testsrc2=s=320x180:r=25:d=3")
    first, proxy = decoded(video, tmp_path / "a")
    second, other = decoded(video, tmp_path / "b")
    assert first == second and proxy.read_bytes() == other.read_bytes()


def test_pictures_are_read_back_from_a_proxy(tmp_path: Path) -> None:
    _, proxy = decoded(make(tmp_path / "v.mp4"), tmp_path)
    frames = frames_of(proxy)
    assert all((proxy_frame(proxy, second) == frame).all() for second, frame in enumerate(frames))
    assert proxy_jpeg(proxy, 1, width=100).startswith(b"\xff\xd8")
    with pytest.raises(Failed):
        proxy_frame(proxy, len(frames))


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("tiny_10x6px.mp4", 65),
        ("no_duration.webm", 5),
        ("nasa_multistream.mp4", 13),
        ("phone_desks_h263.3gp", 6),
        ("popcorn_theora.ogv", 65),
        ("corrupted_decord.mp4", 5),
        ("rotate90_mov.mov", 1),
        ("failing_audio.mp4", 12),
        ("pancake_opus.mkv", 11),
        ("highway_cam_mpeg4.avi", 30),
    ],
)
def test_real_videos_decode(tmp_path: Path, real_videos: Path, name: str, rows: int) -> None:
    result, proxy = decoded(real_videos / name, tmp_path)
    assert len(result.signals) == len(frames_of(proxy)) == rows


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("audio_only_eac3.mp4", "no_video"), ("fragment_no_init.mp4", "unreadable"), ("zero_byte.webm", "empty")],
)
def test_real_files_without_a_picture_are_typed_failures(
    tmp_path: Path, real_videos: Path, name: str, wanted: str
) -> None:
    assert reason(real_videos / name, tmp_path) == wanted


@pytest.mark.parametrize(
    ("ends", "reason"),
    [
        ("kill -9 $$", "decoder_killed"),
        ("echo 'No space left on device' >&2; exit 1", "disk_full"),
        ("exit 1", "frames"),
    ],
)
def test_a_video_is_not_condemned_since_its_pictures_ffmpeg_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, reason: str
) -> None:
    dying = tmp_path / "ffmpeg"
    dying.write_text(f"#!/bin/sh\n{ends}\n")
    dying.chmod(0o755)
    monkeypatch.setattr(frames, "ffmpeg_binary", lambda: str(dying))
    with pytest.raises(Failed) as caught:
        frames.jpegs(tmp_path / "proxy.mp4", [0, 1], 48)
    assert caught.value.reason == reason and caught.value.transient == (reason != "frames")


@pytest.mark.parametrize(
    ("signalled", "reason"),
    [("SIGKILL", "decoder_killed"), ("SIGTERM", "decoder_killed"), ("SIGSEGV", "decoder_crashed")],
)
def test_a_video_is_not_condemned_since_the_reader_of_its_header_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signalled: str, reason: str
) -> None:
    dying = tmp_path / "header.py"
    dying.write_text(f"import os, signal\nos.kill(os.getpid(), signal.{signalled})\n")
    monkeypatch.setattr("marathon_pipeline.media.probe._SCRIPT", dying)
    (tmp_path / "v.mp4").write_bytes(b"film")
    with pytest.raises(Failed) as caught:
        probe(tmp_path / "v.mp4")
    assert caught.value.reason == reason and caught.value.transient == (reason == "decoder_killed")
