"""The tables of a dataset: one Parquet file per video and table, written whole, stamped with the outcomes behind it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from marathon_pipeline.dataset import parquet
from marathon_pipeline.dataset.storage import Storage
from marathon_pipeline.errors import Failed
from marathon_pipeline.records import Outcome, Record

R = TypeVar("R", bound=Record)
T = TypeVar("T")
_STAMP = "marathon.outcomes"


class Tables:
    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @staticmethod
    def key(record: type[Record], owner: str) -> str:
        """Where an owner's rows lie. The owner is a video, in `videos` a source."""
        return f"tables/{record.table}/{hashlib.sha256(owner.encode()).hexdigest()[:2]}/{owner}.parquet"

    def write(self, record: type[R], owner: str, rows: Iterable[R], stamp: Mapping[str, Outcome]) -> None:
        """stamp: the outcome of each part that is in the rows, so that the ledger can be rebuilt from the files."""
        self.storage.write(self.key(record, owner), parquet.encode(record, rows, _metadata_of(_dumped(stamp))))

    def write_tasks(
        self, record: type[R], owner: str, tasks: Iterable[str], rows: Iterable[R], stamp: Mapping[str, Outcome]
    ) -> None:
        """The same for the rows of some tasks; those of the others stay, with their stamps. Raises Failed
        `table_damaged`.
        """
        key, redone = self.key(record, owner), frozenset(tasks)

        def stamped(known: Mapping[str, str]) -> dict[str, str]:
            kept = {part: fields for part, fields in _fields(known).items() if part not in redone}
            return _metadata_of(kept | _dumped(stamp))

        try:
            data = self.storage.read(key)
        except FileNotFoundError:
            data = parquet.encode(record, ())
        try:
            self.storage.write(key, parquet.with_tasks(record, data, redone, rows, stamped))
        except parquet.Damaged as error:
            raise _damaged(key, error, owner) from None

    def read(self, record: type[R], owner: str) -> list[R]:
        """An owner's rows; none where there is no file. Raises Failed `table_damaged`."""
        try:
            return self.read_written(record, owner)
        except Failed as error:
            if error.reason != "table_missing":
                raise
            return []

    def read_written(self, record: type[R], owner: str) -> list[R]:
        """An owner's rows where the ledger says that they were written. Raises Failed, also `table_missing`."""
        return self._of_file(record, owner, partial(parquet.decode, record))

    def read_some(self, record: type[R], owner: str, column: str, values: Iterable[str]) -> list[R]:
        """Those of an owner's rows whose column has one of these values. Raises Failed, as `read_written`."""
        return self._of_file(record, owner, partial(parquet.decode_some, record, column=column, values=values))

    def read_left(self, record: type[R], owner: str, column: str, values: Iterable[str]) -> list[R]:
        """`read_some`, where a run or a purge may have taken the file away since. Raises Failed `table_damaged`."""
        try:
            return self.read_some(record, owner, column, values)
        except Failed as error:
            if error.reason != "table_missing":
                raise
            return []

    def columns(self, record: type[Record], owner: str, names: Sequence[str]) -> dict[str, pa.Array]:
        """Some columns of an owner's rows (`parquet.columns`). Raises Failed, as `read_written`."""
        return self._of_file(record, owner, partial(parquet.columns, record, names=names))

    def _of_file(self, record: type[Record], owner: str, decode: Callable[..., T]) -> T:
        key = self.key(record, owner)
        try:
            return decode(data=self.storage.read(key))
        except FileNotFoundError:
            raise Failed("table_missing", f"{key} is missing: run the job again with --force --video {owner}") from None
        except parquet.Damaged as error:
            raise _damaged(key, error, owner) from None

    def stamp(self, record: type[Record], owner: str, parts: Iterable[str]) -> dict[str, Outcome]:
        """The outcomes of some parts that an owner's file was written with; none where there is no readable file."""
        try:
            known = _fields(parquet.metadata_of(self.storage.read(self.key(record, owner))))
            return {part: Outcome.model_validate(known[part]) for part in parts if part in known}
        except (FileNotFoundError, parquet.Damaged):
            return {}

    def remove(self, record: type[Record], owner: str) -> None:
        self.storage.remove(self.key(record, owner))

    def stamps(self, record: type[Record]) -> Iterator[Outcome]:
        """Every outcome that the files of a table were written with."""
        for key in self.storage.keys(f"tables/{record.table}"):
            try:
                known = _fields(parquet.metadata_of(self.storage.read(key)))
                yield from map(Outcome.model_validate, known.values())
            except parquet.Damaged:
                continue  # a damaged file counts as not written: its stage runs again


def _damaged(key: str, error: Exception, owner: str) -> Failed:
    return Failed("table_damaged", f"{key} is damaged ({error}): run the job again with --force --video {owner}")


def _dumped(stamp: Mapping[str, Outcome]) -> dict[str, Any]:
    return {part: outcome.model_dump(exclude_defaults=True) for part, outcome in stamp.items()}


def _metadata_of(stamp: Mapping[str, Any]) -> dict[str, str]:
    return {_STAMP: json.dumps(dict(sorted(stamp.items())))}


def _fields(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What `_metadata_of` was given."""
    found: dict[str, Any] = json.loads(metadata.get(_STAMP, "{}"))
    return found
