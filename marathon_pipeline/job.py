"""A job from its file to its report: what `marathon run` and `marathon plan` do."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from rich.console import Console

from marathon_pipeline.annotators.measured.annotator import Measured
from marathon_pipeline.annotators.protocol import Described, Written
from marathon_pipeline.annotators.served.annotator import Served
from marathon_pipeline.annotators.served.batch import clear_folder, open_folder
from marathon_pipeline.annotators.served.batch_results import BatchResults
from marathon_pipeline.audit.calibration import in_force
from marathon_pipeline.audit.survey import Standards
from marathon_pipeline.config import MEASURED, JobConfig, job_of
from marathon_pipeline.dataset.dataset import Dataset, NoDataset
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import UserError
from marathon_pipeline.gates import Gates
from marathon_pipeline.pipeline.estimate import Estimate, Estimator
from marathon_pipeline.pipeline.ingest import gather, sample
from marathon_pipeline.pipeline.pilot import FIRST_STAGE, Base, refuse_other_base
from marathon_pipeline.pipeline.plan import Planner, Selection, whole_plan
from marathon_pipeline.pipeline.progress import RunProgress, bar
from marathon_pipeline.pipeline.purge import settle
from marathon_pipeline.pipeline.recording import Recording
from marathon_pipeline.pipeline.rejected import find_rejected
from marathon_pipeline.pipeline.run import rebuild_ledger, run
from marathon_pipeline.pipeline.show import tree
from marathon_pipeline.pipeline.spending import Budget
from marathon_pipeline.pipeline.stage_list import build_stages
from marathon_pipeline.pipeline.status import DatasetStatus, dataset_status, status
from marathon_pipeline.pipeline.takedown import inputs_left
from marathon_pipeline.pipeline.watcher import Watchers
from marathon_pipeline.publish import Ended, as_typed, conclude, rules_of
from marathon_pipeline.records import Format, Outcome, Source
from marathon_pipeline.release.plan import split_of, stale_tasks
from marathon_pipeline.sources.cookies import cookies_of
from marathon_pipeline.sources.governor import Paused
from marathon_pipeline.stages.stage import Stage
from marathon_pipeline.synthetic.videos import write_videos
from marathon_pipeline.taxonomy import Taxonomy, load_taxonomy

_SHOWN_FAILURES = 20


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
    frozen: int = 0  # would be stale or waiting, were their split not frozen
    used_up: int = 0  # with --rejected: hold rejected pairs after as many tries as the job allows
    estimate: Estimate | None = None  # where served models write


class Plan(BaseModel):
    """`notes`: what it leaves alone, in lines for a person."""

    rows: list[PlanRow]
    notes: list[str] = []


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
    rules = rules_of(config)
    results = _checked(config, batch)
    base = _base(config, inputs, selection)
    if config.download.cookies is not None:
        cookies_of(config.download.cookies)
    synthetic = _rendered(config, console)
    dataset = Dataset(config.dataset, create=True)
    refuse_other_base(dataset, base.url if base else "")
    with dataset.lease() as lease, Recording(dataset, lease, config.run) as record:
        purged = settle(dataset)
        if base:
            base.copy(dataset, base.choose(dataset, count, seed))
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
        left = config.model_copy(update={"inputs": inputs_left(config.inputs, gathered.purged)})
        dataset.storage.write("job.yaml", left.resolved().encode())
        if gathered.sources != dataset.sources():
            dataset.write_sources(gathered.sources.values())
        stages = stages_of(config, rules.standards.taxonomy, dataset.storage, batch.folder)
        if not len(dataset.ledger):
            rebuild_ledger(dataset, stages)
        taken = results.take(dataset.storage, _known_videos(dataset)) if results else None
        if taken and taken.problem:
            console.print(f"marathon: --batch-results: left out: {taken.problem}", markup=False)
        if batch.folder:
            clear_folder(batch.folder)
        sources = _chosen(gathered.sources, base.choose(dataset, count, seed) if base else None, count, seed)
        scope = _scope(config, dataset, stages, sources, selection, rules.standards)
        record.does("stages", sources=len(scope.sources), **scope.selection.asked())
        with RunProgress(console, record.standing) as progress:
            # What a server bears at once is shared out among them; a folder's files are numbered by one process.
            most = [1] if batch.folder else [model.max_in_flight for model in config.models.values()]
            settings = config.run.model_copy(update={"callers": min([config.run.callers, *most])})
            result = run(
                dataset,
                stages,
                scope.sources,
                settings,
                scope.selection,
                lease,
                Watchers(record, progress),
                config.budget,
                config.prices,
                config.download.limits,
            )
        dataset.ledger.compact()
        record.stopped = result.stopped
        record.does("release")
        purged += settle(dataset)
        lines = [f"results  {taken}"] if taken else []
        lines += [*_stage_lines(dataset), *_failure_lines(result.failed)]
        lines += [f"purge    {line}" for gone in purged for line in gone.lines()]
        if result.budget:
            lines.append(f"budget   {result.budget}; raise it to go on")
        if result.full:
            limit = f"run.max_local_bytes, {config.run.max_local_bytes:,} bytes"
            lines.append(f"full     the originals that are kept have reached {limit}: raise it, or keep fewer")
        lines += _paused_lines(result.paused)
        lines += _batch_lines(result.written)
        ended = Ended(lines, advice=_batch_advice(result.written, batch))
        ended.stopped, ended.failures = result.stopped, len(result.failed) + len(gathered.problems)
        ended.failures += sum(len(gone.left) for gone in purged)
        if not result.stopped and not selection.until:
            concluded = conclude(rules, dataset, console, lease)
            ended.summary += concluded.summary
            ended.failures += concluded.failures
            late = settle(dataset)  # what was asked for meanwhile of who holds the dataset
            ended.summary += [f"purge    {line}" for gone in late for line in gone.lines()]
            ended.failures += sum(len(gone.left) for gone in late)
    return ended


def plan_job(config: JobConfig, inputs: Sequence[str], selection: Selection, count: int | None, seed: int) -> Plan:
    """What `run_job` would do. Writes nothing."""
    rules = rules_of(config)
    rows: dict[tuple[str, str], PlanRow] = {}

    def row_of(stage: str, part: str) -> PlanRow:
        return rows.setdefault((stage, part), PlanRow(stage=stage, part=part))

    base = _base(config, inputs, selection)
    with _dataset_or_empty(config.dataset) as dataset:
        refuse_other_base(dataset, base.url if base else "")
        inputs = [*config.inputs, *inputs]
        if config.synthetic is not None:
            manifest = Path(config.synthetic.folder) / "manifest.jsonl"
            if manifest.exists():
                inputs = [str(manifest), *inputs]
            else:
                row_of("render", "").stale = config.synthetic.videos
        gathered = gather(dataset, inputs)
        piloted = base.choose(dataset, count, seed) if base else {}
        if base:
            base.enter(dataset, piloted)
        _refuse_unknown(selection, gathered.sources | piloted, dataset)
        sources = _chosen(gathered.sources | piloted, piloted if base else None, count, seed)
        stages = stages_of(config, rules.standards.taxonomy, dataset.storage)
        scope = _scope(config, dataset, stages, sources, selection, rules.standards)
        planner = Planner(stages, dataset.ledger, scope.selection)
        estimator = _estimator(config, dataset)
        for task, videos in scope.used_up.items():
            row_of("qa", task).used_up = videos
        for work in whole_plan(planner, list(scope.sources.values()), scope.selection):
            for part in (*work.stale, *work.waiting, *work.kept):
                row = row_of(work.stage.name, part)
                row.stale += part in work.stale
                row.waiting += part in work.waiting
                row.frozen += part in work.kept
                if part in work.why:
                    row.why[work.why[part]] = row.why.get(work.why[part], 0) + 1
            for (stage, part), estimate in estimator.of(work, planner.stages).items() if estimator else ():
                row = row_of(stage, part)
                row.estimate = estimate if row.estimate is None else row.estimate.plus(estimate)
        if config.release is not None and not selection.until:
            works = (row for row in rows.values() if row.stage in ("qa", "verify") and (row.stale or row.waiting))
            changing = sorted({row.part for row in works})
            settled = stale_tasks(dataset, config.release.name, rules.of_release(dataset))
            for task in changing:
                row_of("release", task).waiting = 1
            for task in sorted(settled - set(changing)):
                row_of("release", task).stale = 1
        found = list(rows.values())
        return Plan(rows=found, notes=list(_left_alone(config, scope, planner, found)))


@dataclass(frozen=True)
class _Scope:
    """What a run is about. `used_up`: by task, see `PlanRow`."""

    sources: dict[str, Source]
    selection: Selection
    used_up: Counter[str]


def _scope(
    config: JobConfig,
    dataset: Dataset,
    stages: Sequence[Stage],
    sources: dict[str, Source],
    selection: Selection,
    standards: Standards,
) -> _Scope:
    """The sources of the selection, and the selection with what follows from the dataset and the job."""
    splits = {source_id: split_of(source, config.release_settings) for source_id, source in sources.items()}
    if selection.split:
        sources = {source_id: source for source_id, source in sources.items() if splits[source_id] == selection.split}
        if not sources:
            raise UserError(f"--split {selection.split}: no source of the job is in it (docs/releases.md says why)")
    frozen = frozenset(source_id for source_id in sources if splits[source_id] in config.freeze)
    selection = replace(selection, frozen=frozen, since=FIRST_STAGE if config.base else "")
    used_up: Counter[str] = Counter()
    if selection.rejected:
        tasks = [task for task in config.tasks if not selection.tasks or task in selection.tasks]
        found = find_rejected(
            dataset,
            Planner(stages, dataset.ledger, replace(selection, until="")),
            sources.keys() - frozen,
            [task for task in tasks if standards.taxonomy.tasks[task].reads != ("global",)],  # no model writes these
            in_force(standards.gates, dataset.ledger),
            config.qa.max_tries,
        )
        selection, used_up = replace(selection, replace=found.replace), found.used_up
    return _Scope(sources, selection, used_up)


def _left_alone(config: JobConfig, scope: _Scope, planner: Planner, rows: Sequence[PlanRow]) -> Iterator[str]:
    if videos := sum(len(planner.videos_of(source_id)) for source_id in scope.selection.frozen):
        kept = sum(row.frozen for row in rows)
        more = f", which keeps {kept} pieces of work from being done (--set freeze=[] does them)" if kept else ""
        yield f"frozen: {videos} videos in {', '.join(config.freeze)}{more}"
    if tasks := ", ".join(f"{row.part} {row.used_up}" for row in rows if row.used_up):
        yield f"tried {config.qa.max_tries} times (qa.max_tries), still rejected and left so, in videos: {tasks}"


def _estimator(config: JobConfig, dataset: Dataset) -> Estimator | None:
    """None where no model is served: then there is nothing to estimate."""
    if not config.asks_models:
        return None
    return Estimator(dataset.ledger, dataset.storage.total_bytes(), config.prices)


def status_of(url: str) -> DatasetStatus:
    """Where a dataset stands; prices and budget are those of the job that it was last run with."""
    dataset = Dataset(url)
    try:
        config = job_of(dataset)
    except UserError:  # it stands where it stands, also without prices
        return dataset_status(dataset, Budget(), {})
    return dataset_status(dataset, config.budget, config.prices)


def prompts_of(url: str, task_id: str, video_id: str, templates: Path | None) -> Iterator[tuple[str, str]]:
    """The very messages that are sent for a task's questions about a video, each with a title."""
    dataset = Dataset(url)
    config = job_of(dataset)
    taxonomy = load_taxonomy(templates or config.templates)
    task, model = taxonomy.task(task_id), config.models.get(config.annotators.qa)
    if model is None:
        raise UserError(f"{url}: annotators.qa is {MEASURED}, which is sent no prompts; name a served model in the job")
    found = tree(dataset, video_id, Gates())
    if not found.captions or found.summary is None:
        raise UserError(f"{video_id}: has no captions yet; run the job until summarize first")
    if task.reads == ("global",):
        raise UserError(f"{task_id}: no model is asked; its answer is the summary that `marathon show` prints")
    asked, video = Served(model, taxonomy), Described(found.captions, found.events, found.summary)
    for format in get_args(Format):
        for role, text in asked.qa_messages(task, format, video):
            yield f"{task_id}, {format}, {role}", text


