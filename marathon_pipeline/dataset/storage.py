"""Where a dataset lies: a local folder or an object-store URL, through obstore. Every write is atomic."""

import contextlib
import fcntl
import io
import os
import re
import shutil
import stat
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore

from marathon_pipeline.dataset.remote import PATIENCE, first_contact, opened, part_bytes, pieces
from marathon_pipeline.errors import Failed, UserError
from marathon_pipeline.records import digest

_PLAIN = re.compile(r"[A-Za-z0-9_-][\w.-]*(?:/[A-Za-z0-9_-][\w.-]*)*", re.ASCII)  # a key that is its own path
_READ_AHEAD = 4 * 2**20  # bytes asked for at once: less, and a stream waits for the store
_READS_AT_ONCE = 16
PARTS_DAYS = 7  # that a download which broke off waits on a machine of a store's dataset to be gone on with
_CREATIONS = 5  # tries of one that meets another, which comes to nothing either
_PIECES_AT_ONCE = 3  # of 5 MB each, of a file that is written: what an hour-long proxy takes in memory
_OF_DATASET = "make it writable, or give another `dataset`"
_OF_MACHINE = "set TMPDIR to a folder that you may write to"
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")  # in an answer that else says the same as of a missing object
_COPIED_BYTES = 2**30  # by the store itself, which has half a minute for it; S3 would copy 5 GiB at most


