"""A job from its file to its report: what `marathon run` and `marathon plan` do."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from marathon_pipeline.annotators.measured.annotator import Measured
from marathon_pipeline.annotators.protocol import Written
from marathon_pipeline.annotators.served.annotator import Served
from marathon_pipeline.annotators.served.batch import clear_folder, open_folder
from marathon_pipeline.annotators.served.batch_results import BatchResults
from marathon_pipeline.audit.measures import PROBLEMS
from marathon_pipeline.audit.report import HTML_KEY, current_audit, write_audit
from marathon_pipeline.audit.statistics import Check, Statistics
from marathon_pipeline.audit.survey import Standards, survey
from marathon_pipeline.config import MEASURED, JobConfig, parse_job
from marathon_pipeline.dataset.dataset import Dataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates, load_gates
from marathon_pipeline.pipeline.estimate import Estimate, Estimator
from marathon_pipeline.pipeline.ingest import gather, sample
from marathon_pipeline.pipeline.plan import Planner, Selection, whole_plan
from marathon_pipeline.pipeline.progress import RunProgress
from marathon_pipeline.pipeline.purge import settle
from marathon_pipeline.pipeline.run import rebuild_ledger, run
from marathon_pipeline.pipeline.show import tree
from marathon_pipeline.pipeline.spending import Budget
from marathon_pipeline.pipeline.stage_list import build_stages
from marathon_pipeline.pipeline.status import DatasetStatus, dataset_status, status
from marathon_pipeline.records import Format, Outcome, Source
from marathon_pipeline.release.plan import next_revision, stale_tasks
from marathon_pipeline.release.release_file import Approval
from marathon_pipeline.release.settings import ReleaseSettings
from marathon_pipeline.release.write import write_release
from marathon_pipeline.shipped import shipped
from marathon_pipeline.sources.manifest import read_manifest
from marathon_pipeline.stages.stage import Stage
from marathon_pipeline.synthetic.videos import write_videos
from marathon_pipeline.taxonomy import Taxonomy, load_taxonomy

_SHOWN_FAILURES = 20


@dataclass
class Ended:
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


@dataclass(frozen=True)
class Batch:
    """Requests to served models in files instead of at servers."""

    folder: Path | None = None  # where to write those that have no answer yet
    results: tuple[str, ...] = ()  # files of answers, and folders of them, to take in first


class PlanRow(BaseModel):
    """What a run would do in one stage, for one task where the stage works by task; counted in videos."""

    stage: str
    part: str = ""
    stale: int = 0
    waiting: int = 0
    why: dict[str, int] = {}
    estimate: Estimate | None = None  # where served models write


def run_job(
    config: JobConfig,
    inputs: Sequence[str],
    selection: Selection,
    count: int | None,
    seed: int,
    console: Console,
    batch: Batch = Batch(),
) -> Ended:
    """Bring a job's dataset up to date, then its release and its report, unless the selection leaves stages out."""
    taxonomy = load_taxonomy(config.templates)
    results = _checked(config, batch)
    synthetic = _rendered(config, console)
    dataset = Dataset(config.dataset, create=True)
    with dataset.lease() as lease:
        purged = settle(dataset)
        gathered = gather(dataset, [*synthetic, *config.inputs, *inputs])
        for problem in gathered.problems:
            console.print(f"marathon: {problem}", markup=False)
        for source in gathered.purged:
            console.print(f"marathon: {source.url or source.path}: left out, it was purged", markup=False)
        _refuse_unknown(selection, gathered.sources, dataset)
        dataset.storage.empty_scratch()
        if lease.after_death:
            dataset.storage.remove_torn()
        dataset.ledger.compact()
        dataset.storage.write("job.yaml", config.resolved().encode())
        if gathered.sources != dataset.sources():
            dataset.write_sources(gathered.sources.values())
        stages = _stages(config, taxonomy, dataset.storage, batch.folder)
        if not len(dataset.ledger):
            rebuild_ledger(dataset, stages)
        taken = results.take(dataset.storage, _known_videos(dataset)) if results else None
        if taken and taken.problem:
            console.print(f"marathon: --batch-results: left out: {taken.problem}", markup=False)
        if batch.folder:
            clear_folder(batch.folder)
        with RunProgress(console) as progress:
            sources = _chosen(gathered.sources, count, seed)
            # The files of a folder are numbered by one process.
            settings = config.run.model_copy(update={"callers": 1}) if batch.folder else config.run
            result = run(dataset, stages, sources, settings, selection, lease, progress, config.budget, config.prices)
        purged += [*result.purged, *settle(dataset)]
        lines = [f"results  {taken}"] if taken else []
        lines += [*_stage_lines(dataset), *_failure_lines(result.failed), *(f"purge    {gone}" for gone in purged)]
        if result.budget:
            lines.append(f"budget   {result.budget}; raise it to go on")
        if result.full:
            limit = f"run.max_local_bytes, {config.run.max_local_bytes:,} bytes"
            lines.append(f"full     the originals that are kept have reached {limit}: raise it, or keep fewer")
        lines += _batch_lines(result.written)
        ended = Ended(lines, advice=_batch_advice(result.written, batch))
        ended.stopped, ended.failures = result.stopped, len(result.failed) + len(gathered.problems)
        if not result.stopped and not selection.until:
            concluded = _conclude(config, dataset, taxonomy, console)
            ended.summary += concluded.summary
            ended.failures += concluded.failures
    return ended


