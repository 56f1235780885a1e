"""Mutated videos through download and segment: `python tests/fuzz.py 300 FOLDER [FIRST]` (what `make fuzz` calls).

The real videos of `MARATHON_TEST_VIDEOS` are mutated where there are any, else rendered ones; a tenth are playlists and
scripts that name a local file or an address, by path and by URL. Prints how each kind of mutation ended, and exits 1
where one ended without a typed reason, or where a file was opened or an address asked that no job names (what the
system calls say, where there is `strace`).
"""

import functools
import os
import random
import shutil
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hostile_media import references, video
from test_media_hostile import Canaries, work
from traced import Touched, strace, touched

SEEDS = {
    "seed.mp4": ("-pix_fmt", "yuv420p", "-movflags", "+faststart"),
    "seed.mkv": ("-pix_fmt", "yuv420p"),
    "seed.webm": ("-c:v", "libvpx", "-deadline", "realtime"),
    "seed.avi": ("-c:v", "mpeg4"),
    "seed.ogv": ("-c:v", "libtheora"),
    "seed.3gp": ("-c:v", "h263", "-s", "176x144"),
    "seed.ts": ("-c:v", "mpeg2video"),
}
_HEAD = 1500  # bytes in which most headers lie
_LARGEST = 2 * 2**20  # of the real videos: a thousand of them have to be decoded
_AT_ONCE = 100  # mutants on the disk
_NAMING = 10  # one in so many names a file or an address
STREAMED = ("hls_file.mp4", "hls_file_url.mp4", "hls_address.mp4", "dash_file.mp4", "dash_address.mp4")
Seed = tuple[bytes, str]  # what is in it, and how its name ends


def flip_bits(data: bytes, other: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 10, 200))):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def flip_header(data: bytes, other: bytes, draw: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 3, 20))):
        out[draw.randrange(min(_HEAD, len(out)))] = draw.choice((0, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return bytes(out)


def cut_end(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(1, len(data))]


def cut_out(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start + draw.randrange(1, len(data)) :]


def cut_start(data: bytes, other: bytes, draw: random.Random) -> bytes:
    return data[draw.randrange(1, len(data)) :]


def splice_header(data: bytes, other: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(8, _HEAD)
    return other[:at] + data[at:]


def repeat(data: bytes, other: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data))
    return data[:start] + data[start : start + 4096] * draw.randrange(2, 20) + data[start:]


MUTATIONS: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    flip_bits,
    flip_header,
    cut_end,
    cut_out,
    cut_start,
    splice_header,
    repeat,
)


@dataclass
class Found:
    """How the mutants ended, by mutation, and what was opened or asked that no job names."""

    ends: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def seeds(folder: Path) -> list[Seed]:
    """Real videos where there are any."""
    real = Path(os.environ.get("MARATHON_TEST_VIDEOS", "absent"))
    paths = [path for path in sorted(real.glob("*.*")) if path.suffix != ".md" and 0 < path.stat().st_size < _LARGEST]
    if not paths:
        for name, options in SEEDS.items():
            video(*options, source="testsrc2=s=160x90:r=10:d=2")(folder / name)
            paths.append(folder / name)
    return [(path.read_bytes(), path.suffix) for path in paths]


def mutated(number: int, found: Sequence[Seed]) -> tuple[str, bytes]:
    """The name and the content of a mutant: the same for a number and the same seeds."""
    draw = random.Random(number)
    mutate = MUTATIONS[number % len(MUTATIONS)]
    (data, ending), (other, _) = found[number // len(MUTATIONS) % len(found)], draw.choice(found)
    return f"{mutate.__name__}-{number:05d}{ending}", mutate(data, other, draw) or b"\0"


def naming(number: int, folder: Path, canaries: Canaries) -> tuple[str, bytes, bool]:
    """What names a file or an address, sometimes damaged; and whether it is to be had by a URL."""
    draw = random.Random(number)
    by_url = draw.random() < 0.5
    media = references(canaries.secret, canaries.address)
    kind = draw.choice(STREAMED if by_url else sorted(media))
    media[kind](folder / kind)
    data = (folder / kind).read_bytes()
    (folder / kind).unlink()
    if draw.random() < 0.7:
        data = flip_bits(data, b"", draw)
    ending = {"hls": ".m3u8", "dash": ".mpd"}[kind.partition("_")[0]] if by_url else Path(kind).suffix
    return f"{'streamed' if by_url else 'names'}-{number:05d}{ending}", data, by_url


def outcomes(folder: Path, count: int, first: int = 0, workers: int = 2) -> Found:
    """What comes of the mutants from a number on. A worker that dies, hangs or prints a traceback raises."""
    found, sources = Found(), seeds(folder)
    with tempfile.TemporaryDirectory() as elsewhere, Server(folder) as server:
        canaries = Canaries(Path(elsewhere))
        sound = [kept(folder, f"sound-{number}{ending}", data) for number, (data, ending) in enumerate(sources)]
        usual = worked(folder, [*sound, *(f"{server.url}/{Path(path).name}" for path in sound[:1])], 1)
        for start in range(first, first + count, _AT_ONCE):
            inputs: list[str] = []
            for number in range(start, min(start + _AT_ONCE, first + count)):
                if number % _NAMING == _NAMING - 1:
                    name, data, by_url = naming(number, folder, canaries)
                else:
                    name, data = mutated(number, sources)
                    by_url = False
                path = kept(folder, name, data)
                inputs.append(f"{server.url}/{name}" if by_url else path)
            batch = worked(folder, inputs, workers)
            for name, line in batch.lines.items():
                end = line["ends"][-1]
                found.ends.setdefault(name.partition("-")[0], Counter())[end] += 1
                if "defect" in end or len(line["message"].splitlines()) > 1:
                    found.faults.append(f"{name}: {end} {line['message']}")
            found.faults += batch.touched.beyond(usual.touched, folder, server.address)
            print(f"{start - first + len(inputs)} of {count}", file=sys.stderr, flush=True)
        found.faults += [f"{what} was opened" for what in canaries.touched]
        canaries.close()
    assert sum(counts.total() for counts in found.ends.values()) == count
    return found


@dataclass(frozen=True)
class Worked:
    lines: dict[str, dict]
    touched: Touched


def worked(folder: Path, inputs: Sequence[str], workers: int) -> Worked:
    """What the workers make of the inputs, and what they touch. All of it is gone afterwards."""

    def part(number: int) -> Worked:
        log = folder / f"trace{number}"
        own, limits = inputs[number::workers], {"timeout_seconds": 20}
        lines = work(folder / f"dataset{number}", own, 1, 3000, wrap=strace(log), **limits)
        return Worked(lines, touched(log))

    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(part, range(workers)))
    for each in folder.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    lines = {name: line for part in parts for name, line in part.lines.items()}
    return Worked(lines, functools.reduce(Touched.joined, (part.touched for part in parts)))


def kept(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


class Server:
    """Gives out what lies in a folder."""

    def __init__(self, folder: Path) -> None:
        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()


def told(found: Found) -> Iterator[str]:
    for name, counts in sorted(found.ends.items()):
        yield f"{name:14}" + "  ".join(f"{end} {count}" for end, count in sorted(counts.items()))
    yield from (f"FAULT {fault}" for fault in found.faults)


def main() -> None:
    count, folder, first = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = outcomes(folder.resolve(), count, first)
    print("\n".join(told(found)))
    sys.exit(bool(found.faults))


if __name__ == "__main__":
    main()
