"""Joins the event log to the feature log: which document of which search was seen, clicked, bought.

An event belongs to the search of its query id that was served before it and shows its document; where there are
several (pages of one list), to the one whose page holds the document, then to the latest. It counts where the server
took it within a fixed window after that, so that the join gives the same whenever it is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import duckdb
import numpy as np
import pyarrow as pa

from mixer.far_folder import system_of
from mixer.values import IntColumn

WINDOW_S = 3600.0
OUTCOMES = ("joined", "duplicate", "late", "unknown", "not_listed")
"""What becomes of an event: it counts; its id was there before; its search was too long ago; the log holds no search
of its query id before it; that search did not rank its document."""
_CLOCKS_APART_S = 5.0
"""By how much the server that took an event may be behind the one that served its search."""
_BATCH_ROWS = 500

_TOLD = """
CREATE TEMP TABLE told AS
WITH once AS (
    SELECT *, row_number() OVER (PARTITION BY event_id ORDER BY time, filename, file_row_number) AS nth FROM events
), paired AS (
    SELECT once.*, log.filename AS file, log.file_row_number AS row, log.time AS served,
        list_position(log.ids, once.id) AS place,
        coalesce(place > log.page_offset AND place <= log.page_offset + log.page_size, false) AS shown
    FROM once LEFT JOIN log
        ON log.query_id = once.query_id AND log.time <= once.time + to_microseconds($apart_us)
), best AS (
    SELECT * FROM paired QUALIFY 1 = row_number() OVER (
        PARTITION BY event_id, nth ORDER BY place IS NULL, shown DESC, served DESC, file, row)
)
SELECT file, row, kind, place, if(position > 0, position, place) AS position, value,
    CASE WHEN nth > 1 THEN 'duplicate'
        WHEN served IS NULL THEN 'unknown'
        WHEN time > served + to_microseconds($window_us) THEN 'late'
        WHEN place IS NULL THEN 'not_listed'
        ELSE 'joined' END AS outcome
FROM best
"""
_BY_SEARCH = """
CREATE TEMP TABLE by_search AS
WITH by_place AS (
    SELECT file, row, kind, place, min(position) AS position, sum(value) AS value
    FROM told WHERE outcome = 'joined' GROUP BY ALL
)
SELECT file, row,
    list(place - 1 ORDER BY place) FILTER (kind = 'impression') AS seen,
    list(position ORDER BY place) FILTER (kind = 'impression') AS seen_at,
    list(place - 1 ORDER BY place) FILTER (kind = 'click') AS clicked,
    list(position ORDER BY place) FILTER (kind = 'click') AS clicked_at,
    list(place - 1 ORDER BY place) FILTER (kind = 'conversion') AS converted,
    sum(value) FILTER (kind = 'conversion') AS value
FROM by_place GROUP BY ALL
"""
_SEARCHES = """
SELECT {columns}, seen, seen_at, clicked, clicked_at, converted, value
FROM log LEFT JOIN by_search ON by_search.file = log.filename AND by_search.row = log.file_row_number
ORDER BY log.time, log.query_id, log.filename, log.file_row_number
"""


@dataclass(frozen=True, slots=True)
class Served:
    """A search as it was logged, with what was told of it: places in its list from 0, in order, each once."""

    row: Mapping[str, Any]
    """The columns asked for; lists of numbers as arrays."""
    seen: IntColumn
    seen_at: IntColumn
    """Where each of `seen` was shown, from 1."""
    clicked: IntColumn
    clicked_at: IntColumn
    converted: IntColumn
    value: float
    """Of its conversions, in the caller's unit."""


class Joined:
    """The two logs, joined; a context manager that lets go of what it holds."""

    def __init__(self, log: Path, events: Path, window_s: float = WINDOW_S) -> None:
        """Reads both folders, each here or far (`mixer.far_folder`).

        Raises: ValueError where one holds nothing, or not what it should.
        """
        self._database = duckdb.connect(config={"threads": 2})
        self._database.execute("SET TimeZone = 'UTC'")  # else days are those of this machine
        self._view("log", log)
        self._view("events", events)
        windows = {"window_us": round(window_s * 1e6), "apart_us": round(_CLOCKS_APART_S * 1e6)}
        try:
            self._database.execute(_TOLD, windows)
            self._database.execute(_BY_SEARCH)
        except duckdb.Error as error:
            raise ValueError(f"{log} and {events} cannot be joined: {_first_line(error)}") from error
        self.counts = {(kind, outcome): many for kind, outcome, many in self._rows(_COUNTS)}
        """Events by kind and outcome."""
        ((self.total,),) = self._rows("SELECT count(*) FROM log")
        """Searches in the log."""

    def searches(self, columns: Sequence[str]) -> Iterator[Served]:
        """Every search, oldest first, with these columns of the feature log. Raises: ValueError, no such column."""
        try:
            named = ", ".join(f'log."{column}"' for column in columns)
            reader = self._database.sql(_SEARCHES.format(columns=named)).to_arrow_reader(_BATCH_ROWS)
        except duckdb.Error as error:
            raise ValueError(f"the feature log: {_first_line(error)}") from error
        for batch in reader:
            yield from _served(batch, columns)

    def close(self) -> None:
        """Let go of what it holds."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False

    def _view(self, name: str, folder: Path) -> None:
        try:
            system, kind = system_of(folder), str(folder).partition("://")[0]
            if system and not self._database.filesystem_is_registered(kind):
                self._database.register_filesystem(system)
            self._database.read_parquet(
                str(folder / "**" / "*.parquet"),
                filename=True,
                file_row_number=True,
                hive_partitioning=False,
                union_by_name=True,
            ).create_view(name)
        except duckdb.Error as error:
            raise ValueError(f"{folder}: {_first_line(error)}") from error

    def _rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self._database.sql(statement).fetchall()


_COUNTS = "SELECT kind, outcome, count(*) FROM told GROUP BY ALL ORDER BY ALL"


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]


def _served(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[Served]:
    logged = [batch.column(column) for column in columns]
    values = batch.column("value").to_pylist()

    def places(name: str, row: int) -> IntColumn:
        return np.array(batch.column(name)[row].as_py() or (), np.intp)

    for row, value in enumerate(values):
        yield Served(
            row={name: plain(column[row]) for name, column in zip(columns, logged, strict=True)},
            seen=places("seen", row),
            seen_at=places("seen_at", row),
            clicked=places("clicked", row),
            clicked_at=places("clicked_at", row),
            converted=places("converted", row),
            value=value or 0.0,
        )


def plain(scalar: pa.Scalar) -> Any:
    """One cell: (n,) or (n, m) arrays for lists of numbers, tuples for those of texts, a dict for a map."""
    kind = scalar.type
    if pa.types.is_map(kind):
        return dict(scalar.as_py() or ())
    if not pa.types.is_list(kind):
        return scalar.as_py()
    values = scalar.values
    if values is not None and pa.types.is_list(kind.value_type):
        return (
            values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1) if len(values) else _NONE
        )
    if pa.types.is_string(kind.value_type):
        return tuple(scalar.as_py() or ())
    return np.zeros(0) if values is None else values.to_numpy(zero_copy_only=False)


_NONE = np.zeros((0, 0))
