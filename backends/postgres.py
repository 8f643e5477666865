"""PostgreSQL: words by full text search, or nearness by pgvector, over a table of your own. Nothing is written to it.

    kind: postgres
    dsn: postgresql://mixer@db.example.org:5432/shop?sslmode=verify-full   # as libpq takes it, without a password
    password_env: SHOP_DB_PASSWORD     # the environment variable that holds it; leave out where none is needed
    table: public.products             # or a view; names as the server has them, in this case
    id: sku                            # unique; its text is the document's id
    fields:
      title: {type: text}
      genres: {type: keyword, column: genre_names}   # text, or an array of it
      year: {type: number}             # a date or time is seconds since 1970
    search:
      mode: words
      column: words                    # a tsvector; or, in place of it, SQL that makes one:
      # expression: "setweight(to_tsvector('english', title), 'A') || to_tsvector('english', doc)"
      language: english                # text search configuration of the query
      match: any                       # or `all`: every word; or `web`: "phrases", or, -without
      weights: {A: 1.0, B: 0.4, C: 0.2, D: 0.1}
      normalization: 0                 # of ts_rank_cd
    version: writes                    # or `wal`, or `updated_at`; see below
    updated_at: changed_at             # a time column: how fresh the table is; index it
    connections: 8                     # the most at once; more searches wait for one within their time
    connect_timeout_s: 3
    prepared: true                     # false behind a pooler that does not keep prepared statements

In place of `search`, for vectors:

    search:
      mode: vectors
      column: embedding                # a vector or halfvec
      metric: cosine                   # or l2, inner_product
      embedder: indexes/semantic       # an index of kind vectors: what embeds the query; see backends/embedding.py
      least: 0.05                      # scores no higher than this are not found; all are where none is given
      parameters: {hnsw.ef_search: 200}   # set for every search, here and in mode words

A score is ts_rank_cd's; or the cosine, 1 / (1 + distance) for l2, or the inner product. Ties go by id. An index of
type hnsw is searched with as much effort as the hits asked for need (`hnsw.ef_search`), and goes on until filters
leave enough (`hnsw.iterative_scan`, pgvector 0.8). An expression is taken as it stands: make the same one an index.

A search is one read-only transaction in one round trip. Its time is its `statement_timeout`; when its caller leaves,
the statement is cancelled on the server.

Once a second a search also asks for the version of the table. `writes` counts inserted, changed and deleted rows; the
server tells its count within a second of a commit, after a burst within ten, and on a replica `wal` stands in for it.
`wal` is the place in the server's log: exact, but any write to any table changes it. `updated_at` is the latest time of
that column: it does not see what is deleted.
"""

from __future__ import annotations

import hashlib
import math
import re
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import filters
from backends import postgres_sql as sql
from backends.base import BackendError, Hits, Index, Query
from backends.embedding import Embedding
from backends.index import IndexFault
from backends.postgres_columns import COLUMNS, Column
from backends.postgres_dsn import address_of
from backends.postgres_pool import Pool, is_stale, translated
from backends.postgres_settings import PostgresSettings
from backends.served import secret
from backends.spans import db_span
from backends.threads import Threads

if TYPE_CHECKING:
    from backends.postgres_pool import Connection

_VERSION_S = 1.0
_EF_LEAST, _EF_MOST = 40, 1000


class _Table:
    """A table as it was when last looked at."""

    def __init__(self, statements: sql.Statements) -> None:
        self.statements = statements
        self.index = Index()
        self.pgvector = ""
        self.columns: str | None = None
        self.due_s = 0.0
        """When to ask for its version again, of the monotonic clock."""