class Storage:
    """Keys and bytes under one root. Pickles as its URL, so that a worker opens its own connection.

    patience: for how long a store is asked again. Unless given, one has to answer first, as workers know that it has.
    """

    def __init__(self, url: str, *, patience: timedelta | None = None) -> None:
        self.root = None if "://" in url else Path(url).expanduser().resolve()
        self.url = url.rstrip("/") if self.root is None else str(self.root)
        self._patience = patience

    def __reduce__(self) -> tuple[object, ...]:
        return partial(Storage, patience=self._patience or PATIENCE), (self.url,)

    @cached_property
    def _store(self) -> Any:
        patience = self._patience or PATIENCE
        try:
            store = LocalStore(self.root, mkdir=True) if self.root is not None else opened(self.url, patience)
        except (BaseError, OSError, ValueError) as error:
            raise UserError(
                f"{self.url}: cannot be opened as a dataset ({_line(error)}); check the path or URL"
            ) from None
        if self.root is None and self._patience is None:
            with contextlib.suppress(FileNotFoundError), _errors(self.url, "read"):
                first_contact(self.url)
        return store

    def read(self, key: str) -> bytes:
        """Raises FileNotFoundError where there is no such key."""
        with _errors(f"{self.url}/{key}", "read"):
            path = self._file(key)
            return path.read_bytes() if path else b"".join(pieces(self._store, key))

    def _file(self, key: str) -> Path | None:
        """The key's file on a local disk: without obstore many small ones take a sixth of the CPU."""
        return self.root / key if self.root is not None and _PLAIN.fullmatch(key) else None

    def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """Several at once: a store takes its time over each. Raises FileNotFoundError where one is not there."""
        if self.root is not None:
            return list(map(self.read, keys))
        with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
            return list(pool.map(self.read, keys))

    def read_range(self, key: str, start: int, end: int) -> bytes:
        """The bytes from `start` up to `end`. Raises FileNotFoundError where there is no such key."""
        with _errors(f"{self.url}/{key}", "read"):
            return bytes(obstore.get_range(self._store, key, start=start, end=end))

    def write(self, key: str, data: bytes) -> None:
        with _errors(f"{self.url}/{key}", "written"):
            if path := self._file(key):
                _replace(path, data)
            else:
                obstore.put(self._store, key, data)

    def write_file(self, key: str, path: Path) -> None:
        with _errors(f"{self.url}/{key}", "written"):
            parts = part_bytes(path.stat().st_size)
            obstore.put(self._store, key, path, chunk_size=parts, max_concurrency=_PIECES_AT_ONCE)

    def create(self, key: str, data: bytes) -> bool:
        """Write only where nothing is: False if something else was there already.

        A store that wrote it and lost its answer is asked again, and then says that it is there: what it holds tells
        whose it is, so that no two writers may write the same. S3 refuses two at once, and may have taken neither.
        """
        for _ in range(_CREATIONS):
            with _errors(f"{self.url}/{key}", "written"):
                try:
                    obstore.put(self._store, key, data, mode="create")
                    return True
                except AlreadyExistsError:
                    if self.root is not None:
                        return False
            with contextlib.suppress(FileNotFoundError):
                return self.read(key) == data
        raise Failed("storage", f"{self.url}/{key}: cannot be created (the store refuses it)", transient=True)

    def create_private(self, key: str, data: bytes) -> bool:
        """`create`, readable by its owner alone where files have owners."""
        if self.root is None:
            return self.create(key, data)
        with _errors(f"{self.url}/{key}", "written"), tempfile.NamedTemporaryFile(dir=self.root) as file:
            file.write(data)  # a temporary file is its owner's alone
            file.flush()
            try:
                (self.root / key).hardlink_to(file.name)
            except FileExistsError:
                return False
        return True

    def copy(self, key: str, to: str) -> None:
        if self.root is None and self.size(key) > _COPIED_BYTES:
            with self.local_file(key) as path:
                self.write_file(to, path)
            return
        with _errors(f"{self.url}/{to}", "written"):
            obstore.copy(self._store, key, to)

    def remove(self, key: str) -> None:
        """Remove a key, where it is there."""
        with _errors(f"{self.url}/{key}", "removed"), contextlib.suppress(FileNotFoundError):
            if path := self._file(key):
                path.unlink()
            else:
                obstore.delete(self._store, key)

    def remove_all(self, keys: Sequence[str]) -> None:
        """Those that are there; S3 does it in one request."""
        try:
            with _errors(self.url, "removed"):
                obstore.delete(self._store, keys)
        except FileNotFoundError:  # other stores are asked for each, and the first that is gone keeps the rest
            for key in keys:
                self.remove(key)

    def exists(self, key: str) -> bool:
        with _errors(f"{self.url}/{key}", "read"):
            if path := self._file(key):
                return path.is_file()
            try:
                obstore.head(self._store, key)
            except FileNotFoundError:
                return False
        return True

    def keys(self, prefix: str) -> list[str]:
        """All keys under a folder, sorted; under none, all there are."""
        if self.root is not None and not (self.root / prefix).is_dir():
            return []
        with _errors(f"{self.url}/{prefix}", "listed"):
            return sorted(entry["path"] for batch in obstore.list(self._store, prefix or None) for entry in batch)

    def size(self, key: str) -> int:
        """In bytes. Raises FileNotFoundError where there is no such key."""
        with _errors(f"{self.url}/{key}", "read"):
            return int(obstore.head(self._store, key)["size"])

    @contextlib.contextmanager
    def local_file(self, key: str) -> Iterator[Path]:
        """The key as a local file, for tools that need a path: the file itself, or a copy for as long as it is used."""
        if self.root is not None:
            yield self.root / key
            return
        with tempfile.TemporaryDirectory(dir=self.scratch()) as folder:
            path = Path(folder) / Path(key).name
            with _errors(f"{self.url}/{key}", "read"), path.open("wb") as file:
                file.writelines(pieces(self._store, key))
            yield path

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[IO[bytes]]:
        """The key as a file to read and to seek in: its pieces are fetched as they are asked for.

        Raises FileNotFoundError where there is no such key, and while it is read Failed where the store fails.
        """
        if self.root is not None:
            with (self.root / key).open("rb") as file:
                yield file
            return
        name = f"{self.url}/{key}"
        with _errors(name, "read"):
            reader = obstore.open_reader(self._store, key, buffer_size=_READ_AHEAD)
        yield io.BufferedReader(_Remote(reader, name), _READ_AHEAD)

    def scratch(self) -> Path:
        """A local folder for half-done work, emptied when a run begins. Of a store's dataset each process has its own,
        and the first look for one on a machine empties those of the dead: a run begins on another machine, and a worker
        that is killed leaves copies of whole videos.
        """
        folder = self._local(".scratch")
        return folder if self.root is not None else _of_this_process(folder)

    def partial(self) -> Path:
        """A local folder for downloads that broke off, which the next run resumes."""
        return self._local(".partial")

    def empty_partial(self) -> None:
        shutil.rmtree(self.partial(), ignore_errors=True)

    def drop_old_parts(self) -> None:
        """Of a store's dataset each machine has its own, and what broke off on one may be gone on with on another."""
        if self.root is not None:
            return
        for part in self.partial().iterdir():
            with contextlib.suppress(FileNotFoundError):  # it was ended, or dropped by another worker, meanwhile
                written = max(path.stat().st_mtime for path in (part, *part.rglob("*")))
                if time.time() - written > PARTS_DAYS * 86_400:
                    shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink()

    def total_bytes(self) -> int:
        """Of all keys."""
        with _errors(self.url, "listed"):
            return sum(entry["size"] for batch in obstore.list(self._store) for entry in batch)

    def originals_bytes(self) -> int:
        """Of the downloads that lie here on the local disk; in an object store they take none of it."""
        return _bytes_below(self.root / "originals") if self.root is not None else 0

    def partial_bytes(self) -> int:
        return _bytes_below(self.partial())

    def _local(self, name: str) -> Path:
        own = f"marathon-{os.getuid()}-{digest(self.url)[:12]}"  # another user could not write to the same one
        folder = (self.root or Path(tempfile.gettempdir()) / own) / name
        with _errors(str(folder), "written", _OF_DATASET if self.root else _OF_MACHINE):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def empty_scratch(self) -> None:
        shutil.rmtree(self.scratch(), ignore_errors=True)

    def remove_empty_folders(self) -> None:
        """Remove folders that hold nothing; an object store has no folders. Nobody else writes meanwhile."""
        for folder in sorted(self.root.rglob("*/"), reverse=True) if self.root is not None else ():
            with contextlib.suppress(OSError):
                folder.rmdir()

    def remove_torn(self) -> None:
        """Remove what a killed process left half written."""
        if self.root is None:
            return
        for folder in self.root.glob("[!.]*/"):
            for path in folder.rglob("*#*"):
                if path.is_file() and path.name.rpartition("#")[2].isdecimal():
                    path.unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    """Write it as `<name>#<number>`, as obstore does, and rename that."""
    half = path.with_name(f"{path.name}#{uuid.uuid4().int}")
    try:
        try:
            file = half.open("xb", buffering=0)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = half.open("xb", buffering=0)
        with file:
            file.write(data)
        half.replace(path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


_HELD: dict[Path, tuple[Path, IO[bytes]]] = {}  # scratch folders of this process, locked for as long as it lives
_HOLDING = threading.Lock()


def _of_this_process(folder: Path) -> Path:
    with _HOLDING, _errors(str(folder), "written", _OF_MACHINE):
        if folder not in _HELD:
            for left in folder.glob("*.lock"):
                with contextlib.suppress(BlockingIOError, FileNotFoundError), left.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(left.with_suffix(""), ignore_errors=True)
                    left.unlink(missing_ok=True)
            own = folder / uuid.uuid4().hex
            lock = own.with_suffix(".lock").open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX)
            _HELD[folder] = own, lock
        own = _HELD[folder][0]
        own.mkdir(exist_ok=True)
        return own