def plan_job(
    config: JobConfig, inputs: Sequence[str], selection: Selection, count: int | None, seed: int
) -> list[PlanRow]:
    """What `run_job` would do. Writes nothing."""
    taxonomy = load_taxonomy(config.templates)
    rows: dict[tuple[str, str], PlanRow] = {}

    def row_of(stage: str, part: str) -> PlanRow:
        return rows.setdefault((stage, part), PlanRow(stage=stage, part=part))

    with _dataset_or_empty(config.dataset) as dataset:
        inputs = [*config.inputs, *inputs]
        if config.synthetic is not None:
            manifest = Path(config.synthetic.folder) / "manifest.jsonl"
            if manifest.exists():
                inputs = [str(manifest), *inputs]
            else:
                row_of("render", "").stale = config.synthetic.videos
        gathered = gather(dataset, inputs)
        _refuse_unknown(selection, gathered.sources, dataset)
        sources = _chosen(gathered.sources, count, seed)
        stages = _stages(config, taxonomy, dataset.storage)
        planner = Planner(stages, dataset.ledger, selection)
        estimator = _estimator(config, dataset)
        for work in whole_plan(planner, list(sources.values()), selection):
            for part in (*work.stale, *work.waiting):
                row = row_of(work.stage.name, part)
                row.stale += part in work.stale
                row.waiting += part in work.waiting
                if part in work.why:
                    row.why[work.why[part]] = row.why.get(work.why[part], 0) + 1
            for (stage, part), estimate in estimator.of(work, planner.stages).items() if estimator else ():
                row = row_of(stage, part)
                row.estimate = estimate if row.estimate is None else row.estimate.plus(estimate)
        if config.release is not None and not selection.until:
            changing = sorted({part for stage, part in rows if stage in ("qa", "verify")})
            gates = _gates(config.gates)
            settled = stale_tasks(dataset, config.release.name, config.release.settings(), taxonomy, gates)
            for task in changing:
                row_of("release", task).waiting = 1
            for task in sorted(settled - set(changing)):
                row_of("release", task).stale = 1
    return list(rows.values())


def _estimator(config: JobConfig, dataset: Dataset) -> Estimator | None:
    """None where no model is served: then there is nothing to estimate."""
    if not config.asks_models:
        return None
    return Estimator(dataset.ledger, dataset.storage.total_bytes(), config.prices)


def status_of(url: str) -> DatasetStatus:
    """Where a dataset stands; prices and budget are those of the job that it was last run with."""
    dataset = Dataset(url)
    try:
        config = _own_job(dataset)
    except UserError:  # it stands where it stands, also without prices
        return dataset_status(dataset, Budget(), {})
    return dataset_status(dataset, config.budget, config.prices)


def prompts_of(url: str, task_id: str, video_id: str, templates: Path | None) -> Iterator[tuple[str, str]]:
    """The very messages that are sent for a task's questions about a video, each with a title."""
    dataset = Dataset(url)
    config = _own_job(dataset)
    taxonomy = load_taxonomy(templates or config.templates)
    task, model = taxonomy.task(task_id), config.models.get(config.annotators.qa)
    if model is None:
        raise UserError(f"{url}: annotators.qa is {MEASURED}, which is sent no prompts; name a served model in the job")
    found = tree(dataset, video_id)
    if not found.captions or found.summary is None:
        raise UserError(f"{video_id}: has no captions yet; run the job until summarize first")
    if task.reads == ("global",):
        raise UserError(f"{task_id}: no model is asked; its answer is the summary that `marathon show` prints")
    asked = Served(model, taxonomy)
    for format in get_args(Format):
        for role, text in asked.qa_messages(task, format, found.captions, found.events, found.summary):
            yield f"{task_id}, {format}, {role}", text