class Postgres:
    """A backend over one table. Connects when first asked."""

    Settings = PostgresSettings

    def __init__(self, settings: PostgresSettings) -> None:
        """Raises: IndexFault where psycopg, the password or the embedder is missing."""
        self._server = _address(settings.dsn)
        self._settings = settings
        self._schema = settings.declared
        self._embedding = (
            Embedding.of(settings.search.embedder) if settings.search.mode == "vectors" else None
        )
        self._threads = Threads(1, "postgres")
        self._state_query = sql.state_query(settings).encode()
        self._table_bound = {"table": sql.named(settings.table).replace("%%", "%")}
        self._table: _Table | None = None
        self._pool = Pool(
            settings.dsn,
            secret("password_env", settings.password_env),
            settings.connections,
            settings.connect_timeout_s,
            settings.prepared,
        )

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """See `Backend`. The statement is cancelled on the server when its time is up or the task is cancelled."""
        filters.check(query, self._schema)
        with db_span("postgresql", "SELECT", self._settings.table, *self._server):
            return await self._pool.run(self._answer(query, monotonic() + timeout_s), timeout_s)

    async def close(self) -> None:
        """See `Backend`."""
        await self._pool.close()
        await self._threads.close()

    async def _answer(self, query: Query, deadline: float) -> Hits:
        """The hits; a second attempt is made where a connection had died unnoticed, or the table had changed."""
        import psycopg

        vector = await self._embedded(query.text, deadline - monotonic())
        for attempt in (1, 2):
            async with self._pool.connection(deadline - monotonic()) as connection:
                try:
                    return await self._asked(connection, query, vector, deadline)
                except psycopg.Error as error:
                    fault = translated(error, connection)
                    if attempt == 2 or not (connection.closed or is_stale(error)):
                        raise fault from error
                    self._table = None if is_stale(error) else self._table
                    broken = connection.closed
            if broken:
                await self._pool.renew()
        raise AssertionError("the last attempt answers or raises")

    async def _embedded(self, text: str, timeout_s: float) -> str | None:
        """The query's vector as pgvector reads one; empty where the text means nothing, None in mode words."""
        if self._embedding is None:
            return None
        vector = await self._threads.run(partial(self._embedding.query, text), timeout_s)
        return str(vector.tolist()) if vector.any() else ""

    async def _asked(self, connection: Connection, query: Query, vector: str | None, deadline: float) -> Hits:
        table = self._table or await self._looked_at(connection, deadline)
        asks = query.limit > 0 and (bool(query.text.strip()) if vector is None else bool(vector))
        is_due = monotonic() >= table.due_s
        rows: list[tuple[Any, ...]] = []
        text, bound, fields = table.statements.search(query, vector or "")
        async with connection.pipeline(), connection.transaction():
            await self._set(connection, table, query.limit, deadline)
            state = await connection.execute(self._state_query, self._table_bound) if is_due else None
            found = await connection.execute(text, bound, binary=True) if asks else None
        if state is not None:
            self._note(table, await state.fetchone())
        if found is not None:
            rows = await found.fetchall()
        return self._hits(rows, fields, table.index)

    async def _looked_at(self, connection: Connection, deadline: float) -> _Table:
        """The table's columns held against the settings, and its state. Raises: BackendError."""
        async with connection.transaction():
            await _set_local(connection, {"statement_timeout": _left_ms(deadline)})
            rows = await (await connection.execute(COLUMNS, self._table_bound)).fetchall()
            if not rows:
                raise BackendError(f"there is no table {self._settings.table} that this user can see")
            columns = {name: Column(*rest) for name, *rest in rows}
            dimensions = self._embedding.dimensions if self._embedding else 0
            table = _Table(sql.Statements(self._settings, columns, dimensions))
            state = await connection.execute(self._state_query, self._table_bound)
            self._note(table, await state.fetchone())
        self._table = table
        return table

    async def _set(self, connection: Connection, table: _Table, limit: int, deadline: float) -> None:
        values: dict[str, str | float] = {"statement_timeout": _left_ms(deadline)}
        if table.pgvector:
            values["hnsw.ef_search"] = max(_EF_LEAST, min(limit + 1, _EF_MOST))
            if _is_iterative(table.pgvector):
                values["hnsw.iterative_scan"] = "strict_order"
        await _set_local(connection, values | dict(self._settings.search.parameters))

    def _note(self, table: _Table, row: tuple[Any, ...] | None) -> None:
        """Raises: BackendError where the server cannot tell the version as the settings want it."""
        if row is None:
            raise BackendError(f"there is no table {self._settings.table} that this user can see")
        state = sql.State(*row)
        if fault := sql.state_fault(self._settings, state):
            raise BackendError(fault)
        if state.columns != (table.columns or state.columns):
            self._table = None  # read anew by the next search: this one's statement still fitted
        table.columns, table.due_s = state.columns, monotonic() + _VERSION_S
        table.pgvector = (state.pgvector or "") if self._embedding else ""
        server = f"postgresql/{state.server.split()[0]}" + (
            f" pgvector/{table.pgvector}" if table.pgvector else ""
        )
        chosen = self._settings.model_dump_json(
            exclude={"dsn", "connections", "connect_timeout_s", "prepared"}
        )
        content = f"{state.oid} {state.content} {chosen} {server} {table.statements.digest}"
        version = hashlib.sha256(content.encode()).hexdigest()[:16]
        table.index = Index(version, state.fresh_at_s or 0.0, server, table.statements.digest)

    def _hits(self, rows: list[tuple[Any, ...]], fields: list[str], index: Index) -> Hits:
        columns = list(zip(*rows, strict=True)) or [()] * (2 + len(fields))
        scores = np.array(columns[1], dtype=np.float64)
        least = getattr(self._settings.search, "least", None)
        # Nearest first, and what is no number last: those that are found are the first ones.
        count = int(np.count_nonzero(scores > (-math.inf if least is None else least)))
        held = {name: column[:count] for name, column in zip(fields, columns[2:], strict=False)}
        numbers = set(self._schema.names("number"))
        return Hits(
            ids=list(columns[0][:count]),
            scores=scores[:count],
            numbers={n: np.array(held[n], dtype=np.float64) for n in fields if n in numbers},
            texts={n: list(held[n]) for n in fields if n not in numbers},
            index=index,
        )


def _left_ms(deadline: float) -> int:
    return max(1, math.ceil((deadline - monotonic()) * 1000))


def _is_iterative(pgvector: str) -> bool:
    return tuple(map(int, re.findall(r"\d+", pgvector)[:2])) >= (0, 8)


async def _set_local(connection: Connection, values: dict[str, str | float]) -> None:
    calls = ", ".join(["set_config(%s, %s, true)"] * len(values))
    bound = [str(part) for pair in values.items() for part in pair]
    await connection.execute(f"SELECT {calls}".encode(), bound)


def _address(dsn: str) -> tuple[str, int | None]:
    """Raises: IndexFault, without the words of the dsn."""
    try:
        return address_of(dsn)
    except ImportError as error:
        raise IndexFault(
            "the postgres engine is not installed: pip install '.[postgres]' in Mixer's checkout"
        ) from error
    except ValueError as fault:
        raise IndexFault(str(fault)) from None
