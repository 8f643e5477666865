"""PostgreSQL beyond the contract: types of columns, versions, the deadline on the server, and servers that fail."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from backends import spans
from backends.base import (
    BackendError,
    BackendTimeout,
    BackendUnreachable,
    Equals,
    Filter,
    Hits,
    Query,
    Range,
    Terms,
)
from backends.index import IndexFault
from backends.postgres import Postgres
from backends.postgres_settings import PostgresSettings
from tests.doubles import postgres
from tests.doubles.sockets import Cable, cable, refusing

SECRET = "hunter2"
WORDS = {"mode": "words", "expression": "to_tsvector('english', title)"}
SLOW = {"mode": "words", "expression": "(SELECT to_tsvector('english', title) FROM pg_sleep(600))"}
TITLE = {"title": {"type": "text"}}
SLEEPING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE state = 'active' AND query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
)
_PATIENCE_S = 60


def run(server: postgres.Server, *statements: str) -> list[tuple[Any, ...]]:
    """Run SQL as its own user; the rows of the last statement, if it has any."""
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def table(postgres_server: postgres.Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A table of two titles, this test's alone."""
    name = f"t{abs(hash(request.node.nodeid))}"
    make(postgres_server, name)
    yield name
    run(postgres_server, f"DROP TABLE IF EXISTS {name}")


def make(server: postgres.Server, table: str) -> None:
    run(
        server,
        f"CREATE TABLE {table} (id text PRIMARY KEY, title text, changed timestamptz DEFAULT to_timestamp(1000))",
        f"INSERT INTO {table} VALUES ('a', 'red apples'), ('b', 'green apples and red pears')",
    )


@asynccontextmanager
async def opened(dsn: str, table: str, **more: Any) -> AsyncIterator[Postgres]:
    raw = {"kind": "postgres", "dsn": dsn, "table": table, "fields": TITLE, "search": WORDS, **more}
    backend = Postgres(PostgresSettings.model_validate(raw))
    try:
        yield backend
    finally:
        await backend.close()


async def ask(backend: Postgres, text: str = "red apples", timeout_s: float = 30.0, **more: Any) -> Hits:
    return await backend.retrieve(Query(text, more.pop("limit", 10), **more), timeout_s)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition that is looked at again and again."""
    async with asyncio.timeout(_PATIENCE_S):
        while not await holds():  # noqa: ASYNC110  another program's doing
            await asyncio.sleep(0.05)


async def counted(server: postgres.Server, query: str, wanted: int) -> None:
    async def holds() -> bool:
        return bool((await asyncio.to_thread(run, server, query))[0][0] == wanted)

    await until(holds)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://mixer:{SECRET}@db/shop",
        f"postgresql://mixer@db/shop?password={SECRET}",
        f"host=db user=mixer password={SECRET}",
        f"host=db user=mixer PASSWORD = '{SECRET}'",
        f"host=db sslpassword={SECRET}",
    ],
)
def test_password_in_settings_is_refused(dsn: str) -> None:
    """A dsn with a password is a fault of the settings, which is not repeated and says where it belongs."""
    with pytest.raises(ValidationError) as caught:
        PostgresSettings.model_validate(
            {"kind": "postgres", "dsn": dsn, "table": "t", "fields": {}, "search": WORDS}
        )
    (fault,) = caught.value.errors(include_input=False)
    assert fault["loc"] == ("dsn",)
    assert "password_env" in fault["msg"]
    assert SECRET not in fault["msg"]


def test_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is named and not set is one clear fault at start."""
    raw = {
        "kind": "postgres",
        "dsn": "host=db",
        "password_env": "NO_SUCH",
        "table": "t",
        "fields": {},
        "search": WORDS,
    }
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(IndexFault, match="password_env: the environment variable NO_SUCH is not set"):
        Postgres(PostgresSettings.model_validate(raw))