def render_videos(folder: Path, videos: int, minutes: float, seed: int, console: Console) -> list[Path]:
    """Render synthetic videos, with a bar."""
    with bar(console) as show:
        return write_videos(folder, videos, minutes, seed, progress=lambda done, total: show("render", done, total))


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


def _base(config: JobConfig, inputs: Sequence[str], selection: Selection) -> Base | None:
    """Of a pilot. Raises UserError where it, or the selection, cannot be what the job says."""
    if selection.rejected and config.annotators.qa == MEASURED:
        raise UserError(
            f"--rejected: annotators.qa is {MEASURED}, which writes the same again; name a served model in the job"
        )
    if not config.base:
        return None
    if inputs:
        raise UserError("--input: a pilot takes its videos from its base; leave it away")
    return Base(config.base, config.dataset, selection)


def stages_of(config: JobConfig, taxonomy: Taxonomy, storage: Storage, batch: Path | None = None) -> tuple[Stage, ...]:
    """A job's stages, with who writes in each. batch: a folder that requests are written into, instead of sent."""
    measured, folder = Measured(), batch and batch.resolve()
    served = {name: Served(settings, taxonomy, folder) for name, settings in config.models.items()}
    annotators = {stage: served.get(name, measured) for stage, name in config.annotators.model_dump().items()}
    judge = served.get(config.annotators.judge or "")
    return build_stages(config.stage_settings(), annotators, taxonomy, config.tasks, storage, judge)


