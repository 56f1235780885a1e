"""The run that is under way on a dataset, as its lease tells of it: `marathon status --watch`."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.text import Text

from marathon_pipeline.cli.shared import out
from marathon_pipeline.errors import one_line

if TYPE_CHECKING:
    from marathon_pipeline.pipeline.standing import RunStatus, Standing

_WAYS = {"alive": "under way", "dead": "died", "released": "ended"}


def run_lines(run: "RunStatus | None") -> Iterator[str]:
    """Who works on the dataset, since when, where, and how far it is; nothing where that is not known."""
    if run is None:
        return
    standing = run.standing
    if standing is None:  # another command: a purge, a release
        if run.state == "alive":
            yield f"in use   by host {run.host}, process {run.process}, since {run.since}"
        return
    who = f"{standing.user}@{run.host}, process {run.process}"
    who += f", Ray job {standing.submission}" if standing.submission else ""
    way = f"{_WAYS[run.state]}: {standing.doing}" if run.state != "dead" else "died"
    heard = f"heard of {_ago(run.heard)}" if run.state != "released" else f"ended {_ago(run.heard)}"
    yield one_line(f"run      {standing.run} {way} ({who}; since {run.since}; {heard})")
    yield f"         {_progress(standing, run.state == 'alive')}"
    if run.state == "dead":
        yield "         run the same command again: it goes on where this one was"


def watch_run(dataset: str, every: float, as_json: bool) -> bool:
    """Show the run until it ends; nothing where none is under way. False where somebody had seen enough before."""
    from marathon_pipeline.dataset.dataset import Dataset
    from marathon_pipeline.pipeline.progress import table
    from marathon_pipeline.pipeline.standing import run_status

    storage = Dataset(dataset).storage
    live = Live(console=out, auto_refresh=False, transient=True)
    if out.is_terminal and not as_json:
        live.start()
    try:
        while (run := run_status(storage)) is not None and run.state == "alive":
            lines = Text("\n".join(run_lines(run)))
            shown = Group(lines, table(run.standing, run.heard - run.standing.began)) if run.standing else Group(lines)
            if as_json:
                out.print(run.model_dump_json(), markup=False)
            elif out.is_terminal:
                live.update(shown, refresh=True)
            else:
                out.print(shown)
            time.sleep(every)
    except KeyboardInterrupt:
        return False  # the run goes on
    finally:
        live.stop()
    return True


def _progress(standing: "Standing", alive: bool) -> str:
    parts = [f"{standing.finished:,} of {standing.expected:,} videos"]
    if alive and standing.videos_an_hour:
        parts.append(f"{standing.videos_an_hour:,.1f} an hour")
    if alive and standing.doing == "stages" and standing.seconds_left is not None:
        parts.append(f"{timedelta(seconds=round(standing.seconds_left))} left")
    if standing.stopping:
        parts.append(f"begins nothing more: {standing.stopping}")
    return ", ".join(parts)


def _ago(when: float) -> str:
    """In words; a clock of another machine may run ahead of this one."""
    seconds = max(0, round(time.time() - when))
    return f"{timedelta(seconds=seconds)} ago"
