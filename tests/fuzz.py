"""Mutated videos through download and segment: `python tests/fuzz.py 300 FOLDER` (what `make fuzz` calls).

Prints how each kind of mutation ended, and exits 1 where one ended without a typed reason.
"""

import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hostile_media import video
from test_media_hostile import work

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


def mutants(folder: Path, count: int) -> list[Path]:
    """Files `<mutation>-<number>.<ext>`, the same for the same count."""
    seeds = []
    for name, options in SEEDS.items():
        video(*options, source="testsrc2=s=160x90:r=10:d=2")(folder / name)
        seeds.append(((folder / name).read_bytes(), name.partition(".")[2]))
    paths = []
    for number in range(count):
        draw = random.Random(number)
        mutate = MUTATIONS[number % len(MUTATIONS)]
        (data, ending), (other, _) = seeds[number // len(MUTATIONS) % len(seeds)], draw.choice(seeds)
        path = folder / f"{mutate.__name__}-{number:03d}.{ending}"
        path.write_bytes(mutate(data, other, draw) or b"\0")
        paths.append(path)
    return paths


def outcomes(folder: Path, count: int, workers: int = 2) -> dict[str, Counter[str]]:
    """How the mutants end, by mutation. A worker that dies, hangs or prints a traceback raises."""
    paths = mutants(folder, count)
    with ThreadPoolExecutor(workers) as pool:
        limits = {"timeout_seconds": 20}
        parts = list(
            pool.map(lambda n: work(folder / f"dataset{n}", paths[n::workers], 1, 3000, **limits), range(workers))
        )
    found: dict[str, Counter[str]] = {mutate.__name__: Counter() for mutate in MUTATIONS}
    for name, line in ((name, line) for part in parts for name, line in part.items()):
        found[name.partition("-")[0]][line["ends"][-1]] += 1
        assert len(line["message"].splitlines()) <= 1, line
        if "defect" in line["ends"][-1]:
            print(name, line["message"])
    assert sum(counts.total() for counts in found.values()) == count
    return found


def main() -> None:
    folder = Path(sys.argv[2])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    found = outcomes(folder, int(sys.argv[1]))
    for name, counts in found.items():
        print(f"{name:14}", "  ".join(f"{end} {count}" for end, count in sorted(counts.items())))
    sys.exit(any("failed defect" in counts for counts in found.values()))


if __name__ == "__main__":
    main()
