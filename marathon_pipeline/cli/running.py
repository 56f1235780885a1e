"""`marathon run` and `marathon plan`: a job, done or foretold."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from marathon_pipeline.cli.shared import OK, SOMETHING_FAILED, JsonOption, err, out, print_json, stopped
from marathon_pipeline.errors import UserError

if TYPE_CHECKING:
    from marathon_pipeline.config import JobConfig
    from marathon_pipeline.job import PlanRow
    from marathon_pipeline.pipeline.plan import Selection

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job file, or the name of a shipped one.")]
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
SplitOption = Annotated[str, typer.Option("--split", help="Only sources of this split of the release.")]
RejectedOption = Annotated[
    bool, typer.Option("--rejected", help="Also ask again, in the place of QA pairs that gates or people reject.")
]
BaseOption = Annotated[
    str, typer.Option("--base", metavar="DATASET", help="Ask about this dataset's videos, in a pilot of their own.")
]
IntoOption = Annotated[str, typer.Option("--into", metavar="PILOT", help="With --base: where the pilot lies.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do again what is done.")]
RetryOption = Annotated[
    str | None,
    typer.Option(
        "--retry-failed",
        metavar="REASON",
        help="Also permanent failures: of a reason, or `all` but what a site says of a video.",
    ),
]
BatchOption = Annotated[
    Path | None,
    typer.Option("--batch", metavar="DIR", help="Write requests to served models into files there; send none."),
]
BatchResultsOption = Annotated[
    list[str] | None,
    typer.Option("--batch-results", metavar="DIR_OR_FILE", help="Take the answers of such files in first."),
]


def run(
    job: JobArgument,
    input: InputOption = None,
    video: VideoOption = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    tasks: TasksOption = "",
    until: UntilOption = "",
    set: SetOption = None,
    split: SplitOption = "",
    force: ForceOption = False,
    rejected: RejectedOption = False,
    base: BaseOption = "",
    into: IntoOption = "",
    retry_failed: RetryOption = None,
    batch: BatchOption = None,
    batch_results: BatchResultsOption = None,
) -> None:
    """Build a job's dataset, or bring it up to date; then its release and its report."""
    from marathon_pipeline.config import load_job
    from marathon_pipeline.job import Batch, run_job

    config = _of_pilot(load_job(job, set or []), base, into)
    selection = _selection(video, split, tasks, until, force, rejected, retry_failed)
    ended = run_job(config, input or [], selection, sample, seed, err, Batch(batch, tuple(batch_results or ())))
    for line in ended.summary:
        out.print(line, markup=False)
    if ended.stopped:
        stopped(ended.advice or "stopped with work left; run the same command again to go on")
    raise typer.Exit(SOMETHING_FAILED if ended.failures else OK)


def plan(
    job: JobArgument,
    input: InputOption = None,
    video: VideoOption = None,
    sample: SampleOption = None,
    seed: SeedOption = 0,
    tasks: TasksOption = "",
    until: UntilOption = "",
    set: SetOption = None,
    split: SplitOption = "",
    force: ForceOption = False,
    rejected: RejectedOption = False,
    base: BaseOption = "",
    into: IntoOption = "",
    retry_failed: RetryOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a run of the job would do, and why."""
    from marathon_pipeline.config import load_job
    from marathon_pipeline.job import plan_job

    config = _of_pilot(load_job(job, set or []), base, into)
    selection = _selection(video, split, tasks, until, force, rejected, retry_failed)
    found = plan_job(config, input or [], selection, sample, seed)
    rows = found.rows
    if as_json:
        return print_json([row.model_dump() for row in rows])
    for note in found.notes:
        out.print(note, markup=False)
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


def _of_pilot(config: "JobConfig", base: str, into: str) -> "JobConfig":
    if bool(base) != bool(into):
        raise UserError("--base DATASET and --into PILOT go together: the one is read, the other written")
    return config.pilot(base, into) if base else config


def _selection(
    video: list[str] | None,
    split: str,
    tasks: str,
    until: str,
    force: bool,
    rejected: bool,
    retry_failed: str | None,
) -> "Selection":
    from marathon_pipeline.pipeline.plan import Selection
    from marathon_pipeline.pipeline.stage_list import STAGE_NAMES
    from marathon_pipeline.release.plan import SPLITS
    from marathon_pipeline.taxonomy import TASK_IDS

    chosen = frozenset(task.strip() for task in tasks.split(",") if task.strip())
    if unknown := sorted(chosen - set(TASK_IDS)):
        raise UserError(f"--tasks: `{unknown[0]}` is none of the 22 tasks (`marathon tasks` lists them)")
    if until and until not in STAGE_NAMES:
        raise UserError(f"--until: `{until}` is no stage; give one of {', '.join(STAGE_NAMES)}")
    if split and split not in SPLITS:
        raise UserError(f"--split: `{split}` is no split; give one of {', '.join(SPLITS)}")
    if force and rejected:
        raise UserError("--force writes all anew, --rejected only what gates or people reject: give one of them")
    return Selection(
        videos=frozenset(video or []),
        split=split,
        tasks=chosen,
        until=until,
        force=force,
        rejected=rejected,
        retry_failed="" if retry_failed == "all" else retry_failed,
    )
