"""The files of one folder of a release while it is written: made locally, put into the dataset whole, and listed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from marathon_pipeline.dataset.parquet import arrow_schema
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.records import Record
from marathon_pipeline.release.release_file import FileInfo

_ROW_GROUP = 1_000  # rows held in memory, per open table


class Folder:
    """`files`: what has been put under `prefix`, by path within it. `scratch`: a local folder for what is half done."""

    def __init__(self, storage: Storage, prefix: str, scratch: Path) -> None:
        self.storage, self.prefix, self.scratch = storage, prefix, scratch
        self.files: dict[str, FileInfo] = {}

    def clear(self) -> None:
        """Remove what an earlier attempt left."""
        for key in self.storage.keys(self.prefix):
            self.storage.remove(key)

    def local(self, path: str) -> Path:
        return self.scratch / path.replace("/", "@")

    def put_file(self, path: str, rows: int) -> None:
        """Put what was written to `local(path)`, and remove it there."""
        local = self.local(path)
        with local.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.files[path] = FileInfo(sha256=sha256, bytes=local.stat().st_size, rows=rows)
        self.storage.write_file(f"{self.prefix}/{path}", local)
        local.unlink()

    def put(self, path: str, data: bytes) -> None:
        self.storage.write(f"{self.prefix}/{path}", data)
        self.files[path] = FileInfo(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), rows=0)

    def copy(self, path: str, key: str, info: FileInfo) -> None:
        """Put a copy of a file that the dataset holds under another key."""
        self.storage.copy(key, f"{self.prefix}/{path}")
        self.files[path] = info


def intact(storage: Storage, key: str, info: FileInfo) -> bool:
    """Whether a listed file is there in its full length."""
    try:
        return storage.size(key) == info.bytes
    except FileNotFoundError:
        return False


class Tar:
    """A WebDataset shard. The same samples give the same bytes. GNU format: USTAR refuses names of over 100 letters."""

    def __init__(self, folder: Folder, path: str) -> None:
        self._folder, self._path, self._rows = folder, path, 0
        self._file = folder.local(path).open("wb")
        from webdataset import TarWriter  # takes a second where torch is installed, and only releases need it

        self._tar = TarWriter(self._file, encoder=False, mtime=0, user="", group="", mode=0o644, format="GNU_FORMAT")

    def write(self, key: str, **fields: bytes) -> None:
        self._tar.write({"__key__": key, **fields})
        self._tar.tarstream.members = []  # tarfile keeps a header of all that it wrote, which grows with the dataset
        self._rows += 1

    def close(self) -> None:
        self._tar.close()
        self._file.close()
        self._folder.put_file(self._path, self._rows)


class Table:
    """A Parquet file that is written row by row; without a row there is no file."""

    def __init__(self, folder: Folder, path: str, record: type[Record]) -> None:
        self._folder, self._path, self._schema = folder, path, arrow_schema(record)
        self._writer: Any = None
        self._held: list[dict[str, object]] = []
        self._rows = 0

    def write(self, rows: Iterable[Record]) -> None:
        self._held += [row.model_dump() for row in rows]
        if len(self._held) >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._folder.put_file(self._path, self._rows)

    def _flush(self) -> None:
        if self._held and self._writer is None:
            self._writer = pq.ParquetWriter(self._folder.local(self._path), self._schema, compression="zstd")
        if self._held:
            self._writer.write_table(pa.Table.from_pylist(self._held, schema=self._schema))
            self._rows += len(self._held)
            self._held = []


class Batches:
    """A `Table` of rows that are columns already."""

    def __init__(self, folder: Folder, path: str) -> None:
        self._folder, self._path = folder, path
        self._writer: Any = None
        self._held: list[pa.RecordBatch] = []
        self._rows = 0

    def write(self, rows: pa.RecordBatch) -> None:
        self._held.append(rows)
        if sum(each.num_rows for each in self._held) >= _ROW_GROUP:
            self._flush(_ROW_GROUP)

    def close(self) -> None:
        self._flush(1)
        if self._writer is not None:
            self._writer.close()
            self._folder.put_file(self._path, self._rows)

    def _flush(self, least: int) -> None:
        """Write groups of rows as long as there are so many."""
        if not self._held:
            return
        table = pa.Table.from_batches(self._held).combine_chunks()
        while len(table) >= least:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._folder.local(self._path), table.schema, compression="zstd")
            self._writer.write_table(table.slice(0, _ROW_GROUP))
            self._rows += min(len(table), _ROW_GROUP)
            table = table.slice(_ROW_GROUP)
        self._held = table.to_batches()
