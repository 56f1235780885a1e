"""Where a dataset stands, from its ledger."""

from pydantic import BaseModel

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.pipeline.stage_list import STAGE_NAMES


class StageStatus(BaseModel):
    """In = ok + filtered + failed, counted in sources (`download`), videos, or videos times tasks (`qa`, `verify`)."""

    stage: str
    ok: int = 0
    filtered: dict[str, int] = {}  # by rule
    failed: dict[str, int] = {}  # by reason
    transient: int = 0  # of the failed, those that the next run tries again
    items: int = 0  # rows written
    seconds: float = 0.0  # of work
    video_seconds: float = 0.0  # worked on

    @property
    def entered(self) -> int:
        return self.ok + sum(self.filtered.values()) + sum(self.failed.values())

    @property
    def speed(self) -> float:
        """Seconds of video per second of work."""
        return self.video_seconds / self.seconds if self.seconds else 0.0


def status(dataset: Dataset) -> list[StageStatus]:
    stages = {name: StageStatus(stage=name) for name in STAGE_NAMES}
    for outcome in dataset.ledger:
        stage = stages[outcome.stage]
        stage.seconds += outcome.seconds
        stage.video_seconds += outcome.video_seconds
        stage.items += outcome.items
        if outcome.status == "ok":
            stage.ok += 1
        else:
            reasons = stage.filtered if outcome.status == "filtered" else stage.failed
            reasons[outcome.reason] = reasons.get(outcome.reason, 0) + 1
            stage.transient += outcome.transient
    return list(stages.values())
