"""The `marathon` command: parse, call, print."""

import json
import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marathon_pipeline import __version__
from marathon_pipeline.errors import Failed, UserError, defect, one_line

if TYPE_CHECKING:
    from marathon_pipeline.config import JobConfig
    from marathon_pipeline.dataset.removals import Removals
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
        return _print_json([row.model_dump() for row in rows])
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
    from marathon_pipeline.publish import gates_in_force

    opened = Dataset(dataset)
    found = tree(opened, video_id, gates_in_force(opened))
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
    against: Annotated[
        str, typer.Option(metavar="OTHER", help="An earlier dataset or release: the report tells what changed.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Measure a dataset's QA and write the report; exit 1 where a gate is broken."""
    from marathon_pipeline.publish import audit_dataset

    info, page = audit_dataset(dataset, sample, gates, against, err)
    statistics = info.statistics
    if as_json:
        changed = {"comparison": info.comparison.model_dump(mode="json")} if info.comparison else {}
        _print_json(statistics.model_dump(mode="json") | changed)
    else:
        shown = [check for check in statistics.checks if not (check.by and check.ok)]
        for check in shown:
            out.print(f"{'ok    ' if check.ok else 'BROKEN'}  {check}", markup=False)
        for gate in statistics.judge.idle if statistics.judge else ():
            out.print(f"no      {gate}: does not count, the judge is not shown to beat chance", markup=False)
        if held := len(statistics.checks) - len(shown):
            out.print(f"ok      and {held} of single tasks, topics and so on", markup=False)
        if info.comparison:
            out.print(f"changed  against {info.comparison.old.name}: {info.comparison}", markup=False)
        out.print(f"report  {page}", markup=False)
    raise typer.Exit(OK if all(check.ok for check in statistics.checks) else SOMETHING_FAILED)


@app.command()
def review(
    dataset: DatasetArgument,
    per_task: Annotated[int, typer.Option("--per-task", min=1, help="Accepted QA pairs dealt, of each task.")] = 10,
    seed: Annotated[int, typer.Option("--seed", help="Another one deals other pairs.")] = 0,
    gates: Annotated[Path | None, typer.Option(help="A file of gates, instead of those of the job.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8642,
    export: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="TOOL FILE", help="Write the sample for argilla or label-studio instead."),
    ] = None,
    take: Annotated[
        tuple[str, str] | None,
        typer.Option("--import", metavar="TOOL FILE", help="Take in what was judged there instead."),
    ] = None,
    name: Annotated[list[str] | None, typer.Option(metavar="ID=NAME", help="With --import: who a user id is.")] = None,
    media: Annotated[str, typer.Option(metavar="PREFIX", help="With --export: stands before a proxy's key.")] = "",
    judged: Annotated[bool, typer.Option("--judged", help="With --export: with what was judged so far.")] = False,
) -> None:
    """Open a page on which two people judge a sample of the QA, blind to each other, until Ctrl-C."""
    from marathon_pipeline.pipeline.progress import bar
    from marathon_pipeline.publish import opened
    from marathon_pipeline.review.deal import deal
    from marathon_pipeline.review.desk import Desk
    from marathon_pipeline.review.exchange import export_sample, take_in, tool_of

    if not (export or take) and not all(map(find_spec, ("fastapi", "uvicorn"))):
        raise UserError("`marathon review` needs FastAPI and uvicorn: pip install 'marathon-pipeline[review]'")
    found, standards = opened(dataset, gates)
    if take:
        names = {who: named for who, _, named in (each.partition("=") for each in name or [])}
        out.print(str(take_in(found, Path(take[1]), tool_of(take[0]), names)), markup=False)
        return
    reviews = found.reviews()
    with bar(err) as show:
        dealt = deal(found, standards, reviews, per_task, seed, lambda done, total: show("deal", done, total))
    if export:
        export_sample(dealt.dealt, reviews, tool_of(export[0]), Path(export[1]), media, judged)
        out.print(f"sample  {export[1]}: {len(dealt.dealt)} QA pairs", markup=False)
        return
    from marathon_pipeline.review.server import serve

    desk = Desk(dealt, reviews, found.removals(), standards)
    serve(desk, found.storage, dataset, host, port, lambda url: out.print(f"review  {url}", markup=False))


@app.command()
def release(
    dataset: DatasetArgument,
    name: Annotated[str, typer.Argument(help="The release's name.")],
    despite: Annotated[str, typer.Option(help="Why it is made although a gate is broken; stands in it.")] = "",
) -> None:
    """Write an immutable release of a dataset, unless a gate is broken."""
    from marathon_pipeline.publish import release_dataset

    for line in release_dataset(dataset, name, despite, err):
        out.print(line, markup=False)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A dataset or a release: its folder or URL.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another one.")],
    as_json: JsonOption = False,
) -> None:
    """Which QA pairs were added, removed and changed from one dataset or release to another."""
    from marathon_pipeline import publish

    found, ids = publish.diff(old, new)
    if as_json:
        return _print_json(found.model_dump(mode="json", exclude={"sample"}) | {"ids": ids})
    kinds = ("unchanged", "changed", "added", "removed")
    table = Table("task", *kinds, box=None, pad_edge=False)
    for task in found.tasks:
        if task.differs:
            table.add_row(Text(one_line(task.task)), *(f"{getattr(task, kind):,}" for kind in kinds))
    if table.rows:
        out.print(table)
    for side, word in ((found.old, "old"), (found.new, "new")):
        own = f", {side.own:,} that the other one does not have" if side.own else ""
        out.print(f"{word}      {side.kind} {side.name}, {side.videos:,} videos{own}", markup=False)
    out.print(f"changed  {found}", markup=False)
    return None


@app.command()
def check(release: Annotated[str, typer.Argument(metavar="RELEASE", help="A release's folder or URL.")]) -> None:
    """Read every file of a release and of its media; exit 1 where one is not what the release lists."""
    from marathon_pipeline.pipeline.progress import bar
    from marathon_pipeline.release.check import check_release

    with bar(err) as show:
        found = check_release(release, lambda done, total: show("check", done, total))
    for fault in found.faults:
        out.print(fault, markup=False)
    if not found.faults:
        out.print(f"{found.files:,} files, {found.bytes / 1e6:,.1f} MB: all are what was released")
    raise typer.Exit(SOMETHING_FAILED if found.faults else OK)


@app.command()
def purge(
    dataset: DatasetArgument,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Sources or videos by id or URL; channels.")
    ] = None,
    file: Annotated[
        list[str] | None, typer.Option("--file", metavar="LIST", help="Names in a file, one a line; `-`: on stdin.")
    ] = None,
    removals: Annotated[
        list[str] | None, typer.Option("--removals", metavar="DATASET", help="What was purged from that dataset.")
    ] = None,
) -> None:
    """Take sources out of a dataset and its releases for good, with a certificate; they never come in again."""
    from marathon_pipeline.pipeline.purge import purge as remove

    wanted = [*(names or []), *(name for path in file or [] for name in _names_in(path))]
    if not wanted and not removals:
        raise UserError("nothing to purge is named: give ids, URLs, channels, --file or --removals")
    done = remove(dataset, wanted, removals or ())
    for gone in done.purged:
        for line in gone.lines():
            out.print(line, markup=False)
    settled = {source_id for gone in done.purged for source_id in gone.order.source_ids}
    for source_id in sorted(set(done.asked) - settled):
        state = "will be removed" if done.held else "nothing of it is here"
        out.print(f"{source_id}: on the removal list, {state}", markup=False)
    if done.held:
        out.print(f"{done.held.partition(';')[0]}: it removes them with its next commit", markup=False)
    raise typer.Exit(SOMETHING_FAILED if any(gone.left for gone in done.purged) else OK)


