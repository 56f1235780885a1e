"""A ledger's outcomes by the column: a million of them are opened, counted and looked up in seconds.

A Parquet file, a row an outcome, those of one video beside each other; `number` tells which is the newer. DuckDB reads
it as it lies.
"""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from marathon_pipeline.dataset.columns import column, values
from marathon_pipeline.dataset.parquet import Damaged, arrow_schema, damage
from marathon_pipeline.errors import UserError
from marathon_pipeline.records import Outcome, Usage

Fields = Mapping[str, Any]  # of an outcome, all of them
NUMBER = "number"
_WORDS = ("video_id", "stage", "part", "status", "reason", "judge")  # each stands there many times
_ROWS = 2**17  # to a row group
_WORD = pa.dictionary(pa.int32(), pa.string())


def _kinds() -> dict[str, pa.DataType]:
    own = {field.name: _WORD if field.name in _WORDS else field.type for field in arrow_schema(Outcome)}
    return own | {NUMBER: pa.int64()}


KINDS = _kinds()


def _defaults(record: type[BaseModel]) -> Fields:
    return {name: field.default for name, field in record.model_fields.items() if not field.is_required()}


_OF_OUTCOME, _OF_USAGE = _defaults(Outcome), _defaults(Usage)


def whole(fields: Fields) -> Fields:
    """The fields of an outcome with those that have their default, which lines leave out."""
    usage = tuple({**_OF_USAGE, **each} for each in fields.get("usage", ()))
    return {**_OF_OUTCOME, **fields, "usage": usage}


def table_of(rows: Sequence[Fields], names: Sequence[str]) -> pa.Table:
    """Some columns of whole rows."""
    return pa.table({name: column(KINDS[name], [row[name] for row in rows]) for name in names})


def encode(tables: Sequence[pa.Table]) -> bytes:
    """The file of tables of all columns, by owner; their rows are numbered anew, without a gap."""
    table = pa.concat_tables(tables).unify_dictionaries()
    ranks = np.argsort(np.argsort(table[NUMBER].to_numpy()))
    table = table.set_column(table.column_names.index(NUMBER), NUMBER, pa.array(ranks))
    order = np.argsort(np.concatenate([part.indices.to_numpy() for part in table["video_id"].chunks]), kind="stable")
    buffer = io.BytesIO()
    plain = pa.schema([field.with_type(pa.string()) if field.type == _WORD else field for field in table.schema])
    with pq.ParquetWriter(buffer, plain, compression="zstd", write_page_checksum=True) as file:
        for first in range(0, len(order), _ROWS):  # of the whole a copy takes hundreds of megabytes
            file.write_table(table.take(pa.array(order[first : first + _ROWS])).cast(plain))  # words that none has go
    return buffer.getvalue()


class Snapshot:
    """Decodes a column when it is first asked for. `name`: for a person. Raises UserError where it is damaged."""

    def __init__(self, data: bytes, name: str) -> None:
        self._columns: dict[str, pa.Array] = {}
        self._name = name
        with self._damage():
            self._file = pq.ParquetFile(
                pa.BufferReader(data),
                pre_buffer=False,
                page_checksum_verification=True,
                read_dictionary=list(_WORDS),
            )

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def column(self, name: str) -> pa.Array:
        if name not in self._columns:
            with self._damage():
                found = self._file.read([name], use_threads=False).unify_dictionaries()
                self._columns[name] = (
                    found[name].cast(KINDS[name]).combine_chunks()
                    if name in found.column_names  # else it was written before the field came
                    else column(KINDS[name], [_OF_OUTCOME[name]] * len(self))
                )
        return self._columns[name]

    @cached_property
    def places(self) -> dict[str, slice]:
        """Where the rows of each owner stand."""
        owners = self.column("video_id")
        codes, names = owners.indices.to_numpy(), owners.dictionary.to_pylist()
        edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)] if len(codes) else []
        return {names[codes[start]]: slice(start, stop) for start, stop in pairwise(edges)}

    def of(self, owner: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Some fields of each of an owner's outcomes."""
        place = self.places.get(owner)
        if place is not None:
            yield from zip(*(values(self.column(name)[place]) for name in names), strict=True)

    def row(self, owner: str, stage: str, part: str) -> Fields | None:
        """All fields of one outcome."""
        start = self.places[owner].start if owner in self.places else 0
        for index, key in enumerate(self.of(owner, ("stage", "part")), start):
            if key == (stage, part):
                return {name: values(self.column(name)[index : index + 1])[0] for name in KINDS}
        return None

    def table(self, names: Sequence[str]) -> pa.Table:
        return pa.table({name: self.column(name) for name in names})

    @contextlib.contextmanager
    def _damage(self) -> Iterator[None]:
        try:
            with damage():
                yield
        except Damaged as error:
            mend = "remove it and run the job again: what it said is read back from the tables"
            raise UserError(f"{self._name} is damaged ({error}); {mend}") from None
