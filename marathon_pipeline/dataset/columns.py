"""Python values as Arrow columns and back, a column at a time: by the value pyarrow takes ten times as long."""

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Any

import numpy as np
import pyarrow as pa


def column(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """None of the values is missing; a dict is a struct or a map, by the kind."""
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_map(kind):
        entries = list(chain.from_iterable(value.items() for value in values))
        keys = column(kind.key_type, [key for key, _ in entries])
        items = column(kind.item_type, [item for _, item in entries])
        return pa.MapArray.from_arrays(_offsets(values), keys, items)
    if pa.types.is_list(kind):
        own = column(kind.value_type, list(chain.from_iterable(values)))
        return pa.ListArray.from_arrays(_offsets(values), own, type=kind)
    if pa.types.is_struct(kind):
        fields = [column(field.type, [value[field.name] for value in values]) for field in kind]
        return pa.StructArray.from_arrays(fields, fields=list(kind))
    return pa.array(values, kind)


def values(array: pa.Array) -> list[Any]:
    """What `column` was given; of a list a list. None of the values is missing."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        words = array.dictionary.to_pylist()
        return [words[index] for index in array.indices.to_numpy(zero_copy_only=False).tolist()]
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        offsets = array.offsets.to_numpy()
        own = slice(offsets[0], offsets[-1])
        spans = [slice(*span) for span in pairwise((offsets - offsets[0]).tolist())]
        if pa.types.is_list(kind):
            of_all = values(array.values[own])
            return [of_all[span] for span in spans]
        entries = list(zip(values(array.keys[own]), values(array.items[own]), strict=True))
        return [dict(entries[span]) for span in spans]
    if pa.types.is_struct(kind):
        names = [field.name for field in kind]
        return [dict(zip(names, row, strict=True)) for row in zip(*map(values, array.flatten()), strict=True)]
    return list(array.to_numpy(zero_copy_only=False).tolist())


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


def _offsets(values: Sequence[Any]) -> pa.Array:
    return pa.array(accumulate(map(len, values), initial=0), pa.int32())
