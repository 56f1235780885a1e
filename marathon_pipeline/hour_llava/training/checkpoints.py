"""Checkpoints of a stage: a folder each, whole or not there; and the trained model.

PyTorch's distributed checkpoint holds what is trained, with the optimizer, each worker writing its share; a file a
worker holds its random state and its place in the data. A folder gets its name when all of it is on the disk.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from marathon_pipeline.errors import UserError
from marathon_pipeline.hour_llava.processing import HourLlavaProcessor
from marathon_pipeline.hour_llava.training.build import Model
from marathon_pipeline.hour_llava.training.parallel import barrier, rank_and_ranks

_PARTIAL = ".partial"
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)  # the frozen rest is where it came from


class Checkpoints:
    """Those of one stage, in `folder`. Every rank calls every method, at the same step."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._rank, self._ranks = rank_and_ranks()

    def steps(self) -> list[int]:
        """Of the checkpoints that are whole, in ascending order."""
        found = self._folder.glob("step-*") if self._folder.is_dir() else iter(())
        return sorted(int(path.name.removeprefix("step-")) for path in found if not path.name.endswith(_PARTIAL))

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, own: Mapping[str, Any]) -> None:
        """own: what this rank has to know besides, such as its place in the data: plain values and tensors."""
        whole = self._folder / f"step-{step:08d}"
        partial = whole.with_name(whole.name + _PARTIAL)
        if self._rank == 0:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        barrier()
        weights, moments = get_state_dict(model, optimizer, options=_TRAINED)
        save({"model": weights, "optimizer": moments}, checkpoint_id=partial, no_dist=self._ranks == 1)
        with (partial / self._file(self._rank)).open("wb") as file:
            torch.save({"ranks": self._ranks, "random": _random_state(), **own}, file)
            file.flush()
            os.fsync(file.fileno())
        barrier()
        if self._rank == 0:
            _sync(partial)
            shutil.rmtree(whole, ignore_errors=True)
            partial.rename(whole)
            _sync(self._folder)
            for old in self.steps()[: -self._keep]:
                shutil.rmtree(self._folder / f"step-{old:08d}")
        barrier()

    def load(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
        """Take up the newest one; returns this rank's own part, or None where there is no checkpoint.

        Raises UserError where it was written by another number of workers, whose places in the data were others.
        """
        steps = self.steps()
        if not steps:
            return None
        folder = self._folder / f"step-{steps[-1]:08d}"
        count = len(list(folder.glob(self._file("*"))))
        if count != self._ranks:
            raise UserError(
                f"{folder}: is of {count} workers, and there are {self._ranks} (run.workers): go on with as many, or "
                "take another `out`"
            )
        own: dict[str, Any] = torch.load(folder / self._file(self._rank), weights_only=True)
        weights, moments = get_state_dict(model, optimizer, options=_TRAINED)
        state = {"model": weights, "optimizer": moments}
        load(state, checkpoint_id=folder, no_dist=self._ranks == 1)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=_TRAINED)
        _set_random_state(own["random"])
        return own

    def drop(self) -> None:
        """The stage is done, and its model saved."""
        if self._rank == 0:
            shutil.rmtree(self._folder, ignore_errors=True)

    @staticmethod
    def _file(rank: int | str) -> str:
        return f"worker-{rank}.pt"


def save_model(model: Model, processor: HourLlavaProcessor, folder: Path) -> None:
    """`save_pretrained` of the whole model and its processor, in fp32; every rank calls it."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=options)  # on rank 0 alone
    if rank_and_ranks()[0] == 0:
        partial = folder.with_name(folder.name + _PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial, state_dict=weights)
        processor.save_pretrained(partial)
        for path in partial.iterdir():
            _sync(path)
        _sync(partial)
        partial.rename(folder)
        _sync(folder.parent)
    barrier()


def _random_state() -> dict[str, Any]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _sync(path: Path) -> None:
    """To the disk: a name that is there after a power cut, and what it names is not, would be worse than neither."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
