"""What each worker of a training does: the stages that are not done, one after another."""

import gc
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from marathon_pipeline.errors import UserError
from marathon_pipeline.hour_llava.training.build import build, load
from marathon_pipeline.hour_llava.training.feed import ReleaseFeed
from marathon_pipeline.hour_llava.training.folder import alone_in, is_done, model_of
from marathon_pipeline.hour_llava.training.loop import Stopped, train_stage
from marathon_pipeline.hour_llava.training.parallel import barrier, rank_and_ranks
from marathon_pipeline.hour_llava.training.settings import TrainJob, TrainStage

DONE, STOPPED = "done", "stopped"


def work(asked: dict[str, Any]) -> str:
    """Called by Ray Train. asked: `job`, its settings as plain values; `stop`, a file whose coming ends it."""
    from ray.train.torch import get_device

    job, stop, device = TrainJob.model_validate(asked["job"]), Path(asked["stop"]), get_device()
    if device.type == "cpu":
        torch.set_num_threads(job.run.cpus)
    own: AbstractContextManager[None] = alone_in(Path(job.out)) if rank_and_ranks()[0] == 0 else nullcontext()
    try:
        with own:
            for stage in job.stages:
                barrier()  # so that all see the same folder
                if not is_done(job, stage):
                    train_one(job, stage, device, stop)
                gc.collect()  # the model and its optimizer, before the next ones come, or the process group goes
    except Stopped:
        return STOPPED
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"the GPU's memory does not hold it ({str(error).partition('. ')[0]}); lower data.batch_size or "
            "data.max_tokens, or take run.shard: fsdp on more workers"
        ) from None
    finally:
        gc.collect()
    return DONE


def train_one(job: TrainJob, stage: TrainStage, device: torch.device, stop: Path) -> None:
    rank, ranks = rank_and_ranks()
    before = job.before(stage)
    model, processor = load(model_of(job, before)) if before else build(job.model, job.seed)
    feed = ReleaseFeed(stage.data, processor, job.seed, rank, ranks)
    accumulation = job.accumulation(stage)
    train_stage(stage, job.run, accumulation, model, processor, feed, job.folder(stage), device, stop.exists)
