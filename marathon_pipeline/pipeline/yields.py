"""What came of the sources: how many of each collection are there, why the others are not, and which links are dead."""

from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import urlsplit

from pydantic import BaseModel

from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.records import Outcome, Source
from marathon_pipeline.sources.reasons import Rule, rule_of

# What ends a download for good and says nothing about its address: limits of the job, a list, a decoder, a defect.
_LIMITS = ("too_large", "too_long", "picture_size")
_DECODER = ("unknown_codec", "memory", "decoder_timeout", "decoder_crashed", "decoder_error")
_NOT_OF_THE_ADDRESS = frozenset({*_LIMITS, *_DECODER, "out_of_range", "bad_input", "defect"})


class Yield(BaseModel):
    """Of one collection, or of one host where sources name none. In = ok + filtered + failed + waiting."""

    source: str
    ok: int = 0
    waiting: int = 0
    filtered: dict[str, int] = {}  # by rule
    failed: dict[str, int] = {}  # by reason
    rules: dict[str, Rule] = {}  # by reason: when it is tried again

    @property
    def share(self) -> float:
        """Of those that were tried."""
        tried = self.ok + sum(self.failed.values())
        return self.ok / tried if tried else 0.0


class DeadLink(BaseModel):
    """An address that gave no video, for good so far as is known. Dates are UTC; empty: not known."""

    source_id: str
    data_source: str
    url: str
    reason: str
    message: str
    first_seen: str  # dead for this reason
    last_seen: str


def yields(dataset: Dataset) -> list[Yield]:
    """By collection, the largest first."""
    fields = dataset.ledger.rows("video_id", "status", "reason", "transient", stages=["download"])
    ends = {source_id: end for source_id, *end in fields}
    found: dict[str, Yield] = {}
    for source in dataset.sources().values():
        name = source.data_source or urlsplit(source.url).hostname or "files"
        row = found.setdefault(name, Yield(source=name))
        if source.source_id not in ends:
            row.waiting += 1
            continue
        status, reason, transient = ends[source.source_id]
        if status == "ok":
            row.ok += 1
        else:
            counts = row.filtered if status == "filtered" else row.failed
            counts[reason] = counts.get(reason, 0) + 1
            if status == "failed":
                row.rules[reason] = rule_of(reason, transient)
    return sorted(found.values(), key=lambda row: (-row.ok - row.waiting - sum(row.failed.values()), row.source))


def dead_links(dataset: Dataset) -> Iterator[DeadLink]:
    """In the order of the ids."""
    outcomes = {outcome.video_id: outcome for outcome in dataset.ledger.of_stage("download")}
    for source in dataset.sources().values():
        outcome = outcomes.get(source.source_id)
        if outcome is not None and _is_dead(source, outcome):
            yield DeadLink(
                source_id=source.source_id,
                data_source=source.data_source,
                url=source.url,
                reason=outcome.reason,
                message=outcome.message,
                first_seen=_date(outcome.since or outcome.began),
                last_seen=_date(outcome.began),
            )


def _is_dead(source: Source, outcome: Outcome) -> bool:
    final = rule_of(outcome.reason, outcome.transient) in ("never", "request")
    return bool(source.url) and outcome.status == "failed" and final and outcome.reason not in _NOT_OF_THE_ADDRESS


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds") if seconds else ""
