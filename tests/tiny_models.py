"""Tiny SigLIP, Qwen2 and Hour-LLaVA with random weights, a tokenizer, and samples for them, made on the spot."""

from functools import cache
from typing import Any

import torch
from torch import Generator

from marathon_pipeline.hour_llava.example import Example
from marathon_pipeline.hour_llava.modeling import HourLlavaForConditionalGeneration
from marathon_pipeline.hour_llava.processing import HourLlavaProcessor
from marathon_pipeline.hour_llava.tiny import tiny_config, tiny_processor

torch.set_num_threads(1)  # on tensors this small, threads cost more than they give
TURNS = (("What is on the table?", "A red cup."), ("Which comes first?\nA. the cup\nB. the car", "B"))


@cache
def processor() -> HourLlavaProcessor:
    return tiny_processor([text for turn in TURNS for text in turn], size=300)


def model(seed: int = 0, **settings: Any) -> HourLlavaForConditionalGeneration:
    """In float32, as in evaluation; `min_frames` 2, so that short videos forget too."""
    torch.manual_seed(seed)
    made = HourLlavaForConditionalGeneration(tiny_config(processor(), **{"min_frames": 2} | settings)).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # random weights of the usual size hardly change their input
            if parameter.ndim > 1:
                parameter.mul_(3)
    return made


def example(number: int, frames: int, turns: tuple[tuple[str, str], ...] = TURNS, *, features: bool = True) -> Example:
    generator = Generator().manual_seed(number)
    pixels = torch.randint(0, 256, (frames, 24, 40, 3), generator=generator, dtype=torch.uint8)
    pooled = torch.randn(frames, 16, 32, generator=generator).bfloat16()
    return Example(
        key=f"demo/{number}",
        video_id=f"v{number}",
        turns=turns,
        qa_ids=tuple(str(i) for i in range(len(turns))),
        frames=None if features else pixels,
        features=pooled if features else None,
        seconds=float(frames),
    )
