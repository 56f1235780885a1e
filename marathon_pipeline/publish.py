"""What follows a run: the report, and the release where the gates let it through."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.compare import Change, Comparison, compare
from marathon_pipeline.audit.measures import OF_A_JUDGE, PROBLEMS
from marathon_pipeline.audit.report import HTML_KEY, AuditInfo, current_audit, write_audit
from marathon_pipeline.audit.sides import DatasetSide, Side, open_release
from marathon_pipeline.audit.statistics import Check, Statistics
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.config import JobConfig, job_of
from marathon_pipeline.dataset.dataset import Dataset, NoDataset
from marathon_pipeline.dataset.lease import Lease
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates, load_gates
from marathon_pipeline.licences import Licences, load_licences
from marathon_pipeline.pipeline.progress import bar
from marathon_pipeline.pipeline.purge import settle
from marathon_pipeline.pipeline.standing import held
from marathon_pipeline.release.plan import Planned, next_revision, planned_release, revision_before
from marathon_pipeline.release.release_file import Approval, folder_of
from marathon_pipeline.release.rules import ReleaseRules
from marathon_pipeline.release.write import write_release
from marathon_pipeline.shipped import shipped
from marathon_pipeline.sources.manifest import read_manifest
from marathon_pipeline.taxonomy import load_taxonomy


@dataclass(frozen=True)
class JobRules:
    """A job, with what it holds QA and releases against: read once, before anything begins."""

    config: JobConfig
    standards: Standards
    licences: Licences

    def of_release(self, dataset: Dataset) -> ReleaseRules:
        """Those in force: which gates count depends on what the dataset's judge was shown to be worth."""
        standards, config = self.standards, self.config
        gates = in_force(standards.gates, dataset.ledger)
        return ReleaseRules(config.release_settings, standards.taxonomy, gates, self.licences, config.freeze)


@dataclass
class Ended:
    """How a job ended, in lines for a person."""

    summary: list[str] = field(default_factory=list)
    stopped: bool = False
    failures: int = 0
    advice: str = ""  # how to go on, where running the same command again is not the way


class GateBroken(UserError):
    def __init__(self, says: str, broken: Sequence[Check]) -> None:
        first, more = broken[0], f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        super().__init__(
            f"{says}: {first}{more} (`marathon audit` lists them all); mend the QA, change the gates, or say why it is "
            "released all the same (--despite, in a job release.despite)"
        )


def conclude(rules: JobRules, dataset: Dataset, console: Console, lease: Lease) -> Ended:
    """Report and release, where the job wants them and there is something to say."""
    ended, config, standards = Ended([]), rules.config, rules.standards
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
        of_release = rules.of_release(dataset)
        planned = planned_release(dataset, of_release)
        name = next_revision(dataset, config.release.name, of_release, planned)
        try:
            lines = _release_lines(rules, dataset, name, config.release.despite, console, lease, found, planned)
            ended.summary += lines
        except UserError as error:  # a broken gate, say: what the run has done is told all the same
            ended.summary.append(f"release  {error}")
            ended.failures = 1
    if config.audit is not None:
        ended.summary.append(f"report   {_shown(dataset, HTML_KEY)}")
    return ended


def _release_lines(
    rules: JobRules,
    dataset: Dataset,
    name: str,
    despite: str,
    console: Console,
    lease: Lease,
    found: Statistics | None = None,
    planned: Planned | None = None,
) -> list[str]:
    """found: by the audit, where there was one."""
    standards, content = rules.standards, rules.config.stage_settings().model_dump(mode="json")

    with bar(console) as show:

        def approve() -> Approval:
            statistics = found or current_audit(dataset, standards)
            if statistics is None:
                statistics = survey(dataset, standards, progress=partial(show, "audit"))
            broken = [check for check in statistics.checks if check.broken]
            if broken and not despite:
                raise GateBroken(f"{name} is not made, for a gate is broken", broken)
            return Approval(broken=tuple(map(str, broken)), despite=despite if broken else "")

        info = write_release(
            dataset,
            name,
            rules.of_release(dataset),
            planned=planned,
            approve=approve,
            still_held=lease.check,
            content=content,
            progress=lambda part, done, total: show(f"release {part}", done, total),
        )
    known = (found or current_audit(dataset, standards)) if info.unchanged and not despite else None
    checks = known.checks if known else ()
    if broken := [check for check in checks if check.broken and str(check) not in info.approval.broken]:
        raise GateBroken(f"{name} stands, but a gate is broken now", broken)
    size = f"{info.bytes / 1e6:.1f} MB"
    unchanged = ", unchanged" if info.unchanged else ""
    line = f"release  {_shown(dataset, f'releases/{name}')}  {info.qa:,} QA, {info.tasks} tasks, {size}{unchanged}"
    return [line] if info.unchanged else [line, *_changed_lines(dataset, name)]