class _Remote(io.RawIOBase):
    """An object in a store as Python's files are; obstore's own reader gives out its own kind of bytes."""

    def __init__(self, reader: Any, name: str) -> None:
        self._reader, self._name = reader, name

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        with _errors(self._name, "read"):
            return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, buffer: Any) -> int:
        with _errors(self._name, "read"):
            data = bytes(self._reader.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it was moved or deleted meanwhile
            status = path.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


@contextlib.contextmanager
def _errors(key: str, done: str, mend: str = _OF_DATASET) -> Iterator[None]:
    """Lets FileNotFoundError through, unless something is written: then it means no key."""
    try:
        yield
    except (BaseError, OSError) as error:
        if any(code in str(error) for code in _NO_BUCKET):
            what = f"there is no bucket {key.split('/')[2]}: correct the URL, or create it"
            raise Failed("storage", f"{key}: {what}", transient=True) from None
        if isinstance(error, FileNotFoundError) and done != "written":
            raise
        full = "No space left" in str(error) or "os error 28" in str(error)
        read_only = "Read-only file system" in str(error) or "ermission denied" in str(error)
        why = f"it is read-only: {mend}" if read_only else _line(error)
        what = "the disk is full: free some space" if full else f"cannot be {done} ({why})"
        raise Failed("disk_full" if full else "storage", f"{key}: {what}", transient=True) from None


def _line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