def test_dsn_must_make_sense() -> None:
    """What libpq cannot read is a fault at start, without the words of it."""
    raw = {"kind": "postgres", "dsn": f"{SECRET} {SECRET}", "table": "t", "fields": {}, "search": WORDS}
    with pytest.raises(IndexFault, match="libpq") as caught:
        Postgres(PostgresSettings.model_validate(raw))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"search": {"mode": "words"}}, "either `column`"),
        ({"search": {**WORDS, "column": "words"}}, "either `column`"),
        ({"version": "updated_at"}, "needs the column's name"),
        ({"table": "a.b.c"}, "with a dot between"),
        ({"fields": {"id": {"type": "text"}}}, "`id` is taken"),
    ],
)
def test_settings_that_make_no_sense(more: dict[str, Any], message: str) -> None:
    """Each names its mend."""
    raw = {"kind": "postgres", "dsn": "host=db", "table": "t", "fields": TITLE, "search": WORDS, **more}
    with pytest.raises(ValidationError, match=message):
        PostgresSettings.model_validate(raw)


TYPED = """
CREATE TABLE typed (
  id bigint PRIMARY KEY, words tsvector DEFAULT to_tsvector('x'), small smallint, whole bigint, single real,
  exact numeric, day date, at timestamptz, flag text, kind text, short varchar(9), tags varchar[], code uuid
)
"""
TYPED_ROWS = [
    "(1, DEFAULT, 1, 9007199254740993, 0.5, 0.1, '1970-01-02', to_timestamp(90), 'x', 'a', 'b', '{p,q}', "
    "'00000000-0000-0000-0000-000000000001')",
    "(2, DEFAULT, -7, 5, 'NaN', 'NaN', '1969-12-31', NULL, '', NULL, 'c', '{q,NULL}', NULL)",
    "(3, DEFAULT, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
]
NUMBERS = ("small", "whole", "single", "exact", "day", "at")
KEYWORDS = ("flag", "kind", "short", "tags", "code")


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        (Filter("small", Equals(1.0)), ["1"]),
        (Filter("small", Range(-7.5, 0.9)), ["2"]),
        (Filter("small", Range(0.1, 0.9)), []),
        (Filter("small", Terms((1.5, -7.0, 1e300))), ["2"]),
        (Filter("small", Range(-1e300, 1e300)), ["1", "2"]),
        (Filter("small", Range(min=1e300)), []),
        (Filter("whole", Range(min=6)), ["1"]),
        (Filter("single", Range()), ["1"]),
        (Filter("single", Equals(0.5)), ["1"]),
        (Filter("exact", Equals(0.1)), ["1"]),
        (Filter("exact", Range(0.1, 0.1)), ["1"]),
        (Filter("exact", Range()), ["1"]),
        (Filter("day", Equals(86400)), ["1"]),
        (Filter("day", Range(max=0)), ["2"]),
        (Filter("at", Range(90, 90)), ["1"]),
        (Filter("flag", Equals("")), []),
        (Filter("short", Terms(("b", "c"))), ["1", "2"]),
        (Filter("tags", Equals("q")), ["1", "2"]),
        (Filter("tags", Terms(("p", "z"))), ["1"]),
        (Filter("code", Equals("00000000-0000-0000-0000-000000000001")), ["1"]),
        (Filter("id", Terms(("1", "02", "3", "x", "9" * 40))), ["1", "3"]),
    ],
    ids=str,
)
async def test_column_types(postgres_server: postgres.Server, condition: Filter, ids: list[str]) -> None:
    """Every type of column is filtered as the number or text that it is shown as; what is missing never passes."""
    run(
        postgres_server,
        "DROP TABLE IF EXISTS typed",
        TYPED,
        f"INSERT INTO typed VALUES {', '.join(TYPED_ROWS)}",
    )
    fields = {n: {"type": "number"} for n in NUMBERS} | {n: {"type": "keyword"} for n in KEYWORDS}
    search = {"mode": "words", "column": "words"}
    async with opened(postgres_server.dsn, "public.typed", fields=fields, search=search) as backend:
        hits = await ask(backend, "x", filters=(condition,), fields=(*NUMBERS, *KEYWORDS))
    assert hits.fault() is None
    assert hits.ids == ids
    if ids == ["1"]:
        assert [hits.numbers[n][0] for n in NUMBERS] == [1, 9007199254740992, 0.5, 0.1, 86400, 90]
        assert [hits.texts[n][0] for n in KEYWORDS[:4]] == ["x", "a", "b", "p, q"]


