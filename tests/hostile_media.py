"""Odd and hostile media, made on the spot: `MEDIA` has a name for each, how it is made, and how it may end."""

import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from marathon_pipeline.ffmpeg import ffmpeg_binary

CLIP = "testsrc2=s=160x90:r=10:d=3"
CONTAINER_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"dinf")


@dataclass(frozen=True)
class Medium:
    make: Callable[[Path], None]  # writes the file
    ends: tuple[str, ...]  # how it may end; `row`: it is refused as a manifest's row


def ffmpeg(*arguments: object) -> None:
    subprocess.run([ffmpeg_binary(), "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True)


def video(*arguments: object, source: str = CLIP) -> Callable[[Path], None]:
    return lambda path: ffmpeg("-f", "lavfi", "-i", source, *arguments, path)


def copied(*arguments: object, before: tuple[object, ...] = ()) -> Callable[[Path], None]:
    """A copy of the small clip's streams, with options."""

    def make(path: Path) -> None:
        clip = path.with_name(f"of_{path.name}.mp4")
        video("-pix_fmt", "yuv420p")(clip)
        ffmpeg(*before, "-i", clip, "-c", "copy", *arguments, path)
        clip.unlink()

    return make


def changed(change: Callable[[bytes], bytes], *arguments: object, source: str = CLIP) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        video("-pix_fmt", "yuv420p", *arguments, source=source)(path)
        path.write_bytes(change(path.read_bytes()))

    return make


def text(content: str | bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content) and None


def mkv_lasts(milliseconds: float) -> Callable[[Path], None]:
    """An mkv whose header claims a duration. Element 0x4489 holds it as a double."""

    def change(data: bytes) -> bytes:
        at = data.index(b"\x44\x89\x88") + 3
        return data[:at] + struct.pack(">d", milliseconds) + data[at + 8 :]

    return changed(change)


def mp4_lasts(seconds: int) -> Callable[[Path], None]:
    """An mp4 whose headers (movie, track, media, edit list) all claim a duration, and its only sample too."""

    def change(data: bytes) -> bytes:
        for name, scale_at, at in ((b"mvhd", 12, 16), (b"mdhd", 12, 16)):
            box = data.index(name) + 4
            (scale,) = struct.unpack_from(">I", data, box + scale_at)
            data = data[: box + at] + struct.pack(">I", (seconds * scale) & 0xFFFFFFFF) + data[box + at + 4 :]
        box = data.index(b"stts") + 12  # version, count, then the samples and the duration of each
        return data[: box + 4] + struct.pack(">I", 0x7FFFFFFF if seconds > 100 else 0) + data[box + 8 :]

    return changed(change)


def boxes(data: bytes, change: Callable[[bytes, bytes], bytes]) -> bytes:
    """An mp4's boxes with their contents changed and their sizes mended. What lies before `moov` keeps its place."""
    out, at = b"", 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + size]
        content = boxes(content, change) if name in CONTAINER_BOXES else change(name, content)
        out += struct.pack(">I4s", len(content) + 8, name) + content
        at += size
    return out


def tracks(data: bytes, count: int) -> bytes:
    """An mp4 with its track that many times. Its index has to lie at its end."""
    at = data.index(b"moov")
    track = data.index(b"trak") - 4
    end = track + int.from_bytes(data[track : track + 4])
    content = data[at + 4 : track] + data[track:end] * count + data[end:]
    return data[: at - 4] + struct.pack(">I", len(content) + 8) + b"moov" + content


def refers(entry: bytes) -> Callable[[Path], None]:
    """An mp4 that says that its media lie elsewhere."""
    reference = struct.pack(">II", 0, 1) + struct.pack(">I", len(entry) + 4) + entry
    return changed(lambda data: boxes(data, lambda name, content: reference if name == b"dref" else content))


def alias(target: str) -> bytes:
    """A QuickTime alias, whose record of type 2 is an absolute path."""
    path = target.encode() + b"\0" * (len(target) % 2)
    fixed = bytes(10) + b"\x04disk".ljust(28, b"\0") + bytes(12) + b"\x05v.mp4".ljust(64, b"\0") + bytes(16)
    levels = struct.pack(">HH", 1, 1) + bytes(16)
    return b"alis" + bytes(4) + fixed + levels + struct.pack(">HH", 2, len(target)) + path + b"\xff\xff" + bytes(2)


def vp8_claims(width: int, height: int) -> Callable[[Path], None]:
    def change(data: bytes) -> bytes:
        at = data.index(b"\x9d\x01\x2a") + 3
        return data[:at] + struct.pack("<HH", width, height) + data[at + 4 :]

    return lambda path: changed(change, "-c:v", "libvpx", "-f", "ivf")(path)


def gif(width: int, height: int) -> bytes:
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0" + size + b"\0\x02\x02D\x01\0;"


def fragment(path: Path) -> None:
    changed(lambda data: data[data.index(b"moof") - 4 :], "-movflags", "+frag_keyframe+empty_moov")(path)


def cover(*first: object) -> Callable[[Path], None]:
    """Inputs and options before the cover's own; the cover is the last input."""

    def make(path: Path) -> None:
        picture = path.with_name(f"of_{path.name}.png")
        video("-frames:v", 1, source="testsrc=s=300x300")(picture)
        inputs, rest = first[: first.index("--")], first[first.index("--") + 1 :]
        ffmpeg(*inputs, "-i", picture, *rest, path)
        picture.unlink()

    return make


def link(path: Path) -> None:
    target = path.with_name("target_of_a_link.mp4")
    video("-pix_fmt", "yuv420p", source="testsrc=s=96x64:r=10:d=3")(target)
    path.symlink_to(target)


def fifo(path: Path) -> None:
    import os

    os.mkfifo(path)


SOUND = ("-f", "lavfi", "-i", "sine=d=6")
PICTURE = ("-f", "lavfi", "-i", CLIP)
CUT = ("failed truncated", "failed corrupt")

MEDIA: dict[str, Medium] = {
    "vfr.mkv": Medium(video("-fps_mode", "vfr", source=f"{CLIP},select='lt(mod(n,10),3)'"), ("ok",)),
    **{f"rotated_{turn}.mp4": Medium(copied(before=("-display_rotation", turn)), ("ok",)) for turn in (90, 180, 270)},
    "anamorphic.mp4": Medium(video(source=f"{CLIP},setsar=64/45"), ("ok",)),
    "absurd_pixels.mp4": Medium(video(source=f"{CLIP},setsar=sar=200/1:max=65535"), ("ok", "failed picture_size")),
    "ten_bit.mp4": Medium(video("-pix_fmt", "yuv420p10le"), ("ok",)),
    "full_colour.mp4": Medium(video("-pix_fmt", "yuv444p"), ("ok",)),
    "two_pictures.mp4": Medium(copied("-map", 0, "-map", 0), ("ok",)),
    "cover_and_picture.mp4": Medium(
        cover(*PICTURE, "--", "-map", 1, "-map", 0, "-c:v:0", "png", "-disposition:v:0", "attached_pic"), ("ok",)
    ),
    "cover_and_sound.m4v": Medium(
        cover(*SOUND, "--", "-map", 0, "-map", 1, "-c:v", "png", "-disposition:v", "attached_pic", "-f", "mp4"),
        ("failed no_video",),
    ),
    "sound.mp4": Medium(lambda path: ffmpeg(*SOUND, path), ("failed no_video",)),
    "streamed.mkv": Medium(video("-live", 1, "-f", "matroska"), ("ok",)),  # no duration in the header
    "claims_ages.mkv": Medium(mkv_lasts(1e15), ("failed too_long",)),
    "claims_an_hour.mkv": Medium(mkv_lasts(3_599_000), (*CUT, "failed no_frames")),
    "claims_a_second.mkv": Medium(mkv_lasts(1000), ("ok",)),
    "claims_nothing.mkv": Medium(mkv_lasts(0), ("ok",)),
    "claims_less_than_nothing.mkv": Medium(mkv_lasts(-5e6), ("ok",)),
    "claims_no_number.mkv": Medium(mkv_lasts(float("nan")), ("ok", "failed unreadable")),
    "claims_ages.mp4": Medium(mp4_lasts(100_000), ("ok", "failed too_long", *CUT)),
    "claims_nothing.mp4": Medium(mp4_lasts(0), ("ok", *CUT, "failed no_frames")),
    "one_frame.mp4": Medium(video("-frames:v", 1), ("ok",)),
    "no_frame.mp4": Medium(copied("-frames:v", 0), ("failed no_frames", "failed no_video", "failed unreadable")),
    "empty.mp4": Medium(text(b""), ("failed empty",)),
    "text.mp4": Medium(text("not a video\n" * 500), ("failed unreadable",)),
    "zeros.mp4": Medium(text(bytes(100_000)), ("failed unreadable",)),
    "half.mp4": Medium(changed(lambda data: data[: len(data) // 2]), ("failed unreadable",)),
    "half_of_indexed.mp4": Medium(changed(lambda data: data[: len(data) // 2], "-movflags", "+faststart"), CUT),
    "half.mkv": Medium(changed(lambda data: data[: len(data) // 2]), CUT),
    "last_byte.mp4": Medium(changed(lambda data: data[:-1], "-movflags", "+faststart"), ("ok",)),
    "fragment.mp4": Medium(fragment, ("failed unreadable",)),
    "wide.mkv": Medium(video("-c:v", "ffv1", source="color=s=100000x2:r=1:d=2"), ("failed picture_size",)),
    "vast.mkv": Medium(vp8_claims(16_000, 16_000), ("failed picture_size",)),
    "vast.gif.mp4": Medium(text(gif(65_535, 65_535)), ("failed picture_size",)),
    "grows.ts": Medium(
        lambda path: text(b"".join(grown(path, size) for size in ("160x90", "9000x4200")))(path), ("ok", *CUT)
    ),
    "many_streams.ts": Medium(copied(*("-map", 0) * 100), ("ok",)),
    "very_many_streams.mp4": Medium(
        changed(lambda data: tracks(data, 1500)), ("ok", "failed unreadable", "failed memory")
    ),
    "a_day.mp4": Medium(  # 24 pictures that stand for 24 hours
        video("-preset", "ultrafast", source="color=s=640x360:r=1/3600:d=86400"), ("ok", "failed decoder_timeout")
    ),
    "a_folder.mp4": Medium(Path.mkdir, ("row",)),
    "a_pipe.mp4": Medium(fifo, ("row",)),
    "a_device.mp4": Medium(lambda path: path.symlink_to("/dev/zero"), ("row",)),
    "a_link.mp4": Medium(link, ("ok",)),  # whoever writes a manifest may name files by links
    "a_link_to_nothing.mp4": Medium(lambda path: path.symlink_to(path.with_name("nothing")), ("row",)),
}


def grown(path: Path, size: str) -> bytes:
    """A stream whose pictures grow on the way is two streams, one behind the other."""
    piece = path.with_name(f"{size}.ts")
    video("-preset", "ultrafast", "-pix_fmt", "yuv420p", "-frames:v", 6, source=f"color=s={size}:r=10:d=2")(piece)
    data = piece.read_bytes()
    piece.unlink()
    return data


def references(secret: Path, address: str) -> dict[str, Callable[[Path], None]]:
    """Media that name a local file, or an address. None of it may be opened."""
    hls = "#EXTM3U\n#EXT-X-TARGETDURATION:6\n#EXTINF:6,\n{}\n#EXT-X-ENDLIST\n"
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    sdp += "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    dash = (
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT6S"><Period>'
        "<AdaptationSet>"
        '<Representation id="1" mimeType="video/mp4" bandwidth="1"><BaseURL>{}</BaseURL><SegmentList duration="6">'
        '<SegmentURL media="{}"/></SegmentList></Representation></AdaptationSet></Period></MPD>'
    )
    return {
        "hls_file.mp4": text(hls.format(secret)),
        "hls_file_url.mp4": text(hls.format(f"file://{secret}")),
        "hls_address.mp4": text(hls.format(address)),
        "hls_crypto.mp4": text(hls.format(f"crypto+file://{secret}")),
        "hls_concat.ts": text(hls.format(f"concat:{secret}|{address}")),
        "concat_file.mp4": text(f"ffconcat version 1.0\nfile '{secret}'\n"),
        "concat_address.mkv": text(f"ffconcat version 1.0\nfile '{address}'\n"),
        "dash_file.mp4": text(dash.format(secret, secret)),
        "dash_address.mp4": text(dash.format(address, address)),
        "sdp.mp4": text(sdp),
        "url_reference.mp4": refers(b"url \0\0\0\0" + address.encode() + b"\0"),
        "alias_file.mp4": refers(alias(str(secret))),
        "alias_address.mp4": refers(alias(address)),
    }
