"""Records as Parquet: the Arrow schema of a record class, and rows to bytes and back."""

import contextlib
import io
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from marathon_pipeline.records import Record

R = TypeVar("R", bound=Record)
_ROWS_AT_ONCE = 256  # as dicts, which take ten times the memory of a table
_PRIMITIVES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


@cache
def arrow_schema(record: type[Record]) -> pa.Schema:
    return pa.schema([(name, _arrow_type(field.annotation)) for name, field in record.model_fields.items()])


def _arrow_type(annotation: Any) -> pa.DataType:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in _PRIMITIVES:
        return _PRIMITIVES[annotation]
    if origin is Literal:
        return pa.string()
    if origin is tuple:
        return pa.list_(_arrow_type(arguments[0]))
    if origin in (Union, types.UnionType):
        return _arrow_type(next(argument for argument in arguments if argument is not type(None)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct([(name, _arrow_type(field.annotation)) for name, field in annotation.model_fields.items()])
    raise TypeError(f"no Arrow type for {annotation}")


def encode(record: type[R], rows: Iterable[R], metadata: Mapping[str, str] | None = None) -> bytes:
    """One Parquet file of rows; the same rows and metadata give the same bytes."""
    schema = arrow_schema(record).with_metadata(dict(metadata or {}))
    rest = iter(rows)
    parts = iter(lambda: [row.model_dump() for row in islice(rest, _ROWS_AT_ONCE)], [])
    table = pa.Table.from_batches((pa.RecordBatch.from_pylist(part, schema=schema) for part in parts), schema)
    table = table.combine_chunks()
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


class Damaged(Exception):
    """Bytes that are no whole Parquet file of these rows."""


def decode(record: type[R], data: bytes) -> list[R]:
    """Raises Damaged."""
    with _damage():
        # Without its threads: they may drop the last hold on a Python buffer while the process exits, which aborts it.
        table = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False).read(use_threads=False)
        return [record.model_validate(row) for row in table.to_pylist()]


def metadata_of(data: bytes) -> dict[str, str]:
    """Raises Damaged."""
    with _damage():
        found = pq.read_schema(pa.BufferReader(data)).metadata or {}
        return {key.decode(): value.decode() for key, value in found.items()}


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # Arrow raises OSError for a page that does not unpack
        raise Damaged(str(error).strip().partition("\n")[0][:200]) from None
