"""Where a dataset stands, from its ledger."""

from collections.abc import Mapping

from pydantic import BaseModel

from marathon_pipeline.annotators.served.settings import Price
from marathon_pipeline.dataset.columns import exploded
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.pipeline.spending import Budget, Spending, Spent
from marathon_pipeline.pipeline.stage_list import OPTIONAL, STAGE_NAMES
from marathon_pipeline.pipeline.standing import RunStatus, run_status
from marathon_pipeline.pipeline.yields import Yield, yields

_SUMS = ("items", "seconds", "video_seconds", "probed")


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
    lost: dict[str, int] = {}  # what was written and came to no good, by reason
    probed: int = 0  # clips that were captioned again

    @property
    def entered(self) -> int:
        return self.ok + sum(self.filtered.values()) + sum(self.failed.values())

    @property
    def speed(self) -> float:
        """Seconds of video per second of work."""
        return self.video_seconds / self.seconds if self.seconds else 0.0


class DatasetStatus(BaseModel):
    """Where a dataset stands, what its models cost, and how much of the budget is left."""

    stages: list[StageStatus]
    spent: list[Spent]
    left: dict[str, float]  # of the limits that the job sets
    per_thousand_qa: dict[str, float]  # of those without a problem; what gates reject besides counts here
    per_video_hour: dict[str, float]
    yields: list[Yield] = []  # by collection
    run: RunStatus | None = None  # the one under way, or the last one


def dataset_status(dataset: Dataset, budget: Budget, prices: Mapping[str, Price]) -> DatasetStatus:
    spending = Spending(prices, dataset.ledger)
    totals = spending.totals()
    if budget.storage_bytes is not None:
        totals["storage_bytes"] = dataset.storage.total_bytes()
    stages = status(dataset)
    by_name = {stage.stage: stage for stage in stages}
    accepted = by_name["verify"].items - by_name["verify"].lost.get("rejected", 0)
    hours = by_name["segment"].video_seconds / 3600
    return DatasetStatus(
        stages=stages,
        spent=list(spending),
        left={name: limit - totals[name] for name, limit in budget if limit is not None},
        per_thousand_qa=_per(totals, accepted / 1000),
        per_video_hour=_per(totals, hours),
        yields=yields(dataset),
        run=run_status(dataset.storage),
    )


def _per(totals: Mapping[str, float], count: float) -> dict[str, float]:
    return {name: total / count for name, total in totals.items() if total} if count > 0 else {}


def status(dataset: Dataset) -> list[StageStatus]:
    stages = {name: StageStatus(stage=name) for name in STAGE_NAMES}
    table = dataset.ledger.table("stage", "status", "reason", "transient", *_SUMS)
    sums = [(name, "sum") for name in ("transient", *_SUMS)]
    ends = table.group_by(["stage", "status", "reason"], use_threads=False).aggregate([([], "count_all"), *sums])
    for end in ends.to_pylist():
        stage, reason, count = stages[end["stage"]], end["reason"], end["count_all"]
        for name in _SUMS:
            setattr(stage, name, getattr(stage, name) + end[f"{name}_sum"])
        if end["status"] == "ok":
            stage.ok += count
        else:
            reasons = stage.filtered if end["status"] == "filtered" else stage.failed
            reasons[reason] = reasons.get(reason, 0) + count
            stage.transient += end["transient_sum"]
    lost = exploded(dataset.ledger.table("stage", "lost"), "lost").group_by(["stage", "key"], use_threads=False)
    for row in lost.aggregate([("value", "sum")]).sort_by("key").to_pylist():
        stages[row["stage"]].lost[row["key"]] = row["value_sum"]
    return [stage for stage in stages.values() if stage.entered or stage.stage not in OPTIONAL]
