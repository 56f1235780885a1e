"""`marathon manifest` and `marathon synth`: what a job starts from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marathon_pipeline.cli.shared import BAD_INPUT, OK, err, out

if TYPE_CHECKING:
    from marathon_pipeline.dataset.removals import Removals


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