def release_dataset(url: str, name: str, despite: str, console: Console) -> str:
    """Write a named release, by the settings of the job that the dataset was last run with.

    despite: why it is made although a gate is broken. Raises UserError where one is and no reason is given.
    """
    dataset = Dataset(url)
    config = _own_job(dataset)
    with dataset.lease():
        settle(dataset)
        standards = _standards(config, load_taxonomy(config.templates))
        return _release_line(config, dataset, name, standards, despite, console)


def audit_dataset(url: str, sample_per_task: int, gates: Path | None, console: Console) -> tuple[Statistics, str]:
    """Write a dataset's report; returns what was found, and where the page lies. gates: instead of those of its job."""
    dataset = Dataset(url)
    config = _own_job(dataset)
    standards = _standards(config, load_taxonomy(config.templates), gates)
    with _bar(console) as show:
        info = write_audit(dataset, standards, sample_per_task, partial(show, "audit"))
    return info.statistics, _shown(dataset, info.html_key)


def _standards(config: JobConfig, taxonomy: Taxonomy, gates: Path | None = None) -> Standards:
    """gates: instead of those of the job. Raises UserError where a file of them, or of a benchmark, cannot be read."""
    benchmarks: dict[str, str] = {}
    for path in config.audit.benchmarks if config.audit is not None else ():
        sources, problems = read_manifest(path)
        if problems:
            raise UserError(f"audit.benchmarks: {problems[0]}")
        benchmarks |= {name: path.stem for source in sources for name in (source.source_id, source.url) if name}
    return Standards(taxonomy, _gates(gates or config.gates), benchmarks)


def _gates(path: Path | None) -> Gates:
    path = path or shipped("jobs/gates.yaml")
    gates = load_gates(path)
    if unknown := sorted(set(gates.items.forgive) - PROBLEMS.keys()):
        raise UserError(f"{path}: items forgive: `{unknown[0]}` is no problem of a QA pair; docs/audit.md lists them")
    return gates


def _own_job(dataset: Dataset) -> JobConfig:
    try:
        return parse_job(dataset.storage.read("job.yaml").decode(), f"{dataset.url}/job.yaml", [])
    except FileNotFoundError:
        raise UserError(f"{dataset.url}: holds no job.yaml; run its job first") from None


def render_videos(folder: Path, videos: int, minutes: float, seed: int, console: Console) -> list[Path]:
    """Render synthetic videos, with a bar."""
    with _bar(console) as show:
        return write_videos(folder, videos, minutes, seed, progress=lambda done, total: show("render", done, total))


@contextmanager
def _bar(console: Console) -> Iterator[Callable[[str, float, float], None]]:
    """A bar for a step of a job: called with what is done, how much of it, of how much."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def _rendered(config: JobConfig, console: Console) -> list[str]:
    """The manifest of the job's synthetic videos, which are there afterwards."""
    wanted = config.synthetic
    if wanted is None:
        return []
    render_videos(Path(wanted.folder), wanted.videos, wanted.minutes, wanted.seed, console)
    return [str(Path(wanted.folder) / "manifest.jsonl")]


def _checked(config: JobConfig, batch: Batch) -> BatchResults | None:
    """The result files given. Raises UserError where there is nothing to do by batch, or no way to do it."""
    if not (batch.folder or batch.results):
        return None
    if not config.asks_models:
        raise UserError("--batch: no stage of this job asks a served model; name one under `annotators`")
    if batch.folder:
        open_folder(batch.folder)
    return BatchResults(batch.results, batch.folder) if batch.results else None


def _stages(config: JobConfig, taxonomy: Taxonomy, storage: Storage, batch: Path | None = None) -> tuple[Stage, ...]:
    measured, folder = Measured(), batch and batch.resolve()
    served = {name: Served(settings, taxonomy, folder) for name, settings in config.models.items()}
    annotators = {stage: served.get(name, measured) for stage, name in config.annotators.model_dump().items()}
    return build_stages(config.stage_settings(), annotators, taxonomy, config.tasks, storage)


