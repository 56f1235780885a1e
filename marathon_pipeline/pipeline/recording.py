"""A run on record while it goes: in its lease, in its log and in metrics."""

import getpass
import json
import os
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from marathon_pipeline import __version__
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.lease import Lease
from marathon_pipeline.errors import Failed, UserError, defect
from marathon_pipeline.pipeline.event_log import EventLog
from marathon_pipeline.pipeline.metrics import Metrics
from marathon_pipeline.pipeline.settings import RunSettings
from marathon_pipeline.pipeline.standing import Account, Standing
from marathon_pipeline.pipeline.watcher import Load, Watchers


class Recording(Watchers):
    """A context manager, for as long as the lease is held."""

    def __init__(self, dataset: Dataset, lease: Lease, settings: RunSettings) -> None:
        began = time.time()
        name = datetime.fromtimestamp(began, UTC).strftime("%Y%m%dT%H%M%SZ")
        self._lease, self._settings = lease, settings
        self._loaded = False
        self.stopped = False  # with work left: for who knows to say so
        self.standing = Standing(run=name, user=_user(), submission=_submission(), began=round(began, 3))
        self.log = EventLog(dataset.storage, name)
        exported = settings.ray_address != "local" or settings.metrics_port is not None
        metrics = [Metrics(dataset, self.standing)] if exported else []
        super().__init__(Account(self.standing), self.log, *metrics)

    def does(self, what: str, **about: Any) -> None:
        """A step of the run begins. about: what the log is to tell of it."""
        self.standing.doing = what
        self.log.say("step_began", step=what, **about)
        self.log.flush()  # what takes a source out of the dataset next finds all that the log says of it
        self._tell(at_once=True)

    def loaded(self, load: Load) -> None:
        super().loaded(load)
        self._tell(at_once=not self._loaded)
        self._loaded = True

    def __enter__(self) -> "Recording":
        self.log.say(
            "run_began",
            version=__version__,
            **self._lease.place,
            user=self.standing.user,
            submission=self.standing.submission,
            ray_address=self._settings.ray_address,
            workers=self._settings.workers,
        )
        self._tell()  # with the first step, or the next beat: the lease itself was written just now
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        how = {} if error is None else {"error": _line(error)}
        stages = {
            name: {"ok": stage.ok, "filtered": stage.filtered, "failed": stage.failed}
            for name, stage in self.standing.stages.items()
        }
        self.standing.doing = "broke off" if error else "stopped" if self.stopped else "done"
        self.log.say(
            "run_ended",
            how=self.standing.doing,
            seconds=round(time.time() - self.standing.began, 3),
            expected=self.standing.expected,
            finished=self.standing.finished,
            stages=stages,
            **how,
        )
        self.log.flush()
        self._tell()

    def _tell(self, *, at_once: bool = False) -> None:
        self._lease.tell(self.standing.model_dump(mode="json", exclude_defaults=True), at_once=at_once)


def _line(error: BaseException) -> str:
    if isinstance(error, UserError | Failed):
        return str(error)
    return defect(error) if isinstance(error, Exception) else "interrupted"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return str(os.getuid())


def _submission() -> str:
    """The id under which Ray's job server runs this process, if it does."""
    try:
        return str(json.loads(os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"])["metadata"]["job_submission_id"])
    except (KeyError, ValueError, TypeError):
        return ""
