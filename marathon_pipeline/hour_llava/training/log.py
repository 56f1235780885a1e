"""What is told of each step: `log.jsonl`, which a resumed run cuts back to its checkpoint, and TensorBoard."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


@dataclass(frozen=True)
class Step:
    """One step of the optimizer, over all workers. Shares are from 0 to 1."""

    step: int  # from 1
    steps: int  # of the stage
    loss: float  # mean over the answers' tokens
    gradient_norm: float  # before clipping
    learning_rates: dict[str, float]  # by part
    seconds: float
    samples: int
    tokens: int  # that the language model read, padding left out
    answer_tokens: int
    padding: float  # share of the language model's places that hold none
    waiting: float  # share of the time in which workers waited for data
    memory_bytes: int  # the most that any worker had until now: of its GPU, or of the machine
    unreadable: int  # samples of the stage that could not be read until now

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def samples_per_second(self) -> float:
        return self.samples / self.seconds


def read_log(folder: Path, start: int = 0) -> Iterator[tuple[Step, int]]:
    """Steps of a stage's log from a byte on, each with the byte behind it; a line that is not whole ends it."""
    try:
        file = (folder / LOG).open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(start)
        for line in file:
            start += len(line)
            if not line.endswith(b"\n"):
                return
            yield Step(**json.loads(line)), start


class Log:
    """Written by one worker. `step`: the last one that counts; what was logged behind it is done again."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        kept = [each for each, _ in read_log(folder) if each.step <= step]
        partial = folder / (LOG + ".partial")
        partial.write_text("".join(map(_line, kept)), encoding="utf-8")
        partial.replace(folder / LOG)
        self._file = (folder / LOG).open("a", encoding="utf-8")
        self._board: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: Step) -> None:
        self._file.write(_line(step))
        self._file.flush()
        values = {
            "loss": step.loss,
            "gradient_norm": step.gradient_norm,
            **{f"learning_rate/{part}": rate for part, rate in step.learning_rates.items()},
            "speed/tokens_per_second": step.tokens_per_second,
            "speed/samples_per_second": step.samples_per_second,
            "speed/waiting_for_data": step.waiting,
            "padding": step.padding,
            "memory_gib": step.memory_bytes / 2**30,
            "unreadable": step.unreadable,
        }
        for name, value in values.items():
            self._board.add_scalar(name, value, step.step)

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self._board.close()


def _line(step: Step) -> str:
    return json.dumps(asdict(step)) + "\n"
