"""A training's progress for a person: a bar with rate and time left on a terminal, now and then a line elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from marathon_pipeline.hour_llava.training.log import Step
from marathon_pipeline.hour_llava.training.settings import TrainStage

_LINE_SECONDS = 30.0  # between lines where there is no terminal


class TrainProgress:
    """Told of each step as the log has it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[said]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._line = 0.0

    def __enter__(self) -> "TrainProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def told(self, stage: TrainStage, step: Step) -> None:
        said = described(step)
        if self._console.is_terminal:
            if stage.name not in self._tasks:  # from here on, so that the time left is not of steps done before
                self._tasks[stage.name] = self._bar.add_task(stage.name, total=step.steps, said="")
            self._bar.update(self._tasks[stage.name], completed=step.step, total=step.steps, said=said)
        elif time.monotonic() - self._line > _LINE_SECONDS or step.step == step.steps:
            self._line = time.monotonic()
            left = (step.steps - step.step) * step.seconds
            self._console.print(
                f"{stage.name} {step.step}/{step.steps}  {said}  ETA {left / 60:,.0f} min", markup=False
            )


def described(step: Step) -> str:
    """A step in a line; parts that share a learning rate stand together."""
    rates: dict[float, list[str]] = {}
    for part, rate in step.learning_rates.items():
        rates.setdefault(rate, []).append(part)
    return "  ".join(
        (
            f"loss {step.loss:.4f}",
            "lr " + ", ".join(f"{'+'.join(parts)} {rate:.2g}" for rate, parts in rates.items()),
            f"{step.tokens_per_second:,.0f} tok/s",
            f"{step.samples_per_second:.2g} samples/s",
            f"{step.memory_bytes / 2**30:.1f} GiB",
            f"padding {step.padding:.0%}",
            f"waiting {step.waiting:.0%}",
            *([f"{step.unreadable} unreadable"] if step.unreadable else []),
        )
    )