async def test_names_are_quoted(postgres_server: postgres.Server) -> None:
    """Names of tables and columns are names, whatever stands in them."""
    run(
        postgres_server,
        'CREATE SCHEMA IF NOT EXISTS "o\'dd"',
        'DROP TABLE IF EXISTS "o\'dd"."T""a %s {b}"',
        'CREATE TABLE "o\'dd"."T""a %s {b}" ("i%d" text, "tit{}le" text, "w" tsvector)',
        """INSERT INTO "o'dd"."T""a %s {b}" VALUES ('1', 'red', to_tsvector('red'))""",
    )
    fields = {"title": {"type": "keyword", "column": "tit{}le"}}
    table, search = "o'dd.T\"a %s {b}", {"mode": "words", "column": "w"}
    async with opened(postgres_server.dsn, table, id="i%d", fields=fields, search=search) as backend:
        hits = await ask(backend, "red", fields=("title",), filters=(Filter("title", Equals("red")),))
    assert (hits.ids, hits.texts) == (["1"], {"title": ["red"]})


@pytest.mark.parametrize(
    ("match", "text", "ids"),
    [
        ("any", "green apples", ["b", "a"]),
        ("all", "green apples", ["b"]),
        ("web", '"red apples"', ["a"]),
        ("web", "apples -green", ["a"]),
        ("web", "green or red", ["b", "a"]),
    ],
)
async def test_words_match(
    postgres_server: postgres.Server, table: str, match: str, text: str, ids: list[str]
) -> None:
    """Any word, every word, or a query as the web writes it."""
    async with opened(postgres_server.dsn, table, search={**WORDS, "match": match}) as backend:
        assert (await ask(backend, text)).ids == ids


async def test_weights(postgres_server: postgres.Server, table: str) -> None:
    """A class's weight scales what its words count."""
    scores = {}
    for weight in (0.0, 0.5, 1.0):
        search = {**WORDS, "weights": {"D": weight}}
        async with opened(postgres_server.dsn, table, search=search) as backend:
            scores[weight] = (await ask(backend, "green")).scores.tolist()
    assert scores[0.5] == pytest.approx([scores[1.0][0] / 2])
    assert scores[0.0] == [0.0]


@pytest.mark.parametrize("kind", ["even", "odd"])
async def test_graph_gives_all_that_is_asked(
    postgres_server: postgres.Server, library: dict[str, Any], kind: str
) -> None:
    """An HNSW index is used, and gives as many as the limit though it stops at 40 by itself; filters too."""
    embedder = library["vectors"]
    run(postgres_server, "DROP TABLE IF EXISTS graph")
    postgres.fill(postgres_server, "graph", [], embedder)
    run(
        postgres_server,
        "ALTER TABLE graph ALTER embedding TYPE vector(8)",
        "INSERT INTO graph (id, kind, embedding) SELECT n, ARRAY[CASE n % 2 WHEN 0 THEN 'even' ELSE 'odd' END],"
        " ARRAY(SELECT sin(n * k) FROM generate_series(1, 8) k)::vector FROM generate_series(1, 400) n",
        "CREATE INDEX ON graph USING hnsw (embedding vector_cosine_ops)",
    )
    search = {
        "mode": "vectors",
        "column": "embedding",
        "embedder": embedder,
        "parameters": {"enable_seqscan": "off"},
    }
    fields = {"kind": {"type": "keyword"}}
    async with opened(postgres_server.dsn, "graph", search=search, fields=fields) as backend:
        found, passing = [
            await ask(backend, "read csv", limit=150, filters=filters)
            for filters in ((), (Filter("kind", Equals(kind)),))
        ]
    assert (len(found), len(passing)) == (150, 150)
    used = "SELECT idx_scan FROM pg_stat_user_indexes WHERE relname = 'graph' AND indexrelname LIKE '%embedding%'"

    async def is_used() -> bool:
        return bool(run(postgres_server, used)[0][0] >= 2)

    await until(is_used)


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
async def test_metrics(postgres_server: postgres.Server, library: dict[str, Any], metric: str) -> None:
    """Vectors of unit length come in one order, whatever the metric; more is nearer."""
    search = {"mode": "vectors", "column": "embedding", "embedder": library["vectors"]}
    async with (
        opened(postgres_server.dsn, "library", search={**search, "metric": metric}) as backend,
        opened(postgres_server.dsn, "library", search={**search, "least": 0.05}) as cosine,
    ):
        hits, expected = await ask(backend, "read csv"), await ask(cosine, "read csv")
    assert [name for name in hits.ids if name in expected.ids] == expected.ids
    if metric == "l2":
        distances = [math.sqrt(2 - 2 * min(score, 1.0)) for score in expected.scores]
        assert hits.scores[: len(expected)].tolist() == pytest.approx(
            [1 / (1 + d) for d in distances], abs=1e-3
        )


