"""What can go wrong, by who has to act on it."""

import traceback
from pathlib import Path


class UserError(Exception):
    """Bad input, said in one line: what is wrong, where, and what to do. The command prints it and exits 2."""


class Filtered(Exception):
    """A stage leaves this video out by a rule of the job."""

    def __init__(self, rule: str, message: str = "") -> None:
        super().__init__(rule, message)
        self.rule, self.message = rule, message


class Failed(Exception):
    """A stage could not do its work on this video.

    reason: a short typed name, such as `truncated` or `http_404`. transient: trying again later may help.
    """

    def __init__(self, reason: str, message: str = "", *, transient: bool = False) -> None:
        super().__init__(reason, message)
        self.reason, self.message, self.transient = reason, message, transient

    def __reduce__(self) -> tuple[object, ...]:
        return _failed, (self.reason, self.message, self.transient)


def _failed(reason: str, message: str, transient: bool) -> Failed:
    return Failed(reason, message, transient=transient)


def defect(error: BaseException) -> str:
    """An error that nobody foresaw, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())[:300]
    where = f"{Path(last.filename).name} line {last.lineno}"
    return f"{type(error).__name__} in {where}: {said} (a defect of marathon: please report it)"