def _refuse_unknown(selection: Selection, sources: Mapping[str, Source], dataset: Dataset) -> None:
    if unknown := sorted(selection.videos - _known_videos(dataset) - sources.keys()):
        raise UserError(f"--video {unknown[0]}: the job has no such video or source; give an id of its sources.parquet")


def _known_videos(dataset: Dataset) -> set[str]:
    return {video_id for (videos,) in dataset.ledger.rows("videos", stages=["download"]) for video_id in videos}


def _chosen(
    sources: dict[str, Source], piloted: Mapping[str, Source] | None, count: int | None, seed: int
) -> dict[str, Source]:
    """piloted: those that a pilot has from its base."""
    if piloted is not None:
        return {source_id: source for source_id, source in sources.items() if source_id in piloted}
    if count is None:
        return sources
    return {source.source_id: source for source in sample(sources.values(), count, seed)}


@contextmanager
def _dataset_or_empty(url: str) -> Iterator[Dataset]:
    """The dataset, or an empty one for as long as nothing has been built."""
    try:
        dataset = Dataset(url)
    except NoDataset:
        with tempfile.TemporaryDirectory() as folder:
            yield Dataset(folder, create=True)
        return
    yield dataset


def _batch_lines(written: Sequence[Written]) -> Iterator[str]:
    for model, requests, files in written:
        last = f" to {files[-1].rpartition('/')[2]}" if len(files) > 1 else ""
        yield f"batch    {model}: {requests:,} requests in {as_typed(Path(files[0]))}{last}"


def _paused_lines(paused: Sequence[Paused]) -> Iterator[str]:
    for pause in paused:
        when = datetime.fromtimestamp(pause.until).astimezone().isoformat(" ", "minutes")
        mend = "run again after that, with lower download.limits"
        yield f"paused   {pause.site} refuses ({pause.reason}) until {when}: its downloads wait; {mend}"


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
        yield f"{stage.stage:14} {'  '.join(counts)}{speed}"


def _failure_lines(failed: list[Outcome]) -> Iterator[str]:
    for outcome in failed[:_SHOWN_FAILURES]:
        part = f"/{outcome.part}" if outcome.part else ""
        again = " (the next run tries again)" if outcome.transient else ""
        yield f"failed   {outcome.video_id}  {outcome.stage}{part}: {outcome.reason}: {outcome.message}{again}"
    if len(failed) > _SHOWN_FAILURES:
        yield f"failed   and {len(failed) - _SHOWN_FAILURES} more (`marathon status` counts them by reason)"
