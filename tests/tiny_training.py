"""Tiny models and data to train them on, made on the spot; also run as a program, by tests that kill it."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from marathon_pipeline.hour_llava.example import Example
from marathon_pipeline.hour_llava.training.build import build
from marathon_pipeline.hour_llava.training.feed import Batch, Collate
from marathon_pipeline.hour_llava.training.loop import train_stage
from marathon_pipeline.hour_llava.training.settings import TrainJob

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 4,
}
LLM = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
MODEL: dict[str, Any] = {
    "vision": VISION,
    "llm": LLM,
    "system": "",
    "forgetting": {"min_frames": 2},
    "memaug": {"depth": 1},
}


def job_of(out: Path | str, *stages: str, run: Mapping[str, Any] = {}, **stage_settings: Any) -> TrainJob:
    """`stages` by name, all of them with the same settings, over data that these tests give themselves."""
    common = {"data": {"releases": ["none"], "batch_size": 2}, "batch": 4, "steps": 6, **stage_settings}
    return TrainJob.model_validate(
        {
            "out": str(out),
            "model": MODEL,
            "stages": [{"stage": stage, **common} for stage in stages],
            "run": {"precision": "fp32", "checkpoint_every": 2, **run},
        }
    )


def examples(count: int, features: bool = False) -> list[Example]:
    """Conversations of different lengths about videos of different lengths, each of one colour."""
    random = torch.Generator().manual_seed(7)
    made = []
    for number in range(count):
        frames = 2 + number % 4
        colour = int(torch.randint(256, (1,), generator=random))
        pixels = torch.full((frames, 24, 32, 3), colour, dtype=torch.uint8)
        vectors = torch.randn(frames, 64, VISION["hidden_size"], generator=random).bfloat16()
        made.append(
            Example(
                key=f"video-{number}",
                video_id=f"video-{number}",
                turns=tuple(
                    (f"How bright is it? {turn}", "bright " * (1 + number % 3)) for turn in range(1 + number % 2)
                ),
                qa_ids=(str(number),),
                frames=None if features else pixels,
                features=vectors if features else None,
                seconds=float(frames),
            )
        )
    return made


class DealtFeed:
    """Examples in their order, without end; the ranks take turns, a batch each."""

    unreadable = 0

    def __init__(self, of: list[Example], collate: Collate, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        self._of, self._collate, self._size, self._rank, self._ranks = of, collate, batch_size, rank, ranks
        self._next = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            first = (self._next * self._ranks + self._rank) * self._size
            self._next += 1
            yield self._collate([self._of[(first + each) % len(self._of)] for each in range(self._size)])

    def batches(self) -> int:
        return len(self._of) // self._size // self._ranks

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._next = state["next"]


def train(
    job: TrainJob, *, features: bool = False, rank: int = 0, ranks: int = 1, stopping: Any = lambda: False
) -> Any:
    """The first stage of a job, without Ray; returns its model."""
    stage = job.stages[0]
    model, processor = build(job.model, job.seed)
    feed = DealtFeed(examples(12, features), Collate(processor, job.seed), stage.data.batch_size, rank, ranks)
    device = torch.device("cpu")
    train_stage(stage, job.run, job.accumulation(stage), model, processor, feed, job.folder(stage), device, stopping)
    return model


def curve(folder: Path) -> list[tuple[float, float]]:
    """Loss and norm of the gradient of each step that a stage's log holds."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [(line["loss"], line["gradient_norm"]) for line in map(json.loads, lines)]


def _rank(number: int, ranks: int, job: TrainJob, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=number, world_size=ranks)
    train(job, rank=number, ranks=ranks)
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(job: TrainJob, ranks: int, port: int) -> None:
    torch.multiprocessing.start_processes(_rank, (ranks, job, port), nprocs=ranks, start_method="spawn")


if __name__ == "__main__":  # OUT [STEP]: kills itself with -9 in the middle of the step behind STEP
    torch.set_num_threads(1)
    kill_after = int(sys.argv[2]) if len(sys.argv) > 2 else None
    job = job_of(sys.argv[1], "s3")

    def dying() -> bool:
        log = job.folder(job.stages[0]) / "log.jsonl"
        if kill_after is not None and len(log.read_text().splitlines()) >= kill_after:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return False

    train(job, stopping=dying)
