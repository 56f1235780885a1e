"""Records as Parquet: the Arrow schema of a record class, and rows to bytes and back."""

import contextlib
import io
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from marathon_pipeline.records import Record

R = TypeVar("R", bound=Record)
_ROWS_AT_ONCE = 256  # as dicts, which take ten times the memory of a table
# A file is of one video, a few dozen rows: with zstd, dictionaries and statistics it takes three times as long to be
# written and to be read, and as much room.
_PLAIN: Mapping[str, Any] = {
    "compression": "lz4",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}
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
    if origin is dict:
        return pa.map_(_arrow_type(arguments[0]), _arrow_type(arguments[1]))
    if origin in (Union, types.UnionType):
        return _arrow_type(next(argument for argument in arguments if argument is not type(None)))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct([(name, _arrow_type(field.annotation)) for name, field in annotation.model_fields.items()])
    raise TypeError(f"no Arrow type for {annotation}")


def encode(record: type[R], rows: Iterable[R], metadata: Mapping[str, str] | None = None) -> bytes:
    """One Parquet file of rows; the same rows and metadata give the same bytes."""
    return bytes_of(_table(record, rows), metadata)


def with_tasks(
    record: type[R],
    data: bytes,
    tasks: Iterable[str],
    rows: Iterable[R],
    metadata: Callable[[Mapping[str, str]], Mapping[str, str]],
) -> bytes:
    """The file again with these rows in the place of those of some tasks, in the order of the tasks.

    The rows that stay are copied as they are: a video has a hundred, and one task's are a few. `metadata`: the new
    file's, from that of this one. Raises Damaged.
    """
    with damage():
        kept = _read(data)
        known = _texts(kept.schema.metadata)
    schema = arrow_schema(record)
    current = kept.schema.equals(schema)  # else it was written before a column came
    kept = kept.cast(schema) if current else _table(record, decode(record, data))
    kept = kept.filter(pc.invert(pc.is_in(kept["task"], pa.array(tasks, pa.string()))))
    table = pa.concat_tables([kept, _table(record, rows)])
    return bytes_of(table.take(pc.sort_indices(table, [("task", "ascending")])), metadata(known))


def _table(record: type[R], rows: Iterable[R]) -> pa.Table:
    schema, rest = arrow_schema(record), iter(rows)
    parts = iter(lambda: [row.model_dump() for row in islice(rest, _ROWS_AT_ONCE)], [])
    return pa.Table.from_batches((pa.RecordBatch.from_pylist(part, schema=schema) for part in parts), schema)


def bytes_of(table: pa.Table, metadata: Mapping[str, str] | None) -> bytes:
    """The file of rows that are a table already."""
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(dict(metadata or {})).combine_chunks(), buffer, **_PLAIN)
    return buffer.getvalue()


def _read(data: bytes) -> pa.Table:
    # Without its threads: they may drop the last hold on a Python buffer while the process exits, which aborts it.
    return _opened(data).read(use_threads=False)


def _opened(data: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, page_checksum_verification=True)


class Damaged(Exception):
    """Bytes that are no whole Parquet file of these rows."""


def decode(record: type[R], data: bytes) -> list[R]:
    """Raises Damaged."""
    with damage():
        return [record.model_validate(row) for row in _read(data).to_pylist()]


def decode_some(record: type[R], data: bytes, column: str, values: Iterable[str]) -> list[R]:
    """The rows whose column has one of these values. Raises Damaged."""
    with damage():
        table = _read(data)
        some = table.filter(pc.is_in(table[column], pa.array(values, pa.string())))
        return [record.model_validate(row) for row in some.to_pylist()]


def columns(record: type[Record], data: bytes, names: Sequence[str]) -> dict[str, pa.Array]:
    """Some columns, in a fraction of the time that their records take. `binding.annotator`: of a field its own field.

    What was written before a column came has its default. Raises Damaged, where a value is none of its type too.
    """
    with damage():
        file = _opened(data)
        known = set(file.schema_arrow.names)
        there = [name for name in names if name.partition(".")[0] in known]
        table = file.read(there, use_threads=False).combine_chunks()
        found = (
            dict(zip(table.schema.names, *[batch.columns for batch in table.to_batches()], strict=True))
            if len(table)
            else {}
        )
        return {name: _column(record, found, name, len(table)) for name in names}


def _column(record: type[Record], found: Mapping[str, pa.Array], name: str, rows: int) -> pa.Array:
    own, _, part = name.partition(".")
    known = _known(record, own, part)
    if not rows:
        return pa.array([], known.kind)
    if own not in found:
        if known.required:
            raise ValueError(f"it has no column {own}")
        return pa.array([known.default] * rows, known.kind)
    values = pc.struct_field(found[own], part) if part else found[own]
    if values.null_count and not known.optional:
        raise ValueError(f"{name} has no value in some rows")
    return values if values.type == known.kind else values.cast(known.kind)


class _Known(NamedTuple):
    kind: pa.DataType
    required: bool
    default: Any
    optional: bool


@cache
def _known(record: type[Record], own: str, part: str) -> _Known:
    """What the record says of a column, or of a part of it."""
    kind, field = arrow_schema(record).field(own).type, record.model_fields[own]
    optional = type(None) in get_args(field.annotation)
    return _Known(kind.field(part).type if part else kind, field.is_required(), field.default, optional)


def metadata_of(data: bytes) -> dict[str, str]:
    """Raises Damaged."""
    with damage():
        return _texts(pq.read_metadata(pa.BufferReader(data)).metadata)


def _texts(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}


@contextlib.contextmanager
def damage() -> Iterator[None]:
    try:
        yield
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:  # Arrow raises OSError for a page that does not unpack
        raise Damaged(str(error).strip().partition("\n")[0][:200]) from None
