"""What the commands share: where they print, how they end, arguments that more than one group takes."""

import json
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

OK, SOMETHING_FAILED, BAD_INPUT, STOPPED = 0, 1, 2, 3

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err = Console(highlight=False, soft_wrap=True, stderr=True)

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset's folder or URL.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def stopped(line: str) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # one more would kill Python on its way out
    err.print(f"marathon: {line}", markup=False)
    sys.exit(STOPPED)


def fail(line: str) -> NoReturn:
    err.print(f"marathon: {line}", markup=False)
    sys.exit(BAD_INPUT)


def print_json(value: Any) -> None:
    out.print(json.dumps(value, indent=2, ensure_ascii=False), markup=False)
