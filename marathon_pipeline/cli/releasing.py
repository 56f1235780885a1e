"""`marathon release`, `diff`, `check`, `export` and `purge`: what is handed on, and taken back."""

import sys
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.table import Table
from rich.text import Text

from marathon_pipeline.cli.shared import OK, SOMETHING_FAILED, DatasetArgument, JsonOption, err, out, print_json
from marathon_pipeline.errors import UserError, one_line


def release(
    dataset: DatasetArgument,
    name: Annotated[str, typer.Argument(help="The release's name.")],
    despite: Annotated[str, typer.Option(help="Why it is made although a gate is broken; stands in it.")] = "",
) -> None:
    """Write an immutable release of a dataset, unless a gate is broken."""
    from marathon_pipeline.publish import release_dataset

    for line in release_dataset(dataset, name, despite, err):
        out.print(line, markup=False)


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A dataset or a release: its folder or URL.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Another one.")],
    as_json: JsonOption = False,
) -> None:
    """Which QA pairs were added, removed and changed from one dataset or release to another."""
    from marathon_pipeline import publish

    found, ids = publish.diff(old, new)
    if as_json:
        return print_json(found.model_dump(mode="json", exclude={"sample"}) | {"ids": ids})
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


def export(
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="A release's folder or URL.")],
    format: Annotated[str, typer.Option("--format", help="llava-next, hourllava or llamafactory.")],
    folder: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
) -> None:
    """Write a release in the form that an existing trainer reads."""
    from typing import get_args

    from marathon_pipeline.hour_llava.export.dialects import Format
    from marathon_pipeline.hour_llava.export.write import export_release
    from marathon_pipeline.pipeline.progress import bar
    from marathon_pipeline.records import Split

    for name, given, known in (("--format", format, get_args(Format)), ("--split", split, get_args(Split))):
        if given not in known:
            raise UserError(f"{name} {given}: give one of {', '.join(known)}")
    with bar(err) as show:
        found = export_release(
            release, cast(Format, format), cast(Split, split), folder, lambda done, total: show("export", done, total)
        )
    counts = f"{found.videos:,} videos, {found.conversations:,} conversations, {found.qa:,} QA"
    out.print(f"{folder / found.path}  {counts}", markup=False)
    for why, pairs in sorted(found.left_out.items()):
        out.print(f"left out  {pairs:,} QA {why}", markup=False)


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
    for reach in done.channels:
        out.print(f"channel {reach.channel}: {reach}", markup=False)
    for gone in done.purged:
        for line in gone.lines():
            out.print(line, markup=False)
    settled = {source_id for gone in done.purged for source_id in gone.order.source_ids}
    for source_id in sorted(set(done.asked) - settled):
        state = "will be removed" if done.held else "nothing of it is here"
        out.print(f"{source_id}: on the removal list, {state}", markup=False)
    if done.held:
        out.print(f"{done.held.partition(';')[0]}: it removes them with its next commit", markup=False)
    missed = any(not reach.found for reach in done.channels) or any(gone.left for gone in done.purged)
    raise typer.Exit(SOMETHING_FAILED if missed else OK)


def _names_in(path: str) -> list[str]:
    from marathon_pipeline.pipeline.purge import read_names

    try:
        return read_names((sys.stdin.read() if path == "-" else Path(path).read_text("utf-8-sig")).splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--file {path}: cannot be read ({type(error).__name__}); give a text file in UTF-8") from None
