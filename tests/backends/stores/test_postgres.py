"""PostgreSQL itself, from its wheel."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backends.base import BackendError, BackendTimeout, BackendUnreachable
from backends.stores.base import Rows, Store, StoreFault
from tests.doubles import mixers, postgres
from tests.doubles.postgres import Server
from tests.doubles.sockets import cable
from tests.doubles.stores import FIELDS, TABLE, Filled, StoreContract, Table, opened


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that is up, for all tests of this file."""
    with postgres.running() as running:
        yield running


@pytest.fixture
def dsn(server: Server) -> str:
    return server.dsn


@pytest.fixture
def filled(dsn: str) -> Filled:
    return lambda table: write(dsn, table)


def write(dsn: str, table: Table, kind: str = "text") -> dict[str, Any]:
    rows = [(key, *map(row.get, FIELDS)) for key, row in table.items()]
    with psycopg.connect(dsn) as connection:
        connection.execute("DROP TABLE IF EXISTS sales")
        connection.execute(
            f"CREATE TABLE sales (sku {kind} PRIMARY KEY, ctr float8, sales numeric, odd text)"
        )
        connection.cursor().executemany("INSERT INTO sales VALUES (%s, %s, %s, %s)", rows)
    return {"kind": "postgres", "dsn": dsn, "table": "public.sales", "id_column": "sku"}


class TestPostgres(StoreContract):
    """A table of a server."""


async def test_a_column_of_whole_numbers(dsn: str) -> None:
    """Keys that are no whole number are missing; the others are found by the column's index, as numbers."""
    settings = write(dsn, {"7": {"ctr": 0.5}, "-3": {"ctr": 1.5}}, "bigint")
    async with opened(settings, id_type="integer") as store:
        rows = await store.fetch(["x", "7", "-3", "9" * 30, "", "1e3", "-"], 20.0)
    assert rows.found.tolist() == [False, True, True, False, False, False, False]


async def test_a_late_answer_is_left_behind(filled: Filled, dsn: str) -> None:
    """The question ends when its time is up, the server drops it, and the next one gets its own answer."""
    settings = filled(TABLE)
    with psycopg.connect(dsn) as locking:
        locking.execute("LOCK TABLE sales IN ACCESS EXCLUSIVE MODE")
        async with opened(settings, connections=1) as store:
            with pytest.raises(BackendTimeout):
                await store.fetch(["a"], 0.5)
            locking.rollback()
            assert (await store.fetch(["ünï"], 20.0)).values[0, 0] == -2.5


async def test_a_server_that_hangs_costs_no_more_than_the_time(
    filled: Filled, server: Server, tmp_path: Path
) -> None:
    """A server that answers nothing at all, not even that a question is canceled, is left behind all the same."""
    settings = filled(TABLE)
    async with cable(str(server.socket)) as proxy:
        dsn = f"host=127.0.0.1 port={proxy.target.rpartition(':')[2]} user=mixer dbname=postgres"
        async with opened({**settings, "dsn": dsn}, connections=1) as store:
            assert (await store.fetch(["a"], 20.0)).found.tolist() == [True]
            proxy.hold()
            async with asyncio.timeout(20):
                with pytest.raises(BackendTimeout):
                    await store.fetch(["a"], 0.2)
            proxy.cut()


async def test_a_lost_connection_is_opened_again(filled: Filled, dsn: str) -> None:
    """Connections that the server ended fail no question."""
    async with opened(filled(TABLE)) as store:
        await asyncio.gather(*(store.fetch(["a"], 20.0) for _ in range(8)))
        with psycopg.connect(dsn) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        assert (await store.fetch(["a"], 20.0)).found.tolist() == [True]


async def test_a_server_that_is_down_and_comes_back(filled: Filled, server: Server) -> None:
    """While it is down questions fail at once as unreachable, in their time; then they are answered."""
    async with opened(filled(TABLE)) as store:
        await store.fetch(["a"], 20.0)
        server.stop("fast")
        try:
            with pytest.raises(BackendUnreachable):
                await store.fetch(["a"], 20.0)
        finally:
            server.start()
        assert (await until_up(store)).found.tolist() == [True]


async def until_up(store: Store) -> Rows:
    """The server may be taken for down for a moment longer than it is."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await store.fetch(["a"], 20.0)
            except BackendUnreachable:
                await asyncio.sleep(0.05)


async def test_what_the_server_refuses_is_a_failure(filled: Filled) -> None:
    """A table that is gone, a key that no text of PostgreSQL can be: an error, in words of ours."""
    async with opened(filled(TABLE), table="nowhere") as store:
        with pytest.raises(BackendError, match="the server failed with SQLSTATE 42P01"):
            await store.fetch(["a"], 20.0)
    async with opened(filled(TABLE)) as store:
        with pytest.raises(BackendError, match="the server failed with SQLSTATE unknown"):
            await store.fetch(["a\0"], 20.0)
        assert (await store.fetch(["a"], 20.0)).found.tolist() == [True]


async def test_nobody_listens(filled: Filled, tmp_path: Path) -> None:
    """No server is no answer, known at once."""
    async with opened(filled(TABLE) | {"dsn": f"host={tmp_path} dbname=none"}) as store:
        with pytest.raises(BackendUnreachable):
            await store.fetch(["a"], 20.0)


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("postgresql://me:secret@db/shop", "password_env"),
        ("host=db password=secret", "password_env"),
        ("mysql://secret@db/shop", "no connection string"),
    ],
)
async def test_a_dsn_that_cannot_be(dsn: str, why: str) -> None:
    """No password in it, and nothing that libpq does not read; the fault repeats neither."""
    with pytest.raises(StoreFault, match=why) as refused:
        async with opened({"kind": "postgres", "dsn": dsn, "table": "t"}):
            pass
    assert "secret" not in str(refused.value)


async def test_a_password_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found at the start, by the variable's name."""
    monkeypatch.delenv("SHOP_PASSWORD", raising=False)
    raw = {"kind": "postgres", "dsn": "postgresql://db/shop", "table": "t", "password_env": "SHOP_PASSWORD"}
    with pytest.raises(StoreFault, match="SHOP_PASSWORD is not set"):
        async with opened(raw):
            pass


async def test_features_from_postgres(filled: Filled) -> None:
    """A running Mixer serves what the table holds, without the mix's model knowing where it came from."""
    memory = {
        "kind": "memory",
        "fields": {"title": {"type": "text"}},
        "documents": [{"id": "a", "title": "csv"}],
    }
    feature = {"name": "ctr", "source": "store", "store": "sales", "field": "ctr"}
    mix = {"fields": ["title"], "stores": {"sales": {"timeout_s": 15}}, "features": [feature]}
    made = mixers.settings({"m": memory}, mix, stores={"sales": {**filled(TABLE), "fields": ["ctr"]}})
    async with mixers.running(made) as mixer:
        result = await mixer.search("csv", features=True)
    assert result.features.tolist() == [[0.1]]
    assert (result.stores[0].outcome, result.degraded) == ("ok", False)
