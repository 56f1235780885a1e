"""The `marathon` command: parse, call, print."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from marathon_pipeline import __version__
from marathon_pipeline.errors import Failed, UserError, defect

if TYPE_CHECKING:
    from marathon_pipeline.job import PlanRow
    from marathon_pipeline.pipeline.plan import Selection
    from marathon_pipeline.pipeline.status import DatasetStatus

OK, SOMETHING_FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 3
_INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt

app = typer.Typer(
    help="Build long-video instruction datasets of the VideoMarathon kind.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
manifest_app = typer.Typer(help="Work with manifests.", no_args_is_help=True)
app.add_typer(manifest_app, name="manifest")
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err = Console(highlight=False, soft_wrap=True, stderr=True)

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job file, or the name of a shipped one.")]
DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset's folder or URL.")]
InputOption = Annotated[
    list[str] | None, typer.Option("--input", help="More videos: a manifest, a URL, a file or a folder.")
]
VideoOption = Annotated[list[str] | None, typer.Option("--video", help="Only this video or source (its id).")]
TasksOption = Annotated[str, typer.Option("--tasks", help="Only these tasks, separated by commas.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Put a setting over the job's.")
]
UntilOption = Annotated[str, typer.Option("--until", metavar="STAGE", help="Stop behind this stage.")]
SampleOption = Annotated[int | None, typer.Option("--sample", min=1, help="Only so many sources, drawn by --seed.")]
SeedOption = Annotated[int, typer.Option("--seed")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do again what is done.")]
RetryOption = Annotated[
    str | None, typer.Option("--retry-failed", metavar="REASON", help="Also permanent failures: of a reason, or `all`.")
]
BatchOption = Annotated[
    Path | None,
    typer.Option("--batch", metavar="DIR", help="Write requests to served models into files there; send none."),
]
BatchResultsOption = Annotated[
    list[str] | None,
    typer.Option("--batch-results", metavar="DIR_OR_FILE", help="Take the answers of such files in first."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command. Whatever goes wrong for a user is one line on stderr."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being told to stop is no crash
    try:
        _main()
    except KeyboardInterrupt:  # a second one, while the first was seen to
        _stopped("stopped; run the same command again to go on")


def _main() -> None:
    try:
        sys.exit(app(standalone_mode=False))
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            _stopped("stopped; run the same command again to go on")
        raise
    except typer.TyperException as error:  # an unknown option, a missing argument
        _fail(f"{' '.join(error.format_message().split())} (`marathon --help` and `marathon COMMAND --help` say more)")
    except UserError as error:
        _fail(str(error))
    except Failed as failure:
        mend = "; then run the same command again" if failure.transient else ""
        _fail(f"{failure.message or failure.reason}{mend}")
    except Exception as error:
        if os.environ.get("MARATHON_DEBUG"):
            raise
        _fail(f"{defect(error)}; MARATHON_DEBUG=1 shows where")


def _stopped(line: str) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # one more would kill Python on its way out
    err.print(f"marathon: {line}", markup=False)
    sys.exit(STOPPED)


def _fail(line: str) -> NoReturn:
    err.print(f"marathon: {line}", markup=False)
    sys.exit(BAD_INPUT)


def _version(asked: bool) -> None:
    if asked:
        out.print(f"marathon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None: ...


@app.command()
def run(
    job: JobArgument,
    input: InputOption = None,
    video: VideoOption = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    tasks: TasksOption = "",
    until: UntilOption = "",
    set: SetOption = None,
    force: ForceOption = False,
    retry_failed: RetryOption = None,
    batch: BatchOption = None,
    batch_results: BatchResultsOption = None,
) -> None:
    """Build a job's dataset, or bring it up to date; then its release and its report."""
    from marathon_pipeline.config import load_job
    from marathon_pipeline.job import Batch, run_job

    config = load_job(job, set or [])
    selection = _selection(video, tasks, until, force, retry_failed)
    ended = run_job(config, input or [], selection, sample, seed, err, Batch(batch, tuple(batch_results or ())))
    for line in ended.summary:
        out.print(line, markup=False)
    if ended.stopped:
        _stopped(ended.advice or "stopped with work left; run the same command again to go on")
    raise typer.Exit(SOMETHING_FAILED if ended.failures else OK)


