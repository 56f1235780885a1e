"""The loader against plain WebDataset reading of the same shards, and how long a trainer waits for its data.

    PYTHONPATH=tests python tests/bench/loader.py                        # ten minutes
    PYTHONPATH=tests python tests/bench/loader.py --videos 12 --rounds 2  # a first look

Both decode each proxy in the same way, in the same process; they take turns, so that who else uses the machine slows
both. The ratio of CPU seconds is what a shared machine can tell; that of wall seconds is what counts.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
import webdataset
from figures import save, table
from small_releases import Film, proxy, released

from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.data.loader import Loader
from marathon_pipeline.hour_llava.data.proxies import decoded
from marathon_pipeline.hour_llava.data.settings import LoaderSettings
from marathon_pipeline.hour_llava.features import Cached, feature_key, write_features
from marathon_pipeline.hour_llava.modeling import HourLlavaForConditionalGeneration
from marathon_pipeline.hour_llava.tiny import tiny_processor
from marathon_pipeline.release.settings import ReleaseSettings

DIM = 64  # of the tiny model's features


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--videos", type=int, default=48)
    options.add_argument("--seconds", type=int, default=180)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--wait-only", action="store_true")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        url = _release(Path(folder), chosen.videos, chosen.seconds)
        rows = [] if chosen.wait_only else _read(url, chosen.rounds)
        waits = [_waited(url, workers) for workers in (0, 1)]
        table("A tiny trainer on cached features: the share of its time that it waits for data", waits)
    save("loader", {"videos": chosen.videos, "seconds": chosen.seconds, "read": rows, "wait": waits})


def _read(url: str, rounds: int) -> list[dict[str, Any]]:
    rows = [_compared(f"proxies, {workers or 'no'} workers", url, rounds, workers) for workers in (0, 2)]
    rows.append(_compared("cached features, no workers", url, rounds, 0, features=True))
    table("Samples a second, and ours against plain WebDataset (median of the rounds)", rows)
    return rows


def _release(folder: Path, videos: int, seconds: int) -> str:
    """Each video has one conversation; its features are cached, and lie in tars of their own besides."""
    of = [Film(f"yt_film-{number:03d}", seconds=seconds, frames=seconds, pairs=2) for number in range(videos)]
    real = proxy(seconds, 682, 384)
    released(folder, of, ReleaseSettings(shards=4, media_shards=4), "small-1")
    for tar in folder.glob("media/v1/*.tar"):  # written with small pictures, which none would train on
        keys = [sample["__key__"] for sample in webdataset.WebDataset(str(tar), shardshuffle=False)]
        with webdataset.TarWriter(str(tar), encoder=False) as out:
            for key in keys:
                row = {"source_id": key}
                out.write({"__key__": key, "mp4": real, "json": json.dumps(row).encode()})
    storage = Storage(str(folder))
    features = torch.randn(seconds, 64, DIM, dtype=torch.bfloat16)
    (folder / "plain").mkdir()
    with webdataset.TarWriter(str(folder / "plain" / "features.tar"), encoder=False) as out:
        for film in of:
            write_features(storage, film.source_id, Cached(features, "bench", ""))
            data = (folder / feature_key(film.source_id)).read_bytes()
            out.write({"__key__": film.source_id, "safetensors": data})
    return str(folder / "releases" / "small-1")


def _compared(what: str, url: str, rounds: int, workers: int, *, features: bool = False) -> dict[str, Any]:
    settings = LoaderSettings(releases=(url,), workers=workers, batch_size=4, features=features)
    folder = Path(url).parent.parent
    tars = [str(folder / "plain" / "features.tar")] if features else sorted(map(str, folder.glob("media/v1/*.tar")))

    def ours() -> Iterator[int]:
        for batch in Loader(settings):
            yield len(batch)

    def plain() -> Iterator[int]:
        stages = webdataset.WebDataset(tars, shardshuffle=False, nodesplitter=None).map(_loaded)
        for _ in webdataset.WebLoader(stages, batch_size=None, num_workers=workers):
            yield 1

    found = []
    for _ in range(rounds):
        found.append((_timed(ours), _timed(plain)))
    wall = [a[0] / b[0] for a, b in found]
    cpu = [b[1] / a[1] for a, b in found] if not workers else []
    return {
        "read": what,
        "ours/s": median(a[0] for a, _ in found),
        "plain/s": median(b[0] for _, b in found),
        "wall": median(wall),
        "worst": min(wall),
        "best": max(wall),
        "CPU": median(cpu) if cpu else "",
    }


def _loaded(sample: dict[str, Any]) -> torch.Tensor:
    if "mp4" in sample:
        return decoded(sample["mp4"], sample["__key__"])
    from safetensors.torch import load

    found: torch.Tensor = load(sample["safetensors"])["features"]
    return found


def _timed(read: Callable[[], Iterator[int]]) -> tuple[float, float]:
    """Samples a second of the wall's time, and CPU seconds a sample of this process, both behind the first batch."""
    first, count, began, cpu = True, 0, 0.0, 0.0
    for samples in read():
        if first:
            first, began, cpu = False, time.perf_counter(), time.process_time()
        else:
            count += samples
    return count / (time.perf_counter() - began), (time.process_time() - cpu) / count


def _waited(url: str, workers: int) -> dict[str, Any]:
    processor = tiny_processor(["What about thing 0 of yt_film-001? red green blue grey"])
    config = HourLlavaConfig(
        vision_config={"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
                       "image_size": 32, "patch_size": 4},
        text_config={"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
                     "intermediate_size": 256, "vocab_size": 512},
        media_token_id=processor.media_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = HourLlavaForConditionalGeneration(config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    settings = LoaderSettings(releases=(url,), workers=workers, batch_size=4, features=True)
    loader = Loader(settings, collate=processor)
    waited = worked = 0.0
    steps = 0
    for _ in range(3):
        batches = iter(loader)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            got = time.perf_counter()
            if batch is None:
                break
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if steps:  # the first batch waits for the processes to start
                waited, worked = waited + got - began, worked + time.perf_counter() - got
            steps += 1
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"workers": workers, "steps": steps, "parameters": parameters, "s/step": worked / steps,
            "waits": waited / (waited + worked)}  # fmt: skip


if __name__ == "__main__":
    main()
