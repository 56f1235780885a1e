"""The progress of a run for a person: a bar with the time left, and a line a stage with counts and speed."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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

from marathon_pipeline.pipeline.run import Watcher
from marathon_pipeline.pipeline.stage_list import STAGE_NAMES
from marathon_pipeline.records import Outcome
from marathon_pipeline.sources.governor import Paused

_LINE_SECONDS = 30.0  # between lines where there is no terminal: a log of weeks stays readable


class RunProgress(Watcher):
    """Shows a run as it goes: live on a terminal, now and then a line elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._counts = {name: Counter[str]() for name in STAGE_NAMES}
        self._reasons = {name: Counter[str]() for name in STAGE_NAMES}
        self._video_seconds = dict.fromkeys(STAGE_NAMES, 0.0)
        self._fetching = ""
        self._began = self._line = time.monotonic()
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

    def ended(self, outcome: Outcome) -> None:
        self._counts[outcome.stage][outcome.status] += 1
        self._video_seconds[outcome.stage] += outcome.video_seconds
        if outcome.status != "ok":
            self._reasons[outcome.stage][outcome.reason] += 1
        self._tell()

    def fetching(self, downloads: int, got: int, paused: Sequence[Paused] = ()) -> None:
        said = [f"{downloads} under way, {got / 1e6:,.1f} MB so far"] if downloads else []
        for pause in paused:
            said.append(
                f"{pause.site} pauses until {time.strftime('%H:%M', time.localtime(pause.until))} ({pause.reason})"
            )
        self._fetching = "; ".join(said)
        self._tell()

    def _tell(self) -> None:
        """A line now and then where there is no terminal."""
        if not self._console.is_terminal and time.monotonic() - self._line > _LINE_SECONDS:
            self._line = time.monotonic()
            videos = self._bar.tasks[0]
            stages = ", ".join(f"{name} {counts.total()}" for name, counts in self._counts.items() if counts)
            parts = ", ".join(filter(None, (stages, self._fetching and f"downloads {self._fetching}")))
            self._console.print(f"{videos.completed:.0f} of {videos.total:.0f} videos: {parts}", highlight=False)

    def _shown(self) -> Group:
        table = Table(box=None, padding=(0, 2), show_header=False)
        elapsed = max(time.monotonic() - self._began, 1e-6)
        for name, counts in self._counts.items():
            if not counts:
                continue
            reasons = ", ".join(f"{reason} {count}" for reason, count in self._reasons[name].most_common(3))
            table.add_row(
                name,
                f"{counts['ok']} ok",
                f"{counts['filtered']} filtered" if counts["filtered"] else "",
                f"[red]{counts['failed']} failed[/red]" if counts["failed"] else "",
                f"({reasons})" if reasons else "",
                f"{self._video_seconds[name] / elapsed:.1f} x real time" if self._video_seconds[name] else "",
            )
        if self._fetching:
            table.add_row("downloads", self._fetching)
        return Group(table, self._bar)


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