@app.command()
def plan(
    job: JobArgument,
    input: InputOption = None,
    video: VideoOption = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    tasks: TasksOption = "",
    until: UntilOption = "",
    set: SetOption = None,
    force: ForceOption = False,
    retry_failed: RetryOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a run of the job would do, and why."""
    from marathon_pipeline.config import load_job
    from marathon_pipeline.job import plan_job

    rows = plan_job(
        load_job(job, set or []), input or [], _selection(video, tasks, until, force, retry_failed), sample, seed
    )
    if as_json:
        return _print_json([row.model_dump() for row in rows])
    if not any(row.stale or row.waiting or row.estimate for row in rows):
        out.print("nothing to do: everything is fresh")
        return None
    table = Table("stage", "task", "stale", "waiting", "why", box=None, pad_edge=False)
    for row in rows:
        if row.stale or row.waiting:
            why = ", ".join(f"{reason} {count}" for reason, count in sorted(row.why.items()))
            table.add_row(row.stage, row.part, str(row.stale or ""), str(row.waiting or ""), why)
    out.print(table)
    if any(row.estimate for row in rows):
        _print_estimates(rows)
    return None


def _print_estimates(rows: "list[PlanRow]") -> None:
    from marathon_pipeline.pipeline.estimate import Estimate

    by_stage: dict[str, Estimate] = {}
    for row in rows:
        if row.estimate is not None:
            by_stage[row.stage] = by_stage.get(row.stage, Estimate()).plus(row.estimate)
    total = Estimate()
    for estimate in by_stage.values():
        total = total.plus(estimate)
    table = Table("stage", "requests", "tokens", "GPU-h", "money", "storage", "from", box=None, pad_edge=False)
    for stage, cost in (*by_stage.items(), ("all", total)):
        table.add_row(
            stage,
            f"{cost.requests:,.0f}",
            f"{cost.tokens:,.0f}",
            f"{cost.gpu_hours:,.2f}" if cost.gpu_hours else "",
            f"{cost.money:,.2f}" if cost.money else "",
            f"{cost.storage_bytes / 1e9:,.2f} GB" if cost.storage_bytes else "",
            "what was spent before" if cost.measured else "assumptions: run a pilot first (--sample)",
        )
    out.print("\nestimated, for videos whose length is not known as for one of mean length:")
    out.print(table)


@app.command()
def status(dataset: DatasetArgument, as_json: JsonOption = False) -> None:
    """Where a dataset stands: per stage what is ok, filtered and failed, and why."""
    from marathon_pipeline.job import status_of

    found = status_of(dataset)
    if as_json:
        return _print_json(found.model_dump())
    table = Table("stage", "ok", "filtered", "failed", "rows", "lost", "speed", box=None, pad_edge=False)
    for stage in found.stages:
        table.add_row(
            stage.stage,
            str(stage.ok),
            _counts(stage.filtered),
            _counts(stage.failed),
            str(stage.items),
            _counts(stage.lost) if stage.lost else "",
            f"{stage.speed:.1f} x real time" if stage.speed else "",
        )
    out.print(table)
    if found.spent:
        _print_spent(found)
    return None


def _print_spent(found: "DatasetStatus") -> None:
    table = Table(
        "stage",
        "task",
        "model",
        "requests",
        "prompt",
        "cached",
        "answer",
        "seconds",
        "GPU-h",
        "money",
        box=None,
        pad_edge=False,
    )
    for row in found.spent:
        usage = row.usage
        table.add_row(
            row.stage,
            row.part,
            usage.model,
            f"{usage.requests:,}",
            f"{usage.prompt_tokens:,}",
            f"{usage.cached_tokens:,}",
            f"{usage.completion_tokens:,}",
            f"{usage.seconds:,.0f}",
            f"{usage.gpu_seconds / 3600:.3f}",
            f"{row.money:,.2f}" if row.money else "",
        )
    out.print()
    out.print(table)
    for title, amounts in (
        ("per thousand accepted QA", found.per_thousand_qa),
        ("per hour of video", found.per_video_hour),
        ("left of the budget", found.left),
    ):
        if amounts:
            said = ", ".join(f"{name.replace('_', ' ')} {amount:,.6g}" for name, amount in amounts.items())
            out.print(f"{title}: {said}", markup=False)
    for stage in found.stages:
        if stage.probed:
            mixed = stage.lost.get("other_pictures", 0)
            out.print(f"captioned again: {stage.probed} clips, {mixed} of them were captions of other pictures")


@app.command()
def show(dataset: DatasetArgument, video_id: Annotated[str, typer.Argument()], as_json: JsonOption = False) -> None:
    """The caption tree and the QA of one video."""
    from marathon_pipeline.dataset.dataset import Dataset
    from marathon_pipeline.pipeline.show import lines, tree

    found = tree(Dataset(dataset), video_id)
    if as_json:
        return _print_json(found.model_dump(mode="json"))
    for line in lines(found):
        out.print(line, markup=False)
    return None


@app.command()
def tasks(
    check: Annotated[bool, typer.Option("--check", help="Look for faults in the templates.")] = False,
    show: Annotated[str, typer.Option("--show", metavar="TASK", help="All that a task's template says.")] = "",
    video: Annotated[str, typer.Option("--video", metavar="ID", help="With --show: the prompt for this video.")] = "",
    dataset: Annotated[str, typer.Option("--dataset", help="With --video: the dataset that it is in.")] = "",
    templates: Annotated[Path | None, typer.Option("--templates", help="A folder of templates of your own.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The six topics and 22 tasks."""
    from marathon_pipeline.taxonomy import check_taxonomy, load_taxonomy

    if check:
        problems = check_taxonomy(templates)
        if as_json:
            _print_json([problem._asdict() for problem in problems])
        else:
            for problem in problems:
                out.print(str(problem), markup=False)
            out.print(f"{len(problems)} problems" if problems else "the templates are sound", markup=False)
        raise typer.Exit(BAD_INPUT if problems else OK)
    taxonomy = load_taxonomy(templates)
    if video:
        if not (show and dataset):
            raise UserError("--video ID goes with --show TASK and --dataset DATASET")
        from marathon_pipeline.job import prompts_of

        for title, text in prompts_of(dataset, show, video, templates):
            out.print(f"=== {title}", markup=False)
            out.print(text, markup=False)
        return None
    if show:
        return _print_json(taxonomy.task(show).rendered_rules())
    if as_json:
        return _print_json([task.rendered_rules() for task in taxonomy.tasks.values()])
    table = Table("task", "topic", "form", "open", "choice", "asks", box=None, pad_edge=False)
    for task in taxonomy.tasks.values():
        per_video = task.per_video
        table.add_row(task.task, task.topic, task.form, str(per_video.open), str(per_video.choice), task.asks)
    out.print(table, soft_wrap=False)
    return None


@app.command()
def audit(
    dataset: DatasetArgument,
    sample: Annotated[int, typer.Option("--sample", min=0, help="QA shown with pictures, for each task.")] = 2,
    gates: Annotated[Path | None, typer.Option(help="A file of gates, instead of those of the job.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a dataset's QA and write the report; exit 1 where a gate is broken."""
    from marathon_pipeline.publish import audit_dataset

    statistics, page = audit_dataset(dataset, sample, gates, err)
    if as_json:
        _print_json(statistics.model_dump(mode="json"))
    else:
        shown = [check for check in statistics.checks if not (check.by and check.ok)]
        for check in shown:
            out.print(f"{'ok    ' if check.ok else 'BROKEN'}  {check}", markup=False)
        for gate in statistics.judge.idle if statistics.judge else ():
            out.print(f"no      {gate}: does not count, the judge is not shown to beat chance", markup=False)
        if held := len(statistics.checks) - len(shown):
            out.print(f"ok      and {held} of single tasks, topics and so on", markup=False)
        out.print(f"report  {page}", markup=False)
    raise typer.Exit(OK if all(check.ok for check in statistics.checks) else SOMETHING_FAILED)


@app.command()
def release(
    dataset: DatasetArgument,
    name: Annotated[str, typer.Argument(help="The release's name.")],
    despite: Annotated[str, typer.Option(help="Why it is made although a gate is broken; stands in it.")] = "",
) -> None:
    """Write an immutable release of a dataset, unless a gate is broken."""
    from marathon_pipeline.publish import release_dataset

    out.print(release_dataset(dataset, name, despite, err), markup=False)


@app.command()
def purge(
    dataset: DatasetArgument,
    names: Annotated[list[str], typer.Argument(metavar="ID_OR_URL...", help="Sources or videos, by id or URL.")],
) -> None:
    """Take sources out of a dataset for good: all their rows and files; no later run takes them in again."""
    from marathon_pipeline.dataset.storage import Storage
    from marathon_pipeline.pipeline.purge import purge as remove

    done = remove(dataset, names)
    for gone in done.purged:
        out.print(str(gone), markup=False)
    for source_id in sorted(set(done.asked) - {gone.source_id for gone in done.purged}):
        state = "will be removed" if done.held else "was purged before; nothing of it is left"
        out.print(f"{source_id}: on the removal list, {state}", markup=False)
    if done.held:
        out.print(f"{done.held.partition(';')[0]}: it removes them with its next commit", markup=False)
    holding = sorted({key.split("/")[1] for key in Storage(dataset).keys("releases")})
    if holding:
        out.print(f"releases made before still hold them: {', '.join(holding)}; release again and delete those")


@manifest_app.command("check")
def manifest_check(files: Annotated[list[Path], typer.Argument(metavar="FILE...")]) -> None:
    """Read manifests and say what is wrong with their rows."""
    from marathon_pipeline.sources.manifest import read_manifest

    wrong = 0
    for file in files:
        sources, problems = read_manifest(file)
        for problem in problems:
            err.print(f"marathon: {problem}", markup=False)
        out.print(f"{file}: {len(sources)} sources, {len(problems)} wrong rows", markup=False)
        wrong += len(problems)
    raise typer.Exit(BAD_INPUT if wrong else OK)


@app.command()
def synth(
    folder: Annotated[Path, typer.Argument(metavar="OUT")],
    videos: Annotated[int, typer.Option("--videos", min=1)] = 1,
    minutes: Annotated[float, typer.Option("--minutes", min=1)] = 5.0,
    seed: Annotated[int, typer.Option("--seed")] = 0,
) -> None:
    """Render long videos from a script, so that every answer is known; the script lies beside each."""
    from marathon_pipeline.job import render_videos

    for path in render_videos(folder, videos, minutes, seed, err):
        out.print(str(path), markup=False)


def _selection(video: list[str] | None, tasks: str, until: str, force: bool, retry_failed: str | None) -> "Selection":
    from marathon_pipeline.pipeline.plan import Selection
    from marathon_pipeline.pipeline.stage_list import STAGE_NAMES
    from marathon_pipeline.taxonomy import TASK_IDS

    chosen = frozenset(task.strip() for task in tasks.split(",") if task.strip())
    if unknown := sorted(chosen - set(TASK_IDS)):
        raise UserError(f"--tasks: `{unknown[0]}` is none of the 22 tasks (`marathon tasks` lists them)")
    if until and until not in STAGE_NAMES:
        raise UserError(f"--until: `{until}` is no stage; give one of {', '.join(STAGE_NAMES)}")
    return Selection(
        videos=frozenset(video or []),
        tasks=chosen,
        until=until,
        force=force,
        retry_failed="" if retry_failed == "all" else retry_failed,
    )


def _counts(counts: dict[str, int]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f"{sum(counts.values())} ({reasons})" if counts else "0"


def _print_json(value: Any) -> None:
    out.print(json.dumps(value, indent=2, ensure_ascii=False), markup=False)
