"""`marathon manifest` and `marathon synth`: what a job starts from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marathon_pipeline.cli.shared import BAD_INPUT, OK, SOMETHING_FAILED, err, out
from marathon_pipeline.errors import UserError

if TYPE_CHECKING:
    from marathon_pipeline.dataset.removals import Removals


def manifest_check(
    files: Annotated[list[str], typer.Argument(metavar="FILE...")],
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


def manifest_import(
    collection: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="panda-70m, ego4d, activitynet, youcook2, moviechat-1k or videomarathon."
        ),
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The collection's own list, as it is released.")],
    manifest: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="The manifest to write (.jsonl).")],
    videos: Annotated[
        Path | None, typer.Option("--videos", metavar="FOLDER", help="Where the collection's own video files lie.")
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="Use the annotated segments only, not the whole videos.")
    ] = False,
    licence: Annotated[str, typer.Option("--licence", help="The licence of all its videos, where you know it.")] = "",
    evidence: Annotated[str, typer.Option("--licence-evidence", help="With --licence: where it is stated.")] = "",
    removals: Annotated[
        str, typer.Option("--removals", metavar="DATASET", help="Its removal list: what is on it is left out.")
    ] = "",
) -> None:
    """Turn a collection's own list of videos into a manifest; exit 1 where some of its entries are wrong."""
    from marathon_pipeline.sources.importers.convert import ImportOptions, import_manifest

    if bool(licence) != bool(evidence):
        raise UserError("--licence and --licence-evidence go together: a licence without evidence is none")
    imported = import_manifest(
        collection,
        file,
        manifest,
        ImportOptions(videos, segments, licence, evidence, _removals_of(removals).takes if removals else None),
        lambda problem: err.print(f"marathon: {problem}", markup=False),
    )
    said = [f"{imported.sources:,} sources", f"{imported.rows:,} rows", f"{len(imported.problems):,} wrong entries"]
    if imported.held_out:
        said.append(f"{imported.held_out:,} in the split test, because {collection} evaluates on them")
    out.print(f"{manifest}: {', '.join(said)}", markup=False)
    raise typer.Exit(SOMETHING_FAILED if imported.problems else OK)


def _removals_of(url: str) -> "Removals":
    from marathon_pipeline.dataset.dataset import Dataset

    return Dataset(url).removals()


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
