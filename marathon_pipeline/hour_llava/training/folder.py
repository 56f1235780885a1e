"""A stage's folder: whether it is done; that nobody goes on in it with other settings, or beside another training."""

import fcntl
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marathon_pipeline.errors import UserError
from marathon_pipeline.hour_llava.training.settings import TrainJob, TrainStage

MODEL, CHECKPOINTS, SETTINGS = "model", "checkpoints", "settings.json"
_PATIENCE = 60.0  # seconds: the workers of a command that was killed take a moment to end


def model_of(job: TrainJob, stage: TrainStage) -> Path:
    """Where its model is saved, as the last of all that it does."""
    return job.folder(stage) / MODEL


def is_done(job: TrainJob, stage: TrainStage) -> bool:
    return model_of(job, stage).exists()


def claim(job: TrainJob, stage: TrainStage) -> None:
    """Note in the folder what its model follows from. Raises UserError where it holds the work of other settings."""
    path = job.folder(stage) / SETTINGS
    decisive = job.decisive(stage)
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = None
    if before is not None and before != decisive:
        raise UserError(
            f"{path.parent} was begun with other settings ({_first_difference(before, decisive)}): take those again, "
            "another `out`, or delete the folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(decisive, indent=1), encoding="utf-8")
    partial.replace(path)


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Raises UserError where another process trains into the same folder; its death lets go of it."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as file:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise UserError(
                        f"{out}: another training writes there; wait for it, or take another `out`"
                    ) from None
                time.sleep(0.5)
        yield


def _first_difference(before: Any, now: Any, name: str = "") -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in [*before, *now]:
            if before.get(key) != now.get(key):
                return _first_difference(before.get(key), now.get(key), f"{name}.{key}" if name else str(key))
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, (one, other) in enumerate(zip(before, now, strict=True)):
            if one != other:
                return _first_difference(one, other, f"{name}.{number}")
    return f"{name}: {json.dumps(before)[:80]} then, {json.dumps(now)[:80]} now"
