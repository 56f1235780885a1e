"""One model on many workers: copies (DDP) or shares (FSDP2), and what is traded for memory or speed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

from marathon_pipeline.hour_llava.memaug import MemAugBlock
from marathon_pipeline.hour_llava.training.build import Model
from marathon_pipeline.hour_llava.training.settings import TrainRun
from marathon_pipeline.hour_llava.vision import VisionTower

# The vision tower is gathered as a whole: ranks pass their frames in different numbers of chunks, and gathering it
# by layers, a rank would wait for another that never comes. The other layers are called once a batch on every rank.
_SHARDED = (VisionTower, MemAugBlock, Qwen2DecoderLayer)
_COMPILED = (
    SiglipEncoderLayer,
    Qwen2DecoderLayer,
)  # MemAug's are called with the lengths of samples, new ones each time


def rank_and_ranks() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def total(values: Tensor) -> Tensor:
    """The sum over all ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def spread(model: Model, run: TrainRun, device: torch.device) -> nn.Module:
    """The model as the loop calls it. `model` itself stays what is saved; what is frozen has to be so by now."""
    if run.activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if run.compile:
        for module in model.modules():
            if isinstance(module, _COMPILED):
                module.compile(dynamic=True)
    if run.shard == "fsdp" and dist.is_initialized():
        mesh = dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))
        policy = (
            MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
            if run.precision == "bf16"
            else MixedPrecisionPolicy()
        )
        for module in model.modules():
            if isinstance(module, _SHARDED):
                fully_shard(module, mesh=mesh, mp_policy=policy)
        return fully_shard(model, mesh=mesh, mp_policy=policy)  # type: ignore[return-value]
    nn.Module.to(model, device)
    return DistributedDataParallel(model) if rank_and_ranks()[1] > 1 else model


@contextmanager
def adding_up(model: nn.Module, last: bool) -> Iterator[None]:
    """Gradients of several batches are added up, and summed over the ranks with the last one only."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        yield
        return
    silent: AbstractContextManager[None] = nullcontext()
    if isinstance(model, DistributedDataParallel) and not last:
        silent = model.no_sync()
    with silent:
        yield