async def test_other_dimensions_are_named(postgres_server: postgres.Server, library: dict[str, Any]) -> None:
    """A column of vectors that the embedder cannot have made is named with both sizes."""
    run(postgres_server, "CREATE TABLE IF NOT EXISTS wide (id text, title text, v vector(3))")
    search = {"mode": "vectors", "column": "v", "embedder": library["vectors"]}
    async with opened(postgres_server.dsn, "wide", search=search) as backend:
        with pytest.raises(BackendError, match=r"vector\(3\), but the embedder's vectors have 8"):
            await ask(backend)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"table": "no_such_table"}, "no table no_such_table"),
        ({"id": "key"}, r"no column key \(id\)"),
        ({"fields": {"year": {"type": "number"}}}, r"no column year \(fields.year\)"),
        (
            {"fields": {"year": {"type": "number", "column": "title"}}},
            r"title \(fields.year\) is of type text",
        ),
        ({"search": {"mode": "words", "column": "words"}}, r"no column words \(search.column\)"),
        (
            {"search": {"mode": "words", "column": "title"}},
            r"title \(search.column\) is of type text, not tsvector",
        ),
        ({"updated_at": "modified"}, r"no column modified \(updated_at\)"),
        ({"updated_at": "title"}, r"title \(updated_at\) holds no times"),
        ({"search": {"mode": "words", "expression": f"{SECRET}(title)"}}, "SQLSTATE 42883"),
    ],
)
async def test_table_that_is_not_as_declared(
    postgres_server: postgres.Server, table: str, more: dict[str, Any], message: str
) -> None:
    """What is missing or of another type is named with its setting; the server's own words are not repeated."""
    async with opened(postgres_server.dsn, **{"table": table, **more}) as backend:
        with pytest.raises(BackendError, match=message) as caught:
            await ask(backend)
    assert type(caught.value) is BackendError
    assert SECRET not in str(caught.value)


async def test_table_changes_while_it_is_searched(postgres_server: postgres.Server, table: str) -> None:
    """A column that changes its type is read anew; one that goes is named; so is the table."""
    async with opened(postgres_server.dsn, table) as backend:
        before = await ask(backend, fields=("title",))
        run(postgres_server, f"ALTER TABLE {table} ALTER title TYPE varchar(99)")
        after = await ask(backend, fields=("title",))
        assert (after.ids, after.texts) == (before.ids, before.texts)
        run(postgres_server, f"ALTER TABLE {table} RENAME title TO name")
        with pytest.raises(BackendError, match=r"no column title \(fields.title\)"):
            await ask(backend, fields=("title",))
        run(postgres_server, f"ALTER TABLE {table} RENAME name TO title")
        assert (await ask(backend, fields=("title",))).ids == before.ids
        run(postgres_server, f"DROP TABLE {table}")
        with pytest.raises(BackendError, match=f"no table {table}"):
            await ask(backend)


