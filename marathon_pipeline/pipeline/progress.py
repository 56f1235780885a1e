"""The progress of a run for a person: a bar with the time left, and a line a stage with counts and speed."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from marathon_pipeline.pipeline.standing import Standing
from marathon_pipeline.pipeline.watcher import Load, Watcher

_LINE_SECONDS = 30.0  # between lines where there is no terminal: a log of weeks stays readable


class RunProgress(Watcher):
    """Shows a run as it goes: live on a terminal, now and then a line elsewhere.

    standing: of the run, as another watcher keeps it.
    """

    def __init__(self, console: Console, standing: Standing) -> None:
        self._console, self._standing = console, standing
        self._line = time.monotonic()
        self._bar = Progress(
            TextColumn("videos"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._videos = self._bar.add_task("videos", total=0)
        self._live = Live(console=console, get_renderable=self._shown, refresh_per_second=4, transient=True)

    def __enter__(self) -> "RunProgress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def expect(self, videos: int) -> None:
        self._bar.update(self._videos, total=(self._bar.tasks[0].total or 0) + videos)

    def finished(self) -> None:
        self._bar.advance(self._videos)

    def loaded(self, load: Load) -> None:
        """A line now and then where there is no terminal."""
        if not self._console.is_terminal and time.monotonic() - self._line > _LINE_SECONDS:
            self._line = time.monotonic()
            self._console.print(line(self._standing), highlight=False, markup=False)

    def _shown(self) -> Group:
        elapsed = time.time() - self._standing.began
        return Group(table(self._standing, elapsed), self._bar)


def line(standing: Standing) -> str:
    """How far a run is, for a log."""
    entered = {name: stage.ok + stage.filtered + stage.failed for name, stage in standing.stages.items()}
    stages = ", ".join(f"{name} {count}" for name, count in entered.items() if count)
    fetching = _fetching(standing)
    parts = ", ".join(filter(None, (stages, fetching and f"downloads {fetching}")))
    return f"{standing.finished} of {standing.expected} videos: {parts}"


def table(standing: Standing, elapsed: float) -> Table:
    """What a run did in its stages, and does there now. elapsed: since it began, in seconds."""
    shown = Table(box=None, padding=(0, 2), show_header=False)
    for name, stage in standing.stages.items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(stage.reasons).most_common(3))
        speed = stage.video_seconds / max(elapsed, 1e-6)
        shown.add_row(
            name,
            f"{stage.ok} ok",
            f"{stage.filtered} filtered" if stage.filtered else "",
            f"[red]{stage.failed} failed[/red]" if stage.failed else "",
            f"({reasons})" if reasons else "",
            f"{stage.in_flight} in flight" if stage.in_flight else "",
            f"{stage.waiting} wait" if stage.waiting else "",
            f"{speed:.1f} x real time" if speed else "",
        )
    if fetching := _fetching(standing):
        shown.add_row("downloads", fetching)
    return shown


def _fetching(standing: Standing) -> str:
    got = f"{standing.downloaded_bytes / 1e6:,.1f} MB so far"
    said = [f"{standing.downloads} under way, {got}"] if standing.downloads else []
    for pause in standing.paused:
        said.append(f"{pause.site} pauses until {time.strftime('%H:%M', time.localtime(pause.until))} ({pause.reason})")
    return "; ".join(said)


@contextmanager
def bar(console: Console) -> Iterator[Callable[[str, float, float], None]]:
    """A bar for a step of a job: called with what is done, how much of it, of how much."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)
