"""`marathon evaluate`: from a model to how well it answers."""

from pathlib import Path

from marathon_pipeline.cli.running import JobArgument, SetOption
from marathon_pipeline.cli.shared import err, out


def evaluate(job: JobArgument, set: SetOption = None) -> None:
    """Ask a trained model the multiple-choice questions of releases, and for needles in long videos."""
    from rich.progress import Progress

    from marathon_pipeline.hour_llava.evaluation.evaluate import evaluate as asked
    from marathon_pipeline.hour_llava.evaluation.report import percent
    from marathon_pipeline.hour_llava.evaluation.settings import load_evaluate_job

    config = load_evaluate_job(job, set or [])
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        bars = {what: progress.add_task(what, total=None, visible=False) for what in _PARTS}

        def told(what: str, done: int, of: int) -> None:
            progress.update(bars[what], completed=done, total=of, visible=True)

        reports = asked(config, told)
    for report in reports:
        for each in report.accuracies:
            how = f"{each.how}{', blind' if each.blind else ''}"
            out.print(f"{report.name}  {how:<18}  {percent(each.overall)} % of {each.overall.asked:,}", markup=False)
        if report.unread:
            out.print(f"{report.name}  not asked: {sum(report.unread.values()):,}", markup=False)
    out.print(f"report  {Path(config.out) / 'report.md'}", markup=False)


_PARTS = ("releases", "making needles", "needles")
