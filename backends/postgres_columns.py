"""How columns of PostgreSQL are read and compared, by their types. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

_LEAST_WHOLE, _MOST_WHOLE = -(2**63), 2**63 - 1
_WHOLE = {"smallint", "integer", "bigint"}
_REAL = {"real", "double precision"}
COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), coalesce(e.typcategory, t.typcategory)::text,
  t.typcategory = 'A', format_type(coalesce(e.oid, t.oid), NULL)
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
WHERE a.attrelid = to_regclass(%(table)s) AND a.attnum > 0 AND NOT a.attisdropped
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the server has it."""

    type: str
    """As SQL writes it, with its length: `vector(384)`, `text[]`."""
    category: str
    """`pg_type.typcategory` of the type, or of an array's elements."""
    is_array: bool
    element: str
    """The type without its length; of an array, that of its elements."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a field is read and compared."""

    shown: str
    among: str
    """Condition with one parameter, `{values}`."""
    between: str = ""
    """Condition with two, `{low}` and `{high}`."""
    values: Callable[[Iterable[str | float]], list[Any]] = list
    ends: Callable[[float, float], tuple[Any, Any]] = lambda low, high: (low, high)


def quoted(*names: str) -> str:
    """An identifier, ready to stand in SQL with parameters."""
    from psycopg import sql

    return sql.Identifier(*names).as_string().replace("%", "%%")


def literal(text: str) -> str:
    """A text of the settings, likewise."""
    from psycopg import sql

    return sql.Literal(text).as_string().replace("%", "%%")


def texts(column: str, found: Column) -> Shape:
    """Of a text or keyword; a list of them is an array."""
    # The casts are no-ops on text and varchar, so their indexes serve.
    if found.is_array:
        shown = f"coalesce(array_to_string({column}::text[], ', '), '')"
        return Shape(shown, f"{_braced(column)}::text[] && {{values}}::text[]", values=_storable)
    among = f"{_braced(column)}::text = ANY({{values}}::text[])"
    return Shape(f"coalesce({column}::text, '')", among, values=_storable)


def numbers(column: str, found: Column) -> Shape | None:
    """Compared in the column's own type, so that its index serves; a time is its seconds since 1970."""
    kept = _braced(column)
    if found.element in _WHOLE:
        return Shape(f"{column}::float8", *_compared(kept, "bigint"), _whole, _whole_ends)
    if found.element in _REAL:
        return Shape(f"{column}::float8", *_compared(kept, "float8"), _finite)
    if found.element == "numeric":
        return Shape(f"{column}::float8", *_compared(kept, "numeric"), _decimals, _decimal_ends)
    if found.category == "D":
        epoch = f"extract(epoch FROM {column})::float8"
        return Shape(epoch, *_compared(_braced(epoch), "float8"), _finite)
    return None


def identity(column: str, found: Column) -> Shape:
    """Of the id, compared so that its index serves."""
    shown, kept = f"{column}::text", _braced(column)
    if found.element in _WHOLE:
        return Shape(shown, f"{kept} = ANY({{values}}::bigint[])", values=_whole_texts)
    if found.element == "uuid":
        return Shape(shown, f"{kept} = ANY({{values}}::uuid[])", values=_uuid_texts)
    return Shape(shown, f"{kept}::text = ANY({{values}}::text[])", values=_storable)


def _compared(column: str, as_type: str) -> tuple[str, str]:
    ends = f"{{low}}::{as_type} AND {{high}}::{as_type}"
    return f"{column} = ANY({{values}}::{as_type}[])", f"{column} BETWEEN {ends}"


def _braced(sql: str) -> str:
    """SQL that `str.format` gives back as it is."""
    return sql.replace("{", "{{").replace("}", "}}")


def _storable(values: Iterable[Any]) -> list[str]:
    """An empty text is a missing one, and no text holds NUL."""
    return [value for value in values if value and "\0" not in value]


def _finite(values: Iterable[Any]) -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]


def _whole(values: Iterable[Any]) -> list[int]:
    whole = [int(value) for value in values if math.isfinite(value) and value == int(value)]
    return [value for value in whole if _LEAST_WHOLE <= value <= _MOST_WHOLE]


def _whole_ends(low: float, high: float) -> tuple[int, int]:
    if low > _MOST_WHOLE or high < _LEAST_WHOLE:
        return 1, 0
    return math.ceil(max(low, _LEAST_WHOLE)), math.floor(min(high, _MOST_WHOLE))


def _decimals(values: Iterable[Any]) -> list[Decimal]:
    return [Decimal(repr(value)) for value in values if math.isfinite(value)]


def _decimal_ends(low: float, high: float) -> tuple[Decimal, Decimal]:
    return Decimal(repr(low)), Decimal(repr(high))


def _whole_texts(values: Iterable[Any]) -> list[int]:
    """Only the one spelling that the server shows: 007 is another id than 7."""
    short = [value for value in values if len(value) <= len(str(_LEAST_WHOLE))]
    whole = [
        int(value) for value in short if value.removeprefix("-").isdecimal() and str(int(value)) == value
    ]
    return [value for value in whole if _LEAST_WHOLE <= value <= _MOST_WHOLE]


def _uuid_texts(values: Iterable[Any]) -> list[UUID]:
    return [found for value in values if (found := _uuid(value)) is not None and str(found) == value]


def _uuid(value: str) -> UUID | None:
    try:
        return UUID(value)
    except ValueError:
        return None
