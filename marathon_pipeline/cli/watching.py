"""The run that is under way on a dataset, as its lease tells of it: `marathon status --watch`."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from marathon_pipeline.cli.shared import out
from marathon_pipeline.errors import one_line

if TYPE_CHECKING:
    from marathon_pipeline.dataset.storage import Storage
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
    way = _WAYS[run.state] if run.state == "dead" else f"{_WAYS[run.state]}: {standing.doing}"
    heard = f"{'ended' if run.state == 'released' else 'heard of'} {_ago(run.heard)}"
    yield one_line(f"run      {standing.run} {way} ({who}; since {run.since}; {heard})")
    yield f"         {_progress(standing, run.state == 'alive')}"
    if run.state == "dead":
        yield "         run the same command again: it goes on where this one was"


def watch_run(dataset: str, every: float) -> bool:
    """Show the run until it ends; nothing where none is under way. False where somebody had seen enough before."""
    from marathon_pipeline.dataset.dataset import Dataset
    from marathon_pipeline.pipeline.progress import table

    live = Live(console=out, auto_refresh=False, transient=True)
    try:
        for run in _looks(Dataset(dataset).storage, every):
            if run.state != "alive":
                break
            shown: list[Text | Table] = [Text(line) for line in run_lines(run)]
            if run.standing is not None:
                shown.append(table(run.standing, run.heard - run.standing.began))
            if not out.is_terminal:
                out.print(Group(*shown))
                continue
            live.start()
            live.update(Group(*shown), refresh=True)
    except KeyboardInterrupt:
        return False  # the run goes on
    finally:
        live.stop()
    return True


def print_looks(dataset: str, every: float) -> None:
    """A line of JSON a look, the last one of the run that has ended."""
    from marathon_pipeline.dataset.dataset import Dataset

    for run in _looks(Dataset(dataset).storage, every):
        out.print(run.model_dump_json(), markup=False)


def _looks(storage: "Storage", every: float) -> "Iterator[RunStatus]":
    """Each reads one small object, however large the dataset is."""
    from marathon_pipeline.pipeline.standing import run_status

    while (run := run_status(storage)) is not None:
        yield run
        if run.state != "alive":
            return
        time.sleep(every)


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
    return f"{timedelta(seconds=max(0, round(time.time() - when)))} ago"