@pytest.mark.parametrize("version", ["writes", "wal", "updated_at"])
async def test_version(postgres_server: postgres.Server, table: str, version: str) -> None:
    """A write changes the version, and the freshness where a column tells it."""
    async with opened(postgres_server.dsn, table, version=version, updated_at="changed") as backend:
        first = (await ask(backend)).index
        assert (first.fresh_at_s, first.server_version.partition("/")[0]) == (1000.0, "postgresql")
        if version != "wal":
            assert (await ask(backend, "pears")).index == first
        run(postgres_server, f"INSERT INTO {table} VALUES ('c', 'red', to_timestamp(2000))")

        async def is_told() -> bool:
            index = (await ask(backend)).index
            return index.version != first.version and index.fresh_at_s == 2000.0

        await until(is_told)


async def test_settings_change_the_version(postgres_server: postgres.Server, table: str) -> None:
    """Another way to search is another version; another pool is not. A column's type is part of the schema."""
    indexes = []
    for more in ({}, {"connections": 2}, {"search": {**WORDS, "match": "all"}}):
        async with opened(postgres_server.dsn, table, **more) as backend:
            indexes.append((await ask(backend)).index)
    assert indexes[0] == indexes[1]
    assert indexes[2].version != indexes[0].version
    run(postgres_server, f"ALTER TABLE {table} ALTER title TYPE varchar(99)")
    async with opened(postgres_server.dsn, table) as backend:
        assert (await ask(backend)).index.schema != indexes[0].schema


async def test_schema_follows_the_columns(postgres_server: postgres.Server, table: str) -> None:
    """A column that becomes of another type changes the schema of later answers, though no statement fails."""
    async with opened(postgres_server.dsn, table, prepared=False) as backend:
        first = (await ask(backend)).index.schema
        run(postgres_server, f"ALTER TABLE {table} ALTER title TYPE varchar(99)")

        async def is_told() -> bool:
            return (await ask(backend)).index.schema != first

        await until(is_told)


async def test_partitions_and_views(postgres_server: postgres.Server, table: str) -> None:
    """Writes to a partition count as the table's; a view counts none, and says what to set."""
    run(
        postgres_server,
        f"CREATE TABLE {table}_p (LIKE {table}) PARTITION BY LIST (id)",
        f"CREATE TABLE {table}_p1 PARTITION OF {table}_p FOR VALUES IN ('a')",
        f"CREATE VIEW {table}_v AS SELECT * FROM {table}_p",
    )
    async with opened(postgres_server.dsn, f"{table}_p") as backend:
        first = (await ask(backend)).index.version
        run(postgres_server, f"INSERT INTO {table}_p VALUES ('a', 'red')")

        async def is_told() -> bool:
            return (await ask(backend)).index.version != first

        await until(is_told)
    async with opened(postgres_server.dsn, f"{table}_v") as backend:
        with pytest.raises(BackendError, match="set `version` to wal or updated_at"):
            await ask(backend)
    async with opened(postgres_server.dsn, f"{table}_v", version="wal") as backend:
        assert (await ask(backend)).ids == ["a"]
    run(postgres_server, f"DROP VIEW {table}_v", f"DROP TABLE {table}_p")


async def test_deadline_ends_the_statement(postgres_server: postgres.Server, table: str) -> None:
    """When the time is up nothing runs on the server any more, and the connection serves the next."""
    async with opened(postgres_server.dsn, table, search=SLOW, connections=1) as backend:
        await ask(backend, " ")
        for _ in range(3):
            with pytest.raises(BackendTimeout):
                await ask(backend, timeout_s=0.2)
        await counted(postgres_server, SLEEPING, 0)
        assert (await ask(backend, " ")).ids == []


