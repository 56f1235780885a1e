"""What the work of a plan would cost: from what the same work has cost in this dataset, else from assumptions."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from marathon_pipeline.annotators.served.settings import Price
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.pipeline.plan import Work
from marathon_pipeline.pipeline.spending import Spending
from marathon_pipeline.stages.stage import Stage, is_served

MEAN_SECONDS = 20.9 * 60  # of a video whose length nobody knows yet (VideoMarathon: 9,700 hours in 28,000 videos)
# Assumed where nothing was measured (docs/serving.md): requests for a video and for each of its seconds, and the tokens
# of a prompt and of an answer.
_ASSUMED: dict[str, tuple[float, float, int, int]] = {
    "caption_clips": (0, 1 / 20, 2620, 540),
    "caption_events": (1, 11.5 / MEAN_SECONDS, 4000, 240),
    "summarize": (1, 0, 3050, 370),
    "qa": (2, 0, 12400, 290),  # for each task
    "verify": (15, 0, 900, 40),  # for each task: three questions in each format
    "calibrate": (1.2, 0, 900, 40),  # of a twentieth of them
}


class Estimate(BaseModel):
    """`measured`: whether all of it follows from what was spent before; GPU-hours are never assumed."""

    requests: float = 0
    tokens: float = 0
    gpu_hours: float = 0
    money: float = 0
    storage_bytes: float = 0
    measured: bool = True

    def plus(self, other: "Estimate") -> "Estimate":
        sums = {name: getattr(self, name) + getattr(other, name) for name in type(self).model_fields}
        return Estimate.model_validate({**sums, "measured": self.measured and other.measured})

    def times(self, share: float) -> "Estimate":
        scaled = {name: getattr(self, name) * share for name in type(self).model_fields}
        return Estimate.model_validate({**scaled, "measured": self.measured})


class Estimator:
    """Knows what a second of video has cost in each stage and task."""

    def __init__(self, ledger: Ledger, bytes_there: int, prices: Mapping[str, Price]) -> None:
        cut = ledger.rows("video_id", "status", "video_seconds", stages=["segment"])
        self._seconds: dict[str, float] = {
            video_id: seconds for video_id, status, seconds in cut if status == "ok" and seconds
        }
        whole = sum(self._seconds.values())
        self._mean = whole / len(self._seconds) if whole else MEAN_SECONDS
        self._bytes_a_second = bytes_there / whole if whole else 0.0
        self._worked: dict[tuple[str, str], float] = {}
        for stage, part, video_id, status in ledger.rows("stage", "part", "video_id", "status"):
            if status == "ok":
                self._worked[stage, part] = self._worked.get((stage, part), 0.0) + self.seconds(video_id)
        self._cost: dict[tuple[str, str], Estimate] = {}  # of all that was worked on
        for spent in Spending(prices, ledger, ["ok"]):
            key = spent.stage, spent.part
            own = Estimate(
                requests=spent.usage.requests,
                tokens=spent.tokens,
                gpu_hours=spent.usage.gpu_seconds / 3600,
                money=spent.money,
            )
            self._cost[key] = self._cost.get(key, Estimate()).plus(own)
        self._piloted = {stage for stage, _ in self._cost}

    def seconds(self, video_id: str) -> float:
        return self._seconds.get(video_id, self._mean)

    def of(self, work: Work, stages: Iterable[Stage]) -> dict[tuple[str, str], Estimate]:
        """By stage and part, of what one work of a plan stands for; what waits for other work counts in full.

        A source that is not fetched yet stands for the work of all stages on one video.
        """
        if work.owner == work.source_id and work.stage.name == "download":
            parts = {stage: stage.parts for stage in stages} if work.stale else {}
        else:
            parts = {work.stage: (*work.stale, *work.waiting)}
        seconds = self.seconds(work.owner)
        return {
            (stage.name, part): self._of_part(stage, part, seconds)
            for stage, its_parts in parts.items()
            for part in its_parts
            if is_served(stage) or (stage.name == "segment" and self._bytes_a_second)
        }

    def _of_part(self, stage: Stage, part: str, seconds: float) -> Estimate:
        if not is_served(stage):
            return Estimate(storage_bytes=self._bytes_a_second * seconds)
        worked = self._worked.get((stage.name, part))
        if not worked or stage.name not in self._piloted:
            a_video, a_second, prompt, answer = _ASSUMED[stage.name]
            requests = a_video + a_second * seconds
            return Estimate(requests=requests, tokens=requests * (prompt + answer), measured=False)
        return self._cost.get((stage.name, part), Estimate()).times(seconds / worked)
