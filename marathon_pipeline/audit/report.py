"""The audit's files: `report.json` for programs, a page that a person reads, a summary for a pull request."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from marathon_pipeline.audit.calibration import calibrated
from marathon_pipeline.audit.cards import cards
from marathon_pipeline.audit.compare import Comparison
from marathon_pipeline.audit.page import render, render_markdown
from marathon_pipeline.audit.sample import Sampler
from marathon_pipeline.audit.statistics import Statistics
from marathon_pipeline.audit.survey import Progress, Standards, survey
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import Failed

JSON_KEY = "audit/report.json"
HTML_KEY = "audit/report.html"
MARKDOWN_KEY = "audit/report.md"
_TELLING = ("stage", "video_id", "part", "status", "reason", "content", "judge")  # of an outcome
_VERSION = 8  # goes up whenever the same dataset gives another report


@dataclass(frozen=True)
class AuditInfo:
    statistics: Statistics
    json_key: str
    html_key: str
    comparison: Comparison | None


def write_audit(
    dataset: Dataset,
    standards: Standards,
    sample_per_task: int = 2,
    progress: Progress | None = None,
    compared: Callable[[Dataset], Comparison] | None = None,
) -> AuditInfo:
    """Survey a dataset and write all files, the JSON last: where it stands, the others beside it are of the same data.

    sample_per_task: QA pairs shown with pictures, of each task and of each reason to reject, and doubtful ones.
    compared: with what it was before. Raises Failed where storage does.
    """
    while True:
        purged = dataset.removals().entries
        try:
            info, files = _made(dataset, standards, sample_per_task, progress, compared)
        except Failed:
            if dataset.removals().entries == purged:
                raise
        else:
            if dataset.removals().entries == purged:
                break
        dataset = Dataset(dataset.url)  # anew, without what was asked to be taken down meanwhile
    for key, data in files.items():
        dataset.storage.write(key, data)
    return info


def _made(
    dataset: Dataset,
    standards: Standards,
    sample_per_task: int,
    progress: Progress | None,
    compared: Callable[[Dataset], Comparison] | None,
) -> tuple[AuditInfo, dict[str, bytes]]:
    """What is to be written, by key and in order."""
    comparison = compared(dataset) if compared else None
    fingerprint, taxonomy, gates = _fingerprint(dataset, standards), standards.taxonomy, standards.gates
    sampler = Sampler(sample_per_task, gates.items.bounds)
    statistics = survey(dataset, standards, sampler, progress)
    page = render(statistics, cards(dataset, taxonomy, gates, sampler), taxonomy, comparison)
    report = {
        "version": _VERSION,
        "fingerprint": fingerprint,
        "sample_per_task": sample_per_task,
        "gates": gates.model_dump(mode="json", exclude_none=True),
        "statistics": statistics.model_dump(mode="json"),
    }
    if comparison:
        report["comparison"] = comparison.model_dump(mode="json")
    files = {
        HTML_KEY: page,
        MARKDOWN_KEY: render_markdown(statistics, taxonomy, comparison),
        JSON_KEY: json.dumps(report, indent=1, ensure_ascii=False),
    }
    info = AuditInfo(statistics, JSON_KEY, HTML_KEY, comparison)
    return info, {key: text.encode() for key, text in files.items()}


def current_audit(dataset: Dataset, standards: Standards, sample_per_task: int | None = None) -> Statistics | None:
    """What the report that stands there found, where it is of this content (and of a sample of this size, if given)."""
    try:
        report = json.loads(dataset.storage.read(JSON_KEY))
        version, fingerprint, sample = (report[key] for key in ("version", "fingerprint", "sample_per_task"))
        wanted = (_VERSION, sample if sample_per_task is None else sample_per_task)
        if (version, sample) == wanted and fingerprint == _fingerprint(dataset, standards):
            return Statistics.model_validate(report["statistics"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    return None


def _fingerprint(dataset: Dataset, standards: Standards) -> str:
    """A hash of what a report is made from: what the ledger says was written, the collections, the standards."""
    hasher = hashlib.sha256(standards.gates.model_dump_json().encode() + b"\n")
    benchmarks = [sorted(standards.benchmarks.items()), sorted(standards.lists.items())]
    hasher.update(json.dumps(benchmarks).encode() + b"\n")
    hasher.update(dataset.reviews().fingerprint.encode() + b"\n")
    hasher.update(sum(map(_digest, dataset.ledger.rows(*_TELLING))).to_bytes(40))  # in whatever order they stand
    hasher.update(json.dumps([each.model_dump() for each in calibrated(dataset.ledger)]).encode() + b"\n")
    for source in dataset.sources().values():
        hasher.update(json.dumps([source.source_id, source.data_source]).encode() + b"\n")
    for task in standards.taxonomy.tasks.values():
        hasher.update(task.model_dump_json(include={"task", "reads", "per_video"}).encode() + b"\n")
    return hasher.hexdigest()


def _digest(telling: Iterable[str]) -> int:
    return int.from_bytes(hashlib.sha256("\n".join(telling).encode()).digest())