async def test_server_keeps_the_time_itself(postgres_server: postgres.Server, table: str) -> None:
    """The statement has its time as `statement_timeout`: a Mixer that dies leaves nothing running."""
    async with opened(postgres_server.dsn, table, search=SLOW) as backend:
        await ask(backend, " ")
        deadline = asyncio.get_running_loop().time() + 0.3
        with pytest.raises(BackendTimeout, match="statement was cancelled"):
            await backend._answer(Query("red", 10), deadline)


async def test_cancelled_search_ends_the_statement(postgres_server: postgres.Server, table: str) -> None:
    """A caller that leaves takes its statement along."""
    async with opened(postgres_server.dsn, table, search=SLOW) as backend:
        asked = asyncio.create_task(ask(backend, timeout_s=3600))
        await counted(postgres_server, SLEEPING, 1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await counted(postgres_server, SLEEPING, 0)


async def test_pool_is_exhausted(postgres_server: postgres.Server, table: str) -> None:
    """Who gets no connection within their time is told so; whoever comes when one is free is served."""
    async with opened(postgres_server.dsn, table, search=SLOW, connections=1) as backend:
        await ask(backend, " ")
        holding = asyncio.create_task(ask(backend))
        await counted(postgres_server, SLEEPING, 1)
        with pytest.raises(BackendTimeout, match=r"no connection of 1 was free|no answer within"):
            await ask(backend, timeout_s=0.2)
        holding.cancel()
        await asyncio.wait({holding})
        assert (await ask(backend, " ")).ids == []


async def test_no_connection_leaks(postgres_server: postgres.Server, table: str) -> None:
    """However searches end, there are never more connections than the settings allow, and none after the end."""
    named = f"{postgres_server.dsn} application_name={table}"
    query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{table}'"
    async with opened(named, table, connections=3) as backend:
        asked = [asyncio.create_task(ask(backend, timeout_s=0.001 * n)) for n in range(60)]
        await asyncio.sleep(0.02)
        for task in asked[::3]:
            task.cancel()
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(end) for end in ended} <= {Hits, BackendTimeout, asyncio.CancelledError}
        # One that was closed takes the server a moment to forget.
        await counted(postgres_server, query.replace("count(*)", "(count(*) <= 3)::int"), 1)
        hits = await asyncio.gather(*(ask(backend) for _ in range(12)))
        assert {tuple(found.ids) for found in hits} == {("a", "b")}
    await counted(postgres_server, query, 0)


