"""The loop of a stage: batches in, a trained model out, from wherever a run before this one was stopped.

The loss of a step is the mean over all answer tokens of all its batches on all ranks, whoever got how many of them. So
each batch adds the gradient of its sum, and the sum is divided once, by a count that all ranks have added up.
"""

import math
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import get_cosine_schedule_with_warmup

from marathon_pipeline.errors import UserError
from marathon_pipeline.hour_llava.processing import HourLlavaProcessor
from marathon_pipeline.hour_llava.training.build import Model
from marathon_pipeline.hour_llava.training.checkpoints import Checkpoints, save_model
from marathon_pipeline.hour_llava.training.feed import Batch, Feed, language_model_tokens
from marathon_pipeline.hour_llava.training.folder import CHECKPOINTS, MODEL
from marathon_pipeline.hour_llava.training.log import Log, Step
from marathon_pipeline.hour_llava.training.parallel import adding_up, rank_and_ranks, spread, total
from marathon_pipeline.hour_llava.training.parts import freeze_all_but, parameter_groups
from marathon_pipeline.hour_llava.training.settings import TrainRun, TrainStage


class Stopped(Exception):
    """Training was asked to stop; its checkpoint is written, and the same command goes on from there."""


def train_stage(
    stage: TrainStage,
    run: TrainRun,
    accumulation: int,
    model: Model,
    processor: HourLlavaProcessor,
    feed: Feed,
    folder: Path,
    device: torch.device,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Train what the stage trains and leave the model in `folder/model`. Every rank calls it.

    accumulation: batches of each rank in one step. stopping: asked on rank 0 behind each step; Stopped is then raised
    on every rank. Raises UserError where the loss is no number any more, or the data cannot be read.
    """
    rates = stage.learning_rates.of_parts()
    freeze_all_but(model, rates)
    model.train()
    spread_model = spread(model, run, device)
    groups = parameter_groups(model, rates, stage.weight_decay)
    if not groups:
        raise UserError(f"stage {stage.name}: the model has none of the parts that it trains ({', '.join(rates)})")
    trained = [parameter for group in groups for parameter in group["params"]]
    optimizer = AdamW(groups, betas=stage.betas)
    checkpoints = Checkpoints(folder / CHECKPOINTS, run.keep)
    rank, ranks = rank_and_ranks()

    steps = _steps(stage, accumulation, feed, ranks)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(stage.warmup * steps), steps)
    done = 0
    if (own := checkpoints.load(model, optimizer)) is not None:
        done = own["step"]
        schedule.load_state_dict(own["schedule"])
        feed.load_state_dict(own["feed"])
    log = Log(folder, done) if rank == 0 else None
    batches = iter(feed)
    arithmetic = _autocast(run, device)
    try:
        for step in range(done + 1, steps + 1):
            began = time.monotonic()
            sums = _Sums()
            for number in range(accumulation):
                batch = sums.waited(batches)
                with adding_up(spread_model, last=number == accumulation - 1):
                    with arithmetic():
                        loss = spread_model(**_on(device, batch), num_items_in_batch=1, use_cache=False).loss
                    loss.backward()
                sums.add(model, batch, loss)
            stop, unreadable = rank == 0 and stopping(), feed.unreadable
            sums.over_ranks(device, time.monotonic() - began, stop, unreadable)
            norm = _scaled_and_clipped(trained, ranks / sums.answer_tokens, stage.clip)
            told = sums.step(step, steps, norm, schedule_rates(optimizer), time.monotonic() - began, device)
            if not (math.isfinite(told.loss) and math.isfinite(norm)):
                raise UserError(
                    f"stage {stage.name}, step {step}: the loss is {told.loss}, the gradient's norm {norm}; lower the "
                    "learning rates, or look at the data from the last checkpoint on"
                )
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if log is not None:
                log.write(told)
            if sums.stop or step % run.checkpoint_every == 0:
                own = {"step": step, "schedule": schedule.state_dict(), "feed": feed.state_dict()}
                checkpoints.save(step, model, optimizer, own)
            if sums.stop and step < steps:
                raise Stopped
    finally:
        if log is not None:
            log.close()
    model.train(False)
    save_model(model, processor, folder / MODEL)
    checkpoints.drop()


def schedule_rates(optimizer: AdamW) -> dict[str, float]:
    """By part, as they are for the step to come."""
    return {group["part"]: float(group["lr"]) for group in optimizer.param_groups}


@dataclass
class _Sums:
    """Of one step: on this rank, and after `over_ranks` on all."""

    loss: Tensor | float = 0.0
    answer_tokens: int = 0
    tokens: int = 0
    places: int = 0
    samples: int = 0
    waiting: float = 0.0
    seconds: float = 0.0
    stop: bool = False
    unreadable: int = 0
    _memory: int = field(default=0, repr=False)

    def waited(self, batches: Iterator[Batch]) -> Batch:
        began = time.monotonic()
        batch = next(batches)
        self.waiting += time.monotonic() - began
        return batch

    def add(self, model: Model, batch: Batch, loss: Tensor) -> None:
        self.loss = self.loss + loss.detach().double()
        lengths = language_model_tokens(model.config, batch)
        self.tokens += sum(lengths)
        self.places += max(lengths) * len(lengths)
        self.samples += len(lengths)
        self.answer_tokens += int((batch["labels"][:, 1:] != -100).sum())

    def over_ranks(self, device: torch.device, seconds: float, stop: bool, unreadable: int) -> None:
        own = [self.answer_tokens, self.tokens, self.places, self.samples, self.waiting, seconds, stop, unreadable]
        values = torch.tensor([float(self.loss), *map(float, own)], dtype=torch.float64).to(device)
        loss, answers, tokens, places, samples, self.waiting, self.seconds, stops, lost = total(values).tolist()
        self.loss, self.stop = loss, bool(stops)
        self.answer_tokens, self.tokens, self.places, self.samples = map(int, (answers, tokens, places, samples))
        self.unreadable = int(lost)
        if not self.answer_tokens:
            raise UserError("a whole step of training has no answer token; look at the data")

    def step(
        self, step: int, steps: int, norm: float, rates: dict[str, float], seconds: float, device: torch.device
    ) -> Step:
        return Step(
            step=step,
            steps=steps,
            loss=float(self.loss) / self.answer_tokens,
            gradient_norm=norm,
            learning_rates=rates,
            seconds=seconds,
            samples=self.samples,
            tokens=self.tokens,
            answer_tokens=self.answer_tokens,
            padding=1 - self.tokens / self.places,
            waiting=self.waiting / self.seconds,
            memory_bytes=_memory(device),
            unreadable=self.unreadable,
        )


def _steps(stage: TrainStage, accumulation: int, feed: Feed, ranks: int) -> int:
    if stage.steps is not None:
        return stage.steps
    batches = float(total(torch.tensor(float(feed.batches()), dtype=torch.float64)))
    return max(1, math.ceil(stage.epochs * batches / ranks / accumulation))


def _scaled_and_clipped(parameters: list[nn.Parameter], scale: float, most: float) -> float:
    """Gradients times `scale`, their norm at most `most`; returns the norm before that."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    torch._foreach_mul_(gradients, scale)
    norm: Any = nn.utils.clip_grad_norm_(parameters, most)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _autocast(run: TrainRun, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: torch.autocast(device.type, torch.bfloat16, enabled=run.precision == "bf16")


def _on(device: torch.device, batch: Batch) -> Batch:
    """Frames, features, counts and seeds stay: the model takes them over piece by piece."""
    texts = ("input_ids", "attention_mask", "labels", "question_mask")
    return {name: value.to(device, non_blocking=True) if name in texts else value for name, value in batch.items()}


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
