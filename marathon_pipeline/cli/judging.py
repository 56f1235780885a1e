"""`marathon audit` and `marathon review`: what the QA is worth."""

from pathlib import Path
from typing import Annotated

import typer

from marathon_pipeline.cli.shared import OK, SOMETHING_FAILED, DatasetArgument, JsonOption, err, out, print_json


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
        print_json(statistics.model_dump(mode="json") | changed)
    else:
        labels = {"holds": "ok    ", "broken": "BROKEN", "not judged": "no    "}
        shown = [check for check in statistics.checks if not (check.by and check.state == "holds")]
        for check in shown:
            said = f"{check.label}: not judged, {check.why}" if check.why else check
            out.print(f"{labels[check.state]}  {said}", markup=False)
        for gate in statistics.judge.idle if statistics.judge else ():
            out.print(f"no      {gate}: does not count, the judge is not shown to beat chance", markup=False)
        if held := len(statistics.checks) - len(shown):
            out.print(f"ok      and {held} of single tasks, topics and so on", markup=False)
        if info.comparison:
            out.print(f"changed  against {info.comparison.old.name}: {info.comparison}", markup=False)
        out.print(f"report  {page}", markup=False)
    raise typer.Exit(SOMETHING_FAILED if any(check.broken for check in statistics.checks) else OK)


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
