"""What served models have cost a dataset, and how much of that a job allows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from marathon_pipeline.annotators.served.settings import Price
from marathon_pipeline.dataset.columns import exploded
from marathon_pipeline.dataset.ledger import Ledger
from marathon_pipeline.records import Outcome, Status, Usage

_SUMS = tuple(name for name in Usage.model_fields if name != "model")


class Budget(BaseModel):
    """Of the dataset from its first run on. What is reached lets the work in flight end, and stops the run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int | None = Field(None, gt=0)  # of prompts and answers
    requests: int | None = Field(None, gt=0)
    gpu_hours: float | None = Field(None, gt=0)
    money: float | None = Field(None, gt=0)  # at the models' prices
    storage_bytes: int | None = Field(None, gt=0)  # of all that lies in the dataset


class Spent(BaseModel):
    """By one model, in one stage, for one task where the stage works by task."""

    stage: str
    part: str
    usage: Usage
    money: float

    @property
    def tokens(self) -> int:
        return self.usage.prompt_tokens + self.usage.completion_tokens


class Spending:
    """The sum over a ledger's outcomes. An outcome holds all that its work has cost since its first request.

    statuses: of the outcomes that count, all unless given.
    """

    def __init__(self, prices: Mapping[str, Price], ledger: Ledger, statuses: Sequence[Status] = ()) -> None:
        self._prices = prices
        self._sums = _sums_of(ledger, statuses or get_args(Status))

    def replace(self, before: Outcome | None, now: Outcome) -> None:
        """Count an outcome in the place of the one before it."""
        for outcome, sign in ((before, -1), (now, 1)):
            for usage in outcome.usage if outcome else ():
                sums = self._sums.setdefault((now.stage, now.part, usage.model), dict.fromkeys(_SUMS, 0.0))
                for name in _SUMS:
                    sums[name] += sign * getattr(usage, name)

    def __iter__(self) -> Iterator[Spent]:
        for (stage, part, model), sums in sorted(self._sums.items()):
            usage = Usage.model_validate({"model": model, **{n: _whole(n, value) for n, value in sums.items()}})
            yield Spent(stage=stage, part=part, usage=usage, money=money(usage, self._prices.get(model, Price())))

    def totals(self) -> dict[str, float]:
        """In the units of a `Budget`."""
        rows = list(self)
        return {
            "tokens": sum(row.tokens for row in rows),
            "requests": sum(row.usage.requests for row in rows),
            "gpu_hours": sum(row.usage.gpu_seconds for row in rows) / 3600,
            "money": sum(row.money for row in rows),
        }


def _sums_of(ledger: Ledger, statuses: Sequence[Status]) -> dict[tuple[str, str, str], dict[str, float]]:
    """By stage, part and model."""
    table = ledger.table("stage", "part", "status", "usage")
    table = table.filter(pc.is_in(table["status"].cast(pa.string()), pa.array(statuses)))
    each = exploded(table.select(["stage", "part", "usage"]), "usage")
    groups = each.group_by(["stage", "part", "model"], use_threads=False)
    sums = groups.aggregate([(name, "sum") for name in _SUMS])
    return {
        (row["stage"], row["part"], row["model"]): {name: row[f"{name}_sum"] for name in _SUMS}
        for row in sums.to_pylist()
    }


def reached(budget: Budget, totals: Mapping[str, float]) -> str:
    """Which limit of a budget is reached, in words; none: an empty text."""
    for name, limit in budget:
        if limit is not None and totals.get(name, 0) >= limit:
            return f"budget.{name} is reached: {totals[name]:,.6g} of {limit:,.6g}"
    return ""


def money(usage: Usage, price: Price) -> float:
    cached = price.prompt if price.cached is None else price.cached
    prompt = (usage.prompt_tokens - usage.cached_tokens) * price.prompt + usage.cached_tokens * cached
    return (prompt + usage.completion_tokens * price.completion) / 1e6


def _whole(name: str, value: float) -> float:
    return value if name.endswith("seconds") else round(value)