def _names_in(path: str) -> list[str]:
    from marathon_pipeline.pipeline.purge import read_names

    try:
        return read_names((sys.stdin.read() if path == "-" else Path(path).read_text("utf-8-sig")).splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--file {path}: cannot be read ({type(error).__name__}); give a text file in UTF-8") from None


@manifest_app.command("check")
def manifest_check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...")],
    removals: Annotated[
        str, typer.Option("--removals", metavar="DATASET", help="Its removal list: what is on it is wrong here.")
    ] = "",
) -> None:
    """Read manifests and say what is wrong with their rows."""
    from marathon_pipeline.sources.manifest import read_manifest

    takes = _removals_of(removals).takes if removals else None
    wrong = 0
    for file in files:
        sources, problems = read_manifest(file)
        removed = [source for source in sources if takes and takes(source)]
        for source in removed:
            err.print(f"marathon: {file}: {source.url or source.path}: was purged; delete its rows", markup=False)
        sources, wrong = [source for source in sources if source not in removed], wrong + len(removed)
        for problem in problems:
            err.print(f"marathon: {problem}", markup=False)
        out.print(f"{file}: {len(sources)} sources, {len(problems)} wrong rows", markup=False)
        wrong += len(problems)
    raise typer.Exit(BAD_INPUT if wrong else OK)


def _removals_of(url: str) -> "Removals":
    from marathon_pipeline.dataset.dataset import Dataset

    return Dataset(url).removals()


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


@app.command()
def train(job: JobArgument, set: SetOption = None) -> None:
    """Train Hour-LLaVA on releases, stage after stage; go on where it was stopped."""
    from threading import Event

    from marathon_pipeline.hour_llava.training.folder import model_of
    from marathon_pipeline.hour_llava.training.launch import prepare
    from marathon_pipeline.hour_llava.training.launch import train as train_stages
    from marathon_pipeline.hour_llava.training.progress import TrainProgress
    from marathon_pipeline.hour_llava.training.settings import load_train_job
    from marathon_pipeline.pipeline.cluster import drained_on_signals, ray_started
    from marathon_pipeline.pipeline.settings import RunSettings

    config = load_train_job(job, set or [])
    if left := prepare(config):
        cluster = RunSettings(workers=config.run.workers * config.run.cpus, ray_address=config.run.ray_address)
        stop = Event()
        with drained_on_signals(stop), ray_started(cluster), TrainProgress(err) as progress:
            done = train_stages(config.absolute(), left, stop.is_set, progress.told)
        if not done:
            _stopped("stopped, and kept in a checkpoint; run the same command again to go on")
    else:
        out.print("nothing to do: every stage has its model", markup=False)
    for stage in config.stages:
        out.print(f"{stage.name}  {model_of(config, stage)}", markup=False)


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


def _counts(counts: dict[str, int]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f"{sum(counts.values())} ({reasons})" if counts else "0"


def _print_json(value: Any) -> None:
    out.print(json.dumps(value, indent=2, ensure_ascii=False), markup=False)
