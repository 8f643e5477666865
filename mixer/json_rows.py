"""Rows of a record batch as JSON objects, for receivers that know no columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pyarrow as pa

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z


def json_rows(rows: pa.RecordBatch) -> Iterator[bytes]:
    """A JSON object a row: every double to the bit, null for what is missing, maps as objects, times as RFC 3339."""
    columns = {name: _values(column) for name, column in zip(rows.schema.names, rows.columns, strict=True)}
    for place in range(rows.num_rows):
        yield orjson.dumps({name: values[place] for name, values in columns.items()}, option=_OPTIONS)


def _values(column: pa.Array) -> list[Any]:
    if pa.types.is_map(column.type):
        return [dict(pairs) for pairs in column.to_pylist()]
    if pa.types.is_list(column.type) and _is_number(column.type.value_type):
        return [held.values.to_numpy(zero_copy_only=False) for held in column]
    if pa.types.is_list(column.type) and pa.types.is_list(column.type.value_type):
        return [_matrix(held.values) for held in column]
    values: list[Any] = column.to_pylist()
    return values


def _matrix(lists: pa.Array) -> Any:
    """Lists of numbers, all of one length, as numpy's: no object a value."""
    lengths = lists.value_lengths().unique()
    if not _is_number(lists.type.value_type) or len(lengths) != 1:
        return lists.to_pylist()
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