def _changed_lines(dataset: Dataset, name: str) -> list[str]:
    """What is new in a release, where there is an earlier revision of it."""
    before = revision_before(dataset, name)
    if before is None:
        return []
    try:
        old, new = (side_of(f"{dataset.url}/{folder_of(each)}") for each in (before.name, name))
        return [f"changed  against {before.name}: {compare(old, new)}"]
    except UserError as error:  # an old release that is damaged spoils no new one
        return [f"changed  against {before.name}: not told, {error}"]


def _shown(dataset: Dataset, key: str) -> str:
    """Where something lies, as a person would type it here."""
    if dataset.storage.root is None:
        return f"{dataset.url}/{key}"
    return as_typed(dataset.storage.root / key)


def as_typed(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def release_dataset(url: str, name: str, despite: str, console: Console) -> list[str]:
    """Write a named release, by the settings of the job that the dataset was last run with; says so in lines.

    despite: why it is made although a gate is broken. Raises UserError where one is and no reason is given.
    """
    dataset = Dataset(url)
    config = job_of(dataset)
    with held(dataset) as lease:
        settle(dataset)
        lines = _release_lines(rules_of(config), dataset, name, despite, console, lease)
        late = settle(dataset)  # what was asked for meanwhile of who holds the dataset
        return [*lines, *(f"purge    {line}" for gone in late for line in gone.lines())]


def audit_dataset(
    url: str, sample_per_task: int, gates: Path | None, against: str, console: Console
) -> tuple[AuditInfo, str]:
    """Write a dataset's report; returns what was found, and where the page lies.

    gates: instead of those of its job. against: an earlier dataset or release, of which the report tells what changed.
    """
    dataset, standards = opened(url, gates)
    old = side_of(against) if against else None

    def compared(now: Dataset, before: Side) -> Comparison:
        return compare(before, DatasetSide(now, standards.gates), within_new=True)

    with bar(console) as show:
        with_old = partial(compared, before=old) if old else None
        info = write_audit(dataset, standards, sample_per_task, partial(show, "audit"), with_old)
    return info, _shown(dataset, info.html_key)


def diff(old: str, new: str) -> tuple[Comparison, dict[str, dict[str, list[object]]]]:
    """What changed from a dataset or release to another; with the ids of the pairs by task and kind.

    A pair that changed has two ids, the old one first.
    """
    ids: defaultdict[str, defaultdict[str, list[object]]] = defaultdict(lambda: defaultdict(list))

    def note(change: Change) -> None:
        both = [version.qa_id for version in (change.old, change.new) if version]
        ids[change.shown.task][change.kind].append(both if len(both) == 2 else both[0])

    comparison = compare(side_of(old), side_of(new), each=note)
    return comparison, {task: dict(kinds) for task, kinds in ids.items()}


def side_of(url: str) -> Side:
    """A release, or a dataset under the gates of its own job. Raises UserError where there is none of both."""
    if release := open_release(url):
        return release
    try:
        dataset, standards = opened(url)
    except NoDataset:
        absent = "no dataset and no release there (no dataset.json, no release.json)"
        raise UserError(f"{url}: {absent}; give the folder or URL of one") from None
    return DatasetSide(dataset, standards.gates)


def opened(url: str, gates: Path | None = None) -> tuple[Dataset, Standards]:
    """A dataset, and what its job holds it against. gates: instead of those of its job."""
    dataset = Dataset(url)
    config = job_of(dataset)
    return dataset, _standards_of(config, gates)


def rules_of(config: JobConfig) -> JobRules:
    """Raises UserError where templates, gates, licences or benchmarks cannot be read."""
    return JobRules(config, _standards_of(config), licences_of(config))


def _standards_of(config: JobConfig, gates: Path | None = None) -> Standards:
    """gates: instead of those of the job."""
    benchmarks: dict[str, str] = {}
    lists: Counter[str] = Counter()
    for path in config.audit.benchmarks if config.audit is not None else ():
        sources, problems = read_manifest(path)
        if problems:
            raise UserError(f"audit.benchmarks: {problems[0]}")
        lists[path.stem] += len(sources)
        benchmarks |= {name: path.stem for source in sources for name in (source.source_id, source.url) if name}
    return Standards(load_taxonomy(config.templates), _gates_of(gates or config.gates), benchmarks, lists)


def licences_of(config: JobConfig) -> Licences:
    """The licences of a job, or the shipped ones. Raises UserError where the file cannot be read."""
    return load_licences(config.licences or shipped("jobs/licences.yaml"))


def gates_in_force(dataset: Dataset) -> Gates:
    """The gates of the job that a dataset was last run with, else the shipped ones, as far as they count."""
    path = job_of(dataset).gates if dataset.storage.exists("job.yaml") else None
    return in_force(_gates_of(path), dataset.ledger)


def _gates_of(path: Path | None) -> Gates:
    """The gates of a file, or the shipped ones."""
    path = path or shipped("jobs/gates.yaml")
    gates = load_gates(path)
    if unknown := sorted(set(gates.items.forgive) - PROBLEMS.keys() - OF_A_JUDGE.keys()):
        raise UserError(f"{path}: items forgive: `{unknown[0]}` is no problem of a QA pair; docs/audit.md lists them")
    return gates
