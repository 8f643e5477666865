"""What PostgreSQL is asked: SQL from the settings and the columns as the server has them. Pure.

Identifiers are quoted by psycopg, values are always bound; only an `expression` of the settings is taken as it stands.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backends import filters
from backends.base import BackendError, Filter, Query, Range
from backends.postgres_columns import Column, Shape, identity, literal, numbers, quoted, texts
from backends.schema import FieldType

if TYPE_CHECKING:
    from backends.postgres_settings import PostgresSettings, VectorSearch, WordSearch

Bound = dict[str, Any]

_QUERY_CHARS = 4096
_MOST_ROWS = 2**31
_VECTORS = {"vector": "vector", "halfvec": "halfvec"}
_METRICS = {
    "cosine": ("<=>", "1 - ({distance})"),
    "l2": ("<->", "1 / (1 + ({distance}))"),
    "inner_product": ("<#>", "-({distance})"),
}
_TSQUERY = {
    "any": "replace(plainto_tsquery({language}, %(text)s)::text, ' & ', ' | ')::tsquery",
    "all": "plainto_tsquery({language}, %(text)s)",
    "web": "websearch_to_tsquery({language}, %(text)s)",
}
_STATE = """
SELECT c.oid::bigint, c.relkind::text, current_setting('server_version'), current_setting('track_counts') = 'on',
  (SELECT extversion FROM pg_extension WHERE extname = 'vector'), {state}, {fresh},
  (SELECT string_agg(concat_ws(' ', attname, atttypid, atttypmod), ',' ORDER BY attnum) FROM pg_attribute
   WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
FROM pg_class c WHERE c.oid = to_regclass(%(table)s)
"""
_WAL = "(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END)::text"
_WRITES = """
CASE WHEN pg_is_in_recovery() THEN {wal} ELSE (
  SELECT concat_ws(' ', pg_postmaster_start_time(),
    string_agg(concat_ws(' ', p.oid, p.relfilenode), ' ' ORDER BY p.oid),
    sum(pg_stat_get_tuples_inserted(p.oid) + pg_stat_get_tuples_updated(p.oid) + pg_stat_get_tuples_deleted(p.oid)))
  FROM pg_class p WHERE p.oid = c.oid OR p.oid IN (SELECT relid FROM pg_partition_tree(c.oid))
) END
"""
_LATEST = "(SELECT max({column}) FROM {table})"
_BEST = "SELECT {shown} FROM {source} WHERE {where} ORDER BY {order}, {id} LIMIT %(limit)s"
# Ties are broken outside: an order by more than the distance is one that no index of vectors has.
_NEAREST = """
SELECT * FROM (
  SELECT {shown}, {order} AS mixer_distance, {id} AS mixer_id FROM {source} WHERE {where}
  ORDER BY {order} FETCH FIRST (%(limit)s) ROWS WITH TIES
) AS mixer_nearest ORDER BY mixer_distance, mixer_id LIMIT %(limit)s
"""
_COUNTED = {"r", "p", "m"}


@dataclass(frozen=True, slots=True)
class State:
    """What the server says of the table now."""

    oid: int
    kind: str
    server: str
    counts_writes: bool
    pgvector: str | None
    content: str | None
    """Differs whenever the rows may."""
    fresh_at_s: float | None
    columns: str | None
    """Differs whenever a column comes, goes or becomes of another type."""


def named(table: str) -> str:
    """`schema.table` or `table`, quoted."""
    return quoted(*table.split(".", 1))


def state_query(settings: PostgresSettings) -> str:
    """One row of `State`, none where there is no such table; bind `table`."""
    column = settings.updated_at and quoted(settings.updated_at)
    latest = _LATEST.format(column=column, table=named(settings.table)) if column else "NULL"
    state = {"writes": _WRITES.format(wal=_WAL), "wal": _WAL, "updated_at": f"{latest}::text"}[
        settings.version
    ]
    fresh = f"extract(epoch FROM {latest})::float8" if column else "NULL::float8"
    return _STATE.format(state=state, fresh=fresh)


def state_fault(settings: PostgresSettings, state: State) -> str | None:
    """Why the table's version cannot be told as the settings want it."""
    if settings.version == "writes" and state.kind not in _COUNTED:
        return f"{settings.table} is no table: nobody counts its writes; set `version` to wal or updated_at"
    if settings.version == "writes" and not state.counts_writes:
        return "the server counts no writes (track_counts is off); set `version` to wal or updated_at"
    return None


class Statements:
    """The searches of one table whose columns are known."""

    def __init__(self, settings: PostgresSettings, columns: Mapping[str, Column], dimensions: int) -> None:
        """`dimensions` is the length of a query's vector.

        Raises: BackendError naming a column that is missing or of a wrong type.
        """
        self._settings = settings
        self._columns = columns
        self._table = named(settings.table)
        self._id = quoted(settings.id)
        self._shapes = {
            name: self._shape(name, field.type, field.column or name)
            for name, field in settings.fields.items()
        }
        self._shapes["id"] = identity(self._id, self._column(settings.id, "id"))
        if settings.updated_at and self._column(settings.updated_at, "updated_at").category != "D":
            raise BackendError(f"column {settings.updated_at} (updated_at) holds no times")
        search = settings.search
        self._parts = self._words(search) if search.mode == "words" else self._vectors(search, dimensions)
        types = {name: columns[field.column or name].type for name, field in settings.fields.items()}
        self.digest = hashlib.sha256(
            f"{settings.declared.digest} {sorted(types.items())}".encode()
        ).hexdigest()[:16]

    def search(self, query: Query, vector: str) -> tuple[bytes, Bound, list[str]]:
        """SQL, its values, and the fields that follow id and score in each row."""
        fields = [name for name in self._settings.fields if name in query.fields]
        conditions, bound = self._conditions(query.filters)
        template, score, source, condition, order = self._parts
        shown = ", ".join([self._shapes["id"].shown, score, *(self._shapes[name].shown for name in fields)])
        where = " AND ".join([condition, *conditions])
        text = template.format(shown=shown, source=source, where=where, order=order, id=self._id)
        asked = {"text": query.text[:_QUERY_CHARS].replace("\0", " "), "vector": vector}
        return text.encode(), bound | asked | {"limit": min(query.limit, _MOST_ROWS)}, fields

    def _words(self, search: WordSearch) -> tuple[str, str, str, str, str]:
        tsvector = search.expression.replace("%", "%%")
        if search.column:
            self._column(search.column, "search.column", "tsvector")
            tsvector = quoted(search.column)
        asked = _TSQUERY[search.match].format(language=f"{literal(search.language)}::regconfig")
        weights = ", ".join(str(getattr(search.weights, letter)) for letter in ("D", "C", "B", "A"))
        score = f"ts_rank_cd('{{{weights}}}', {tsvector}, mixer_asked, {search.normalization})::float8"
        source = f"{self._table}, (SELECT {asked} AS mixer_asked) AS mixer_query"
        return _BEST, score, source, f"{tsvector} @@ mixer_asked", "2 DESC"

    def _vectors(self, search: VectorSearch, dimensions: int) -> tuple[str, str, str, str, str]:
        column = self._column(search.column, "search.column", *_VECTORS)
        if column.type not in (column.element, f"{column.element}({dimensions})"):
            raise BackendError(
                f"column {search.column} is a {column.type}, but the embedder's vectors have {dimensions} numbers"
            )
        operator, score = _METRICS[search.metric]
        distance = f"{quoted(search.column)} {operator} %(vector)s::{_VECTORS[column.element]}"
        held = f"{quoted(search.column)} IS NOT NULL"
        return _NEAREST, score.format(distance=distance), self._table, held, distance

    def _column(self, name: str, setting: str, *types: str) -> Column:
        found = self._columns.get(name)
        if found is None:
            raise BackendError(f"table {self._settings.table} has no column {name} ({setting})")
        if types and found.element not in types:
            raise BackendError(f"column {name} ({setting}) is of type {found.type}, not {' or '.join(types)}")
        return found

    def _shape(self, name: str, wanted: FieldType, column: str) -> Shape:
        found = self._column(column, f"fields.{name}")
        if wanted != "number":
            return texts(quoted(column), found)
        shape = None if found.is_array else numbers(quoted(column), found)
        if shape is None:
            raise BackendError(f"column {column} (fields.{name}) is of type {found.type}, which is no number")
        return shape

    def _conditions(self, asked: Sequence[Filter]) -> tuple[list[str], Bound]:
        clauses, bound = [], Bound()
        for i, item in enumerate(asked):
            shape = self._shapes[item.field]
            if isinstance(item.condition, Range):
                low, high = item.condition.min, item.condition.max
                ends = shape.ends(-math.inf if low is None else low, math.inf if high is None else high)
                bound |= {f"low{i}": ends[0], f"high{i}": ends[1]}
                clauses.append(shape.between.format(low=f"%(low{i})s", high=f"%(high{i})s"))
            else:
                bound[f"values{i}"] = shape.values(filters.values_of(item.condition))
                clauses.append(shape.among.format(values=f"%(values{i})s"))
        return clauses, bound
