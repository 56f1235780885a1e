"""Metrics of a run, through Ray, which exports them for Prometheus with `ray_` before their names."""

import time
from collections import Counter as Counts
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.pipeline.stage_list import STAGE_NAMES
from marathon_pipeline.pipeline.standing import Standing
from marathon_pipeline.pipeline.watcher import Load, Watcher
from marathon_pipeline.records import Outcome

if TYPE_CHECKING:
    from ray.util.metrics import Counter, Gauge, Histogram


class Metric(NamedTuple):
    says: str
    labels: tuple[str, ...] = ()


# Prometheus' rules: base units, `_total` for what only grows. Each has the label `dataset` besides.
COUNTERS = {
    "marathon_outcomes_total": Metric("Ends of work, tasks counted each", ("stage", "status", "reason")),
    "marathon_rows_total": Metric("Rows written", ("stage",)),
    "marathon_lost_total": Metric("What was written and came to no good", ("stage", "reason")),
    "marathon_work_seconds_total": Metric("Time worked", ("stage",)),
    "marathon_video_seconds_total": Metric("Length of the videos worked on", ("stage",)),
    "marathon_videos_finished_total": Metric("Videos that came to their end"),
    "marathon_kills_total": Metric("Workers and decoders that died over a video", ("stage", "reason")),
    "marathon_requests_total": Metric("Requests to served models", ("stage", "model")),
    "marathon_tokens_total": Metric("Tokens of served models: prompt, cached (of these) and answer", ("model", "kind")),
    "marathon_gpu_seconds_total": Metric("Time of the servers' GPUs, shared among requests", ("model",)),
}
HISTOGRAMS = {"marathon_stage_seconds": Metric("How long the work of a stage on a video takes, by task", ("stage",))}
GAUGES = {
    "marathon_in_flight": Metric("Pieces of work in flight", ("stage",)),
    "marathon_waiting": Metric("Pieces of work that could begin", ("stage",)),
    "marathon_videos_left": Metric("Videos that the run still has to bring to their end"),
    "marathon_paused_sites": Metric("Sites that refuse downloads and are not asked"),
    "marathon_local_bytes": Metric("Downloads on the driver's disk: originals, partial", ("kind",)),
}
_BOUNDARIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
_WEIGH_SECONDS = 60.0


class Metrics(Watcher):
    """Ray loses what is recorded before it has started: so nothing is, before the first look at the load.

    standing: of the run, as another watcher keeps it.
    """

    def __init__(self, dataset: Dataset, standing: Standing) -> None:
        self._dataset, self._standing = dataset, standing
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Gauge] = {}
        self._histograms: dict[str, Histogram] = {}
        self._weighed = float("-inf")

    def loaded(self, load: Load) -> None:
        if not self._counters:
            self._create()
        for stage in STAGE_NAMES:
            self._set("marathon_in_flight", load.in_flight.get(stage, 0), stage=stage)
            self._set("marathon_waiting", load.waiting.get(stage, 0), stage=stage)
        self._set("marathon_videos_left", self._standing.expected - self._standing.finished)
        self._set("marathon_paused_sites", len({pause.site for pause in load.paused}))
        if time.monotonic() - self._weighed > _WEIGH_SECONDS:
            self._weighed, storage = time.monotonic(), self._dataset.storage
            self._set("marathon_local_bytes", storage.originals_bytes(), kind="originals")
            self._set("marathon_local_bytes", storage.partial_bytes(), kind="partial")

    def ended(self, outcomes: Sequence[Outcome]) -> None:
        """The sums over the tasks of a video: a call of Ray's costs microseconds, and a video has fifty outcomes."""
        if not outcomes:
            return
        stage = outcomes[0].stage
        ends = Counts((outcome.status, outcome.reason) for outcome in outcomes)
        for (status, reason), count in ends.items():
            self._add("marathon_outcomes_total", count, stage=stage, status=status, reason=reason)
        self._add("marathon_rows_total", sum(outcome.items for outcome in outcomes), stage=stage)
        self._add("marathon_work_seconds_total", sum(outcome.seconds for outcome in outcomes), stage=stage)
        self._add("marathon_video_seconds_total", sum(outcome.video_seconds for outcome in outcomes), stage=stage)
        for outcome in outcomes:
            self._histograms["marathon_stage_seconds"].observe(outcome.seconds, self._labels(stage=stage))
            for reason, count in outcome.lost.items():
                self._add("marathon_lost_total", count, stage=stage, reason=reason)
            if outcome.usage:
                self._add_usage(outcome)

    def _add_usage(self, outcome: Outcome) -> None:
        """An outcome holds all that its work has cost since its first request: what is on record was counted before."""
        known = self._dataset.ledger.get(outcome.stage, outcome.video_id, outcome.part)
        before = {usage.model: usage for usage in known.usage} if known else {}
        for usage in outcome.usage:
            past, model = before.get(usage.model, type(usage)(model=usage.model)), usage.model
            self._add("marathon_requests_total", usage.requests - past.requests, stage=outcome.stage, model=model)
            for kind, tokens in (
                ("prompt", usage.prompt_tokens - past.prompt_tokens),
                ("cached", usage.cached_tokens - past.cached_tokens),
                ("answer", usage.completion_tokens - past.completion_tokens),
            ):
                self._add("marathon_tokens_total", tokens, model=model, kind=kind)
            self._add("marathon_gpu_seconds_total", usage.gpu_seconds - past.gpu_seconds, model=model)

    def killed(self, stage: str, video_id: str, reason: str) -> None:
        self._add("marathon_kills_total", 1, stage=stage, reason=reason)

    def finished(self) -> None:
        self._add("marathon_videos_finished_total", 1)

    def _create(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        for name, (says, labels) in COUNTERS.items():
            self._counters[name] = Counter(name, says, ("dataset", *labels))
        for name, (says, labels) in GAUGES.items():
            self._gauges[name] = Gauge(name, says, ("dataset", *labels))
        for name, (says, labels) in HISTOGRAMS.items():
            self._histograms[name] = Histogram(name, says, list(_BOUNDARIES), ("dataset", *labels))

    def _add(self, name: str, amount: float, **labels: str) -> None:
        if amount > 0:  # Ray takes no other
            self._counters[name].inc(amount, self._labels(**labels))

    def _set(self, name: str, value: float, **labels: str) -> None:
        self._gauges[name].set(value, self._labels(**labels))

    def _labels(self, **labels: str) -> dict[str, str]:
        return {"dataset": self._dataset.url, **labels}