def _refuse_unknown(selection: Selection, sources: Mapping[str, Source], dataset: Dataset) -> None:
    if unknown := sorted(selection.videos - _known_videos(dataset) - sources.keys()):
        raise UserError(f"--video {unknown[0]}: the job has no such video or source; give an id of its sources.parquet")


def _known_videos(dataset: Dataset) -> set[str]:
    return {video_id for outcome in dataset.ledger for video_id in outcome.videos}


def _chosen(sources: dict[str, Source], count: int | None, seed: int) -> dict[str, Source]:
    if count is None:
        return sources
    return {source.source_id: source for source in sample(sources.values(), count, seed)}


@contextmanager
def _dataset_or_empty(url: str) -> Iterator[Dataset]:
    """The dataset, or an empty one for as long as nothing has been built."""
    try:
        dataset = Dataset(url)
    except UserError:
        if (Storage(url).root or Path()).joinpath("dataset.json").exists():
            raise
        with tempfile.TemporaryDirectory() as folder:
            yield Dataset(folder, create=True)
        return
    yield dataset


def _conclude(config: JobConfig, dataset: Dataset, taxonomy: Taxonomy, console: Console) -> Ended:
    """Report and release, where the job wants them and there is something to say."""
    ended = Ended([])
    if not any(dataset.finished()):
        ended.summary.append("nothing to release: no video went through every stage")
        return ended
    standards = _standards(config, taxonomy)
    if config.audit is not None and not current_audit(dataset, standards, config.audit.sample_per_task):
        with _bar(console) as show:
            write_audit(dataset, standards, config.audit.sample_per_task, partial(show, "audit"))
    if config.release is not None:
        name = next_revision(dataset, config.release.name, config.release.settings(), taxonomy, standards.gates)
        try:
            line = _release_line(config, dataset, name, standards, config.release.despite, console)
        except GateBroken as error:
            line = f"release  {error}"
            ended.failures = 1
        ended.summary.append(line)
    if config.audit is not None:
        ended.summary.append(f"report   {_shown(dataset, HTML_KEY)}")
    return ended


def _release_line(
    config: JobConfig, dataset: Dataset, name: str, standards: Standards, despite: str, console: Console
) -> str:
    settings = config.release.settings() if config.release is not None else ReleaseSettings()
    content = config.stage_settings().model_dump(mode="json")

    with _bar(console) as show:

        def approve() -> Approval:
            statistics = current_audit(dataset, standards)
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
            standards.gates,
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
    return _as_typed(dataset.storage.root / key)


def _as_typed(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _batch_lines(written: Sequence[Written]) -> Iterator[str]:
    for model, requests, files in written:
        last = f" to {files[-1].rpartition('/')[2]}" if len(files) > 1 else ""
        yield f"batch    {model}: {requests:,} requests in {_as_typed(Path(files[0]))}{last}"


def _batch_advice(written: Sequence[Written], batch: Batch) -> str:
    if not written:
        return ""
    count = sum(each.requests for each in written)
    again = f"run the same command with --batch-results {batch.folder} (docs/batch.md)"
    return f"{count:,} requests wait for answers: have their files answered, then {again}"


def _stage_lines(dataset: Dataset) -> Iterator[str]:
    for stage in status(dataset):
        counts = [f"{stage.ok:,} ok"]
        for word, reasons in (("filtered", stage.filtered), ("failed", stage.failed)):
            if reasons:
                why = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
                counts.append(f"{sum(reasons.values()):,} {word} ({why})")
        speed = f"  {stage.speed:.1f} x real time" if stage.speed else ""
        yield f"{stage.stage:15}{'  '.join(counts)}{speed}"


def _failure_lines(failed: list[Outcome]) -> Iterator[str]:
    for outcome in failed[:_SHOWN_FAILURES]:
        part = f"/{outcome.part}" if outcome.part else ""
        again = " (the next run tries again)" if outcome.transient else ""
        yield f"failed   {outcome.video_id}  {outcome.stage}{part}: {outcome.reason}: {outcome.message}{again}"
    if len(failed) > _SHOWN_FAILURES:
        yield f"failed   and {len(failed) - _SHOWN_FAILURES} more (`marathon status` counts them by reason)"
