"""What follows a run: the report, and the release where the gates let it through."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.measures import PROBLEMS
from marathon_pipeline.audit.report import HTML_KEY, current_audit, write_audit
from marathon_pipeline.audit.statistics import Check, Statistics
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.config import JobConfig, job_of
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates, load_gates
from marathon_pipeline.pipeline.progress import bar
from marathon_pipeline.pipeline.purge import settle
from marathon_pipeline.release.plan import next_revision
from marathon_pipeline.release.release_file import Approval
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.write import write_release
from marathon_pipeline.shipped import shipped
from marathon_pipeline.sources.manifest import read_manifest
from marathon_pipeline.taxonomy import Taxonomy, load_taxonomy


@dataclass
class Ended:
    """How a job ended, in lines for a person."""

    summary: list[str] = field(default_factory=list)
    stopped: bool = False
    failures: int = 0
    advice: str = ""  # how to go on, where running the same command again is not the way


class GateBroken(UserError):
    def __init__(self, release: str, broken: Sequence[Check]) -> None:
        first, more = broken[0], f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        super().__init__(
            f"{release} is not made, for a gate is broken: {first}{more} (`marathon audit` lists them all); mend the "
            "QA, change the gates, or say why it is released all the same (--despite, in a job release.despite)"
        )


def conclude(config: JobConfig, dataset: Dataset, standards: Standards, console: Console) -> Ended:
    """Report and release, where the job wants them and there is something to say."""
    ended = Ended([])
    if not any(dataset.finished()):
        ended.summary.append("nothing to release: no video went through every stage")
        return ended
    found: Statistics | None = None
    if config.audit is not None:
        found = current_audit(dataset, standards, config.audit.sample_per_task)
        if found is None:
            with bar(console) as show:
                found = write_audit(dataset, standards, config.audit.sample_per_task, partial(show, "audit")).statistics
    if config.release is not None:
        settings = config.release.settings()
        gates = in_force(standards.gates, dataset.ledger)
        name = next_revision(dataset, config.release.name, settings, standards.taxonomy, gates)
        try:
            line = _release_line(config, dataset, name, standards, config.release.despite, found, console)
        except GateBroken as error:
            line = f"release  {error}"
            ended.failures = 1
        ended.summary.append(line)
    if config.audit is not None:
        ended.summary.append(f"report   {_shown(dataset, HTML_KEY)}")
    return ended


def _release_line(
    config: JobConfig,
    dataset: Dataset,
    name: str,
    standards: Standards,
    despite: str,
    found: Statistics | None,
    console: Console,
) -> str:
    """found: by the audit, where there was one."""
    settings = config.release.settings() if config.release is not None else ReleaseSettings()
    content = config.stage_settings().model_dump(mode="json")

    with bar(console) as show:

        def approve() -> Approval:
            statistics = found or current_audit(dataset, standards)
            if statistics is None:
                statistics = survey(dataset, standards, progress=partial(show, "audit"))
            broken = [check for check in statistics.checks if not check.ok]
            if broken and not despite:
                raise GateBroken(name, broken)
            return Approval(broken=tuple(map(str, broken)), despite=despite if broken else "")

        info = write_release(
            dataset,
            name,
            settings,
            standards.taxonomy,
            in_force(standards.gates, dataset.ledger),
            approve=approve,
            content=content,
            progress=lambda part, done, total: show(f"release {part}", done, total),
        )
    size = f"{info.bytes / 1e6:.1f} MB"
    unchanged = ", unchanged" if info.unchanged else ""
    return f"release  {_shown(dataset, f'releases/{name}')}  {info.qa:,} QA, {info.tasks} tasks, {size}{unchanged}"


def _shown(dataset: Dataset, key: str) -> str:
    """Where something lies, as a person would type it here."""
    if dataset.storage.root is None:
        return f"{dataset.url}/{key}"
    return as_typed(dataset.storage.root / key)


def as_typed(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def release_dataset(url: str, name: str, despite: str, console: Console) -> str:
    """Write a named release, by the settings of the job that the dataset was last run with.

    despite: why it is made although a gate is broken. Raises UserError where one is and no reason is given.
    """
    dataset = Dataset(url)
    config = job_of(dataset)
    with dataset.lease():
        settle(dataset)
        standards = standards_of(config, load_taxonomy(config.templates))
        return _release_line(config, dataset, name, standards, despite, None, console)


def audit_dataset(url: str, sample_per_task: int, gates: Path | None, console: Console) -> tuple[Statistics, str]:
    """Write a dataset's report; returns what was found, and where the page lies. gates: instead of those of its job."""
    dataset = Dataset(url)
    config = job_of(dataset)
    standards = standards_of(config, load_taxonomy(config.templates), gates)
    with bar(console) as show:
        info = write_audit(dataset, standards, sample_per_task, partial(show, "audit"))
    return info.statistics, _shown(dataset, info.html_key)


def standards_of(config: JobConfig, taxonomy: Taxonomy, gates: Path | None = None) -> Standards:
    """gates: instead of those of the job. Raises UserError where a file of them, or of a benchmark, cannot be read."""
    benchmarks: dict[str, str] = {}
    for path in config.audit.benchmarks if config.audit is not None else ():
        sources, problems = read_manifest(path)
        if problems:
            raise UserError(f"audit.benchmarks: {problems[0]}")
        benchmarks |= {name: path.stem for source in sources for name in (source.source_id, source.url) if name}
    return Standards(taxonomy, _gates_of(gates or config.gates), benchmarks)


def _gates_of(path: Path | None) -> Gates:
    """The gates of a file, or the shipped ones."""
    path = path or shipped("jobs/gates.yaml")
    gates = load_gates(path)
    if unknown := sorted(set(gates.items.forgive) - PROBLEMS.keys()):
        raise UserError(f"{path}: items forgive: `{unknown[0]}` is no problem of a QA pair; docs/audit.md lists them")
    return gates
