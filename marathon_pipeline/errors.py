"""What can go wrong, by who has to act on it."""

import traceback
from pathlib import Path


class UserError(Exception):
    """Bad input, said in one line: what is wrong, where, and what to do. The command prints it and exits 2."""

    def __init__(self, line: str) -> None:
        super().__init__(one_line(line))


class Filtered(Exception):
    """A stage leaves this video out by a rule of the job."""

    def __init__(self, rule: str, message: str = "") -> None:
        super().__init__(rule, message)
        self.rule, self.message = rule, message


class Unfinished(Exception):
    """Nothing went wrong, but a stage's work has to wait for a later run."""


class Failed(Exception):
    """A stage could not do its work on this video.

    reason: a short typed name, such as `truncated` or `http_404`. transient: trying again later may help. retry_after:
    for how many seconds a server asks to be left alone; 0 where it does not say.
    """

    def __init__(self, reason: str, message: str = "", *, transient: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(reason, message)
        self.reason, self.message, self.transient = reason, one_line(message), transient
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        return _failed, (self.reason, self.message, self.transient, self.retry_after)


def _failed(reason: str, message: str, transient: bool, retry_after: float) -> Failed:
    return Failed(reason, message, transient=transient, retry_after=retry_after)


def one_line(text: str) -> str:
    """A text without what breaks a line or steers a terminal: names of files and answers of servers hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def defect(error: BaseException) -> str:
    """An error that nobody foresaw, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = one_line(" ".join(str(error).split()))[:300]
    where = f"{Path(last.filename).name} line {last.lineno}"
    return f"{type(error).__name__} in {where}: {said} (a defect of marathon: please report it)"
