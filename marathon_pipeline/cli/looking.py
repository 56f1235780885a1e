"""`marathon status`, `show` and `tasks`: what is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from marathon_pipeline.cli.shared import BAD_INPUT, OK, DatasetArgument, JsonOption, out, print_json
from marathon_pipeline.cli.watching import print_looks, run_lines, watch_run
from marathon_pipeline.errors import UserError, one_line

if TYPE_CHECKING:
    from marathon_pipeline.pipeline.status import DatasetStatus


def status(
    dataset: DatasetArgument,
    dead: Annotated[
        bool, typer.Option("--dead-links", help="Only the addresses that give no video, with dates.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="First show the run that is under way, until it ends or Ctrl-C.")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="With --watch: between looks.")] = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Where a dataset stands, and who works on it: per stage what is ok, filtered and failed; its sources' yield."""
    from marathon_pipeline.job import status_of

    if dead:
        return _print_dead_links(dataset, as_json)
    if watch and as_json:
        return print_looks(dataset, every)
    if watch and not watch_run(dataset, every):
        return None
    found = status_of(dataset)
    if as_json:
        return print_json(found.model_dump())
    for line in run_lines(found.run):
        out.print(line, markup=False)
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
    if any(row.failed or row.filtered for row in found.yields):
        _print_yields(found)
    if found.spent:
        _print_spent(found)
    return None


def _print_yields(found: "DatasetStatus") -> None:
    table = Table("sources of", "there", "waiting", "filtered", "failed", "yield", box=None, pad_edge=False)
    for row in found.yields:
        share = f"{row.share:.1%}" if row.ok or row.failed else ""
        table.add_row(
            Text(row.source), str(row.ok), str(row.waiting), _counts(row.filtered), _counts(row.failed), share
        )
    out.print()
    out.print(table)


def _print_dead_links(dataset: str, as_json: bool) -> None:
    from marathon_pipeline.dataset.dataset import Dataset
    from marathon_pipeline.pipeline.yields import dead_links

    links = dead_links(Dataset(dataset))
    if as_json:
        return print_json([link.model_dump() for link in links])
    for link in links:
        dates = f"{link.first_seen[:10]} to {link.last_seen[:10]}"
        out.print(one_line(f"{link.source_id}  {link.reason}  {dates}  {link.url}"), markup=False)
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


def show(dataset: DatasetArgument, video_id: Annotated[str, typer.Argument()], as_json: JsonOption = False) -> None:
    """The caption tree and the QA of one video."""
    from marathon_pipeline.dataset.dataset import Dataset
    from marathon_pipeline.pipeline.show import lines, tree
    from marathon_pipeline.publish import gates_in_force

    opened = Dataset(dataset)
    found = tree(opened, video_id, gates_in_force(opened))
    if as_json:
        return print_json(found.model_dump(mode="json"))
    for line in lines(found):
        out.print(line, markup=False)
    return None


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
            print_json([problem._asdict() for problem in problems])
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
        return print_json(taxonomy.task(show).rendered_rules())
    if as_json:
        return print_json([task.rendered_rules() for task in taxonomy.tasks.values()])
    table = Table("task", "topic", "form", "open", "choice", "asks", box=None, pad_edge=False)
    for task in taxonomy.tasks.values():
        per_video = task.per_video
        table.add_row(task.task, task.topic, task.form, str(per_video.open), str(per_video.choice), task.asks)
    out.print(table, soft_wrap=False)
    return None


def _counts(counts: dict[str, int]) -> str:
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
    return f"{sum(counts.values())} ({reasons})" if counts else "0"
