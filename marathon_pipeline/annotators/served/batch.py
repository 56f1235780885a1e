"""Requests in files, for others to have answered, instead of at servers.

`<model>-000001.jsonl` holds requests as OpenAI's Batch API and `vllm run-batch` read them, of one model;
`<model>-000001.index.jsonl` says what each was made for. The requests are replaced by the next run that writes into the
folder, the indexes stay: they are what takes answers back.
"""

import errno
import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from marathon_pipeline.annotators.protocol import Written
from marathon_pipeline.annotators.served.pool import Reply, Request, body_of
from marathon_pipeline.annotators.served.settings import ModelSettings
from marathon_pipeline.dataset.journal import Asked, Journal, shared_line
from marathon_pipeline.errors import Failed, Unfinished, UserError

INDEX = ".index.jsonl"
_MOST_REQUESTS, _MOST_BYTES = 50_000, 200_000_000  # of a file that OpenAI takes
_PART = ".part"
_OURS = re.compile(r".*-\d{6,}(\.index)?\.jsonl")


class Indexed(Asked):
    """A line of an index. `stage`, `owner`: whose journal its answer goes into."""

    stage: str
    owner: str


class _Waiting(NamedTuple):
    indexed: Indexed
    shared_text: str
    line: bytes

    @property
    def place(self) -> tuple[str, ...]:
        """What shares a beginning stands side by side, so that a server computes it once."""
        indexed = self.indexed
        return indexed.owner, indexed.stage, indexed.shared, indexed.part, indexed.unit, indexed.request


class BatchWriter:
    """A `Sender` that sends nothing. Requests are held until they fill a file, or the run ends."""

    def __init__(
        self, settings: ModelSettings, folder: Path, most_requests: int = _MOST_REQUESTS, most_bytes: int = _MOST_BYTES
    ) -> None:
        self._settings, self._folder = settings, folder
        self._most_requests, self._most_bytes = most_requests, most_bytes
        self._series = re.sub(r"[^A-Za-z0-9._-]+", "-", settings.model)
        self._waiting: dict[str, _Waiting] = {}
        self._bytes = 0
        self._written = Written(settings.model, 0, ())
        self._stopped = False
        self._failure: Failed | None = None

    def share(self, processes: int) -> None:
        """It sends nothing."""

    def stop(self) -> None:
        self._stopped = True

    async def send(self, request: Request, asked: Asked, journal: Journal) -> Reply:
        """Raises Unfinished always, or Failed where the folder takes no more."""
        if self._failure:
            raise self._failure
        if self._stopped or asked.request in self._waiting:
            raise Unfinished
        call = {
            "custom_id": asked.request,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body_of(request, self._settings),
        }
        line = f"{json.dumps(call, ensure_ascii=False)}\n".encode()
        full = len(self._waiting) >= self._most_requests or self._bytes + len(line) > self._most_bytes
        if full and self._waiting:
            self._write()
        indexed = Indexed(**asked.model_dump(), stage=journal.stage, owner=journal.owner)
        self._waiting[asked.request] = _Waiting(indexed, request.shared, line)
        self._bytes += len(line)
        raise Unfinished

    async def close(self) -> Written | None:
        """Raises Failed where requests could not be written."""
        if self._failure:
            raise self._failure
        if self._waiting:
            self._write()
        return self._written if self._written.files else None

    def _write(self) -> None:
        """Make a file of what waits, and its index, which is there first."""
        waiting = sorted(self._waiting.values(), key=lambda each: each.place)
        try:
            requests = self._folder / f"{self._series}-{self._next_number():06d}.jsonl"
            _put(requests.with_suffix(INDEX), _index_lines(waiting))
            _put(requests, (each.line for each in waiting))
        except OSError as error:
            full = error.errno == errno.ENOSPC
            what = "the disk is full: free some space" if full else f"cannot be written ({error.strerror})"
            self._failure = Failed(
                "disk_full" if full else "storage", f"--batch {self._folder}: {what}", transient=True
            )
            raise self._failure from None
        model, count, files = self._written
        self._written = Written(model, count + len(waiting), (*files, str(requests)))
        self._waiting, self._bytes = {}, 0

    def _next_number(self) -> int:
        """Behind all that were ever given to a file here, so that results named after it stay its own."""
        named = re.compile(rf"{re.escape(self._series)}-(\d{{6,}})\.")
        numbers = [int(found[1]) for path in self._folder.iterdir() if (found := named.match(path.name))]
        return max(numbers, default=0) + 1


def open_folder(folder: Path) -> None:
    """Make sure that requests can be written into a folder. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"--batch {folder}: cannot be written ({error.strerror}); give another folder") from None


def clear_folder(folder: Path) -> None:
    """Remove the requests of earlier runs: what is still to be asked will be written again, under the same ids."""
    for path in folder.iterdir():
        torn = path.suffix == _PART and _OURS.fullmatch(path.stem)
        if path.is_file() and (torn or is_requests(path)):
            path.unlink()


def is_requests(path: Path) -> bool:
    """Whether a file holds requests that a `BatchWriter` wrote."""
    return path.suffix == ".jsonl" and path.with_suffix(INDEX).exists()


def _index_lines(waiting: Iterable[_Waiting]) -> Iterable[bytes]:
    before = ""
    for indexed, shared_text, _ in waiting:
        if indexed.shared and indexed.shared != before:
            before = indexed.shared
            yield f"{shared_line(before, shared_text)}\n".encode()
        yield f"{indexed.model_dump_json(exclude_defaults=True)}\n".encode()


def _put(path: Path, lines: Iterable[bytes]) -> None:
    part = path.with_name(path.name + _PART)
    try:
        with part.open("wb") as file:
            file.writelines(lines)
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
