"""A training from the command's side: what is wrong is said before anything starts; Ray Train runs the workers.

Ray itself is started by the caller. The command asks the workers to stop by a file in the folder that all of them see.
"""

import threading
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from typing import Any

from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.hour_llava.training.folder import claim, is_done
from marathon_pipeline.hour_llava.training.log import Step, read_log
from marathon_pipeline.hour_llava.training.settings import TrainJob, TrainStage

Told = Callable[[TrainStage, Step], None]
_NEEDS = ("torch", "transformers", "tensorboard")
_LOOK_SECONDS = 0.3
_FINAL = (UserError, Failed, ValueError, TypeError, LookupError, AttributeError, AssertionError)  # no death of a worker


def prepare(job: TrainJob) -> list[TrainStage]:
    """The stages that are left to train. Raises UserError where they could not be."""
    if missing := [name for name in _NEEDS if find_spec(name) is None]:
        raise UserError(f"training needs {missing[0]}: pip install 'marathon-pipeline[train]'")
    from marathon_pipeline.hour_llava.data.shards import ReleaseShards

    for stage in job.stages:
        claim(job, stage)
    left = [stage for stage in job.stages if not is_done(job, stage)]
    for stage in left:
        for url in stage.data.releases:
            ReleaseShards(url, stage.data.split, media=not stage.data.features)
    if left and job.before(left[0]) is None:
        _find_model(job)
    return left


def train_stages(job: TrainJob, left: list[TrainStage], stopping: Callable[[], bool], told: Told) -> bool:
    """Train the stages that are left; True when all are, False when `stopping` said so first.

    `job` is absolute (`TrainJob.absolute`). Raises UserError where data or settings are at fault, Failed where workers
    died more often than `run.restarts`.
    """
    stop = Path(job.out) / f"stop-{uuid.uuid4().hex}"
    try:
        restarts = 0
        while isinstance(outcome := _Watched(job, left, stop).until_done(stopping, told), Exception):
            if isinstance(outcome, _FINAL) or stop.exists() or restarts == job.run.restarts:
                raise _said(outcome, restarts)
            restarts += 1
        return outcome == "done"
    finally:
        stop.unlink(missing_ok=True)


class _Watched:
    """One fit of Ray Train in a thread of its own, and what its log tells meanwhile."""

    def __init__(self, job: TrainJob, left: list[TrainStage], stop: Path) -> None:
        self._job, self._left, self._stop = job, list(left), stop
        self._outcome: str | Exception = Failed("no_outcome", "training ended without a word")
        self._read = 0
        self._step = 0

    def until_done(self, stopping: Callable[[], bool], told: Told) -> str | Exception:
        self._skip()
        thread = threading.Thread(target=self._fit, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_SECONDS)
            if stopping():
                self._stop.touch()
            self._tell(told)
        self._tell(told)
        return self._outcome

    def _fit(self) -> None:
        try:
            self._outcome = _fit(self._job, self._stop)
        except Exception as error:
            self._outcome = error

    def _skip(self) -> None:
        """What is in the log was told before; what a resumed run does again is told again."""
        for step, _ in read_log(self._job.folder(self._left[0])):
            self._step = step.step

    def _tell(self, told: Told) -> None:
        while self._left:
            folder = self._job.folder(self._left[0])
            size = (folder / "log.jsonl").stat().st_size if (folder / "log.jsonl").exists() else 0
            if size < self._read:  # cut back to the checkpoint
                self._read = 0
            for step, behind in read_log(folder, self._read):
                self._read = behind
                if step.step > self._step:
                    told(self._left[0], step)
            if not is_done(self._job, self._left[0]):
                return
            self._left.pop(0)
            self._read = self._step = 0


def _fit(job: TrainJob, stop: Path) -> str:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    from marathon_pipeline.hour_llava.training.worker import work

    run = job.run
    gpu = run.gpu if run.gpu is not None else ray.cluster_resources().get("GPU", 0) > 0
    _fits(run.workers, run.cpus, gpu, ray.cluster_resources())
    name = f"fit-{uuid.uuid4().hex}"
    trainer: Any = TorchTrainer(
        work,  # type: ignore[arg-type]  # it may return what `return_value` gives
        train_loop_config={"job": job.model_dump(mode="json"), "stop": str(stop)},
        torch_config=TorchConfig(timeout_s=int(run.minutes * 60)),
        scaling_config=ScalingConfig(
            num_workers=run.workers, use_gpu=gpu, resources_per_worker={"CPU": run.cpus, **({"GPU": 1} if gpu else {})}
        ),
        run_config=RunConfig(name=name, storage_path=job.out, failure_config=FailureConfig(max_failures=0)),
    )
    try:
        return str(trainer.fit().return_value)
    except WorkerGroupError as error:
        failures: list[Any] = sorted(error.worker_failures.values(), key=lambda each: not isinstance(each, _FINAL))
        raise (failures[0] if failures else error) from None
    finally:
        rmtree(Path(job.out) / name, ignore_errors=True)  # Ray's notes: our own checkpoints say more


def _fits(workers: int, cpus: int, gpu: bool, there: dict[str, float]) -> None:
    """Raises UserError where Ray would wait for ever for what the cluster does not have."""
    for what, wanted in (("CPU", workers * cpus), ("GPU", workers if gpu else 0)):
        if wanted > there.get(what, 0):
            raise UserError(
                f"run.workers: {workers} of them want {wanted} {what}s, Ray has {there.get(what, 0):.0f}; take fewer"
            )


def _find_model(job: TrainJob) -> None:
    from transformers import AutoConfig

    from marathon_pipeline.hour_llava.configuration import HourLlavaConfig

    model = job.model
    named = {"path": model.path} if model.path else {"vision": model.vision, "llm": model.llm}
    for setting, name in named.items():
        if isinstance(name, str):
            try:
                (HourLlavaConfig if setting == "path" else AutoConfig).from_pretrained(name)
            except (OSError, ValueError) as error:
                why = " ".join(str(error).split())[:200]
                raise UserError(f"model.{setting}: no model `{name}` ({why}); give a name or a folder") from None


def _said(error: Exception, restarts: int) -> Exception:
    if isinstance(error, UserError | Failed):
        return error
    again = f" after {restarts} restarts" if restarts else ""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return Failed(
        "worker", f"a worker of the training ended{again} ({type(error).__name__}: {lines[-1][:300]})", transient=True
    )