async def test_server_that_refuses(table: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where nobody listens the backend is unreachable at once, names no user or host, and is not stormed."""
    with refusing() as target:
        host, _, port = target.partition(":")
        async with opened(f"host={host} port={port} user={SECRET}", table) as backend:
            with pytest.raises(BackendUnreachable, match="no connection") as caught:
                await ask(backend, timeout_s=_PATIENCE_S)
            caplog.clear()
            backend._pool._down_until_s = math.inf
            for _ in range(20):
                with pytest.raises(BackendUnreachable, match="no connection"):
                    await ask(backend, timeout_s=_PATIENCE_S)
    assert SECRET not in str(caught.value)
    assert not caplog.records


@asynccontextmanager
async def through(server: postgres.Server, table: str, **more: Any) -> AsyncIterator[tuple[Postgres, Cable]]:
    """A backend whose every byte goes over a cable."""
    async with cable(str(server.socket)) as carrier:
        host, _, port = carrier.target.partition(":")
        dsn = f"host={host} port={port} user=mixer dbname=postgres sslmode=disable"
        async with opened(dsn, table, **more) as backend:
            yield backend, carrier


async def test_connections_are_reset(postgres_server: postgres.Server, table: str) -> None:
    """Idle connections that died unnoticed cost the caller nothing; one that dies in a search is unreachable."""
    async with through(postgres_server, table, connections=4) as (backend, carrier):
        await asyncio.gather(*(ask(backend) for _ in range(8)))
        carrier.cut()
        assert (await ask(backend)).ids == ["a", "b"]
    async with through(postgres_server, table, search=SLOW) as (backend, carrier):
        await ask(backend, " ")
        asked = asyncio.create_task(ask(backend))
        for _ in range(2):  # a search that dies is asked once more
            await counted(postgres_server, SLEEPING, 1)
            carrier.cut()
            run(
                postgres_server,
                f"SELECT pg_terminate_backend(pid) {SLEEPING.removeprefix('SELECT count(*)')}",
            )
        with pytest.raises(BackendUnreachable, match="broke"):
            await asked


async def test_hung_server_does_not_hold_its_callers(postgres_server: postgres.Server, table: str) -> None:
    """A server that says nothing more is left behind: its callers have their time-out before it is given up."""
    async with through(postgres_server, table, search=SLOW) as (backend, carrier):
        await ask(backend, " ")
        carrier.hold()
        with pytest.raises(BackendTimeout):
            await ask(backend, timeout_s=0.2)
        assert backend._pool._left
        asked = asyncio.create_task(ask(backend))
        await asyncio.sleep(0.05)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


async def test_server_stops_and_comes_back() -> None:
    """Stopped in the middle of a search it is unreachable, while it is down too; once back it answers."""
    with postgres.running() as server:
        make(server, "fruit")
        async with opened(server.dsn, "fruit", search=SLOW) as slow, opened(server.dsn, "fruit") as backend:
            await asyncio.gather(*(ask(backend) for _ in range(4)))
            asked = asyncio.create_task(ask(slow))
            await counted(server, SLEEPING, 1)
            await asyncio.to_thread(server.stop)
            with pytest.raises(BackendUnreachable):
                await asked
            for _ in range(2):
                with pytest.raises(BackendUnreachable, match="the server is down"):
                    await ask(backend, timeout_s=_PATIENCE_S)
            await asyncio.to_thread(server.start)

            async def answers() -> bool:
                try:
                    return (await ask(backend, timeout_s=_PATIENCE_S)).ids == ["a", "b"]
                except BackendUnreachable:
                    return False

            await until(answers)


async def test_password_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The right password opens the table; a wrong one is unreachable and stands in no message."""
    with postgres.running() as server:
        make(server, "fruit")
        run(server, f"CREATE USER guarded PASSWORD '{SECRET}'", "GRANT SELECT ON fruit TO guarded")
        server.demand_passwords("guarded")
        dsn = server.dsn.replace("user=mixer", "user=guarded")
        monkeypatch.setenv("FRUIT_PASSWORD", SECRET)
        async with opened(dsn, "fruit", password_env="FRUIT_PASSWORD") as backend:
            assert (await ask(backend)).ids == ["a", "b"]
        monkeypatch.setenv("FRUIT_PASSWORD", f"not {SECRET}")
        async with opened(dsn, "fruit", password_env="FRUIT_PASSWORD") as backend:
            with pytest.raises(BackendUnreachable, match="refuses this user") as caught:
                await ask(backend)
        assert SECRET not in str(caught.value)
        run(server, "REVOKE SELECT ON fruit FROM guarded")
        monkeypatch.setenv("FRUIT_PASSWORD", SECRET)
        async with opened(dsn, "fruit", password_env="FRUIT_PASSWORD") as backend:
            with pytest.raises(BackendError, match="may not read the table"):
                await ask(backend)


async def test_span(postgres_server: postgres.Server, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traced search has a client span by the conventions of databases, with no word of the query."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "tracer", provider.get_tracer("test"))
    async with opened(postgres_server.dsn, table) as backend:
        with provider.get_tracer("test").start_as_current_span("retrieve"):
            await ask(backend)
    span = exporter.get_finished_spans()[0]
    assert (span.name, span.kind) == (f"SELECT {table}", trace.SpanKind.CLIENT)
    assert dict(span.attributes or {}) == {
        "db.system.name": "postgresql",
        "db.operation.name": "SELECT",
        "db.collection.name": table,
        "server.address": str(postgres_server.socket.parent),
        "server.port": 5432,
    }
