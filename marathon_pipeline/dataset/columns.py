"""Python values as Arrow columns and back, where pyarrow itself takes ten times as long: words and maps."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa


def column(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """None of the values is missing; those of a map are dicts."""
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_map(kind):
        return pa.array([list(value.items()) for value in values], kind)
    return pa.array(values, kind)


def values(array: pa.Array) -> list[Any]:
    """What `column` was given; of a tuple a list."""
    if pa.types.is_dictionary(array.type):
        words = array.dictionary.to_pylist()
        return [words[index] for index in array.indices.to_pylist()]
    if pa.types.is_map(array.type):
        offsets = array.offsets.to_numpy()
        own = slice(offsets[0], offsets[-1])
        entries = list(zip(array.keys[own].to_pylist(), array.items[own].to_pylist(), strict=True))
        return [dict(entries[start:stop]) for start, stop in pairwise((offsets - offsets[0]).tolist())]
    return list(array.to_pylist())


def exploded(table: pa.Table, name: str) -> pa.Table:
    """A row for each element of a column of structs in lists, or of maps (`key`, `value`), instead of that column."""
    array = table[name].combine_chunks()
    offsets = array.offsets.to_numpy()
    own = slice(offsets[0], offsets[-1])
    if pa.types.is_map(array.type):
        parts = {"key": array.keys[own], "value": array.items[own]}
    else:
        fields = array.values[own]
        parts = {field.name: fields.field(field.name) for field in fields.type}
    rows = table.drop_columns([name]).take(pa.array(np.repeat(np.arange(len(array)), np.diff(offsets))))
    return pa.table({**{each: rows[each] for each in rows.column_names}, **parts})
