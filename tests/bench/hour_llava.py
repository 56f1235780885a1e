"""Hour-LLaVA: forward pass and training step by length of video, MemAug on and off, eager and compiled.

    python tests/bench/hour_llava.py                        # 3B on a CUDA device, else a tiny setting
    python tests/bench/hour_llava.py --size 7B --minutes 5 60 --modes forward

Random weights in bfloat16 and cached features (the tower is timed by itself): one video of 5, 20 and 60 minutes.
A training step is stage 3's: all but the tower, activation checkpointing, AdamW (fused, moments in bfloat16, so that 3B
fits one device). Tokens are those that the language model reads; MFU counts the operations of `cost.py`, without what
checkpointing computes again, against --peak (TFLOP/s, dense bfloat16; by default of the device, where it is known).
The figures of the tiny setting mean nothing; it was made on machines without a GPU, where only it could be run.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from figures import machine, save, table
from torch import Tensor

from marathon_pipeline.hour_llava import cost, sizes
from marathon_pipeline.hour_llava.configuration import HourLlavaConfig
from marathon_pipeline.hour_llava.modeling import HourLlavaForConditionalGeneration
from marathon_pipeline.hour_llava.tiny import tiny_config, tiny_processor

PEAK = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "B200": 2250.0, "MI300X": 1307.0}  # TFLOP/s, from the data sheets
TEXT, ANSWER, REPEATS = 256, 64, 3


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--size", default="3B", choices=list(sizes.TEXT))
    options.add_argument("--minutes", nargs="+", type=float, default=[5, 20, 60])
    options.add_argument("--modes", nargs="+", default=["forward", "step"], choices=["forward", "step"])
    options.add_argument("--compiled", nargs="+", default=["eager", "compiled"], choices=["eager", "compiled"])
    options.add_argument("--peak", type=float, help="TFLOP/s of the device")
    chosen = options.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    name = torch.cuda.get_device_name() if cuda else "CPU, tiny setting"
    peak = chosen.peak or next((value for known, value in PEAK.items() if known in name), None)
    rows: list[dict[str, Any]] = []
    for memaug in (True, False):
        for how in chosen.compiled:
            settings = {} if memaug else {"memaug_depth": 0}
            config = sizes.size(chosen.size, **settings) if cuda else _tiny(settings)
            model = _model(config, device)
            if how == "compiled":
                model.compile_blocks()
            for mode in chosen.modes:
                for minutes in chosen.minutes:
                    label = {"memaug": "on" if memaug else "off", "how": how, "mode": mode, "minutes": minutes}
                    rows.append(label | _measured(model, mode, round(minutes * 60), peak))
                    print(json.dumps(rows[-1]), flush=True)
            if memaug and how == chosen.compiled[0]:
                tower = _tower(model, 64 if cuda else 8)
            del model
            torch.cuda.empty_cache()
    table(f"{chosen.size if cuda else 'tiny'} on {name}", rows)
    print(f"tower: {tower:.1f} frames a second")
    save("hour-llava", {"machine": machine(), "device": name, "peak": peak, "tower": tower, "rows": rows})


def _tiny(settings: dict[str, Any]) -> HourLlavaConfig:
    return tiny_config(tiny_processor(["a few words"]), **settings)


def _model(config: HourLlavaConfig, device: torch.device) -> HourLlavaForConditionalGeneration:
    torch.manual_seed(0)
    with device:
        model = HourLlavaForConditionalGeneration(config).to(torch.bfloat16 if device.type == "cuda" else torch.float32)
    model.vision_tower.requires_grad_(False)
    return model


def _batch(config: HourLlavaConfig, frames: int, device: torch.device) -> dict[str, Tensor]:
    ids = torch.randint(4, 200, (1, TEXT + 1), device=device)
    ids[0, 8] = config.media_token_id
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    features = torch.randn(frames, config.pooled_side**2, config.vision_config.hidden_size, device=device)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": labels,
        "features": features.bfloat16(),
        "frame_counts": torch.tensor([frames]),
    }


def _measured(
    model: HourLlavaForConditionalGeneration, mode: str, frames: int, peak: float | None
) -> dict[str, float | int | None]:
    device, config = model.device, model.config
    batch = _batch(config, frames, device)
    load = cost.Load.of(config, frames, TEXT, TEXT - ANSWER)
    counted = cost.forward_flops(config, load)
    flops = sum(counted.values()) - counted["vision tower"]
    if mode == "forward":
        model.eval()

        def run() -> None:
            with torch.no_grad():
                model(**batch)

    else:
        flops *= 3
        model.train()
        model.activation_checkpointing_enable()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=device.type == "cuda")

        def run() -> None:
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    run()  # compiles, and takes the optimizer's memory
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = min(_timed(run, device) for _ in range(REPEATS))
    memory = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else None
    rate = flops / seconds / 1e12
    return {
        "tokens": load.length,
        "seconds": seconds,
        "tokens/s": load.length / seconds,
        "TFLOP/s": rate,
        "MFU": rate / peak if peak else None,
        "peak GB": memory,
    }


def _tower(model: HourLlavaForConditionalGeneration, frames: int) -> float:
    side = model.config.vision_config.image_size
    pixels = torch.randint(0, 256, (frames, 3, side, side), dtype=torch.uint8, device=model.device)

    def run() -> None:
        with torch.no_grad():
            model.encode_frames(pixels)

    run()
    return frames / min(_timed(run, model.device) for _ in range(REPEATS))


def _timed(run: Callable[[], None], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
