from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backends.base import BackendError, BackendTimeout
from backends.stores.base import StoreFault
from tests.doubles.stores import FIELDS, Filled, StoreContract, Table, opened


def write(file: Path, table: Table, kind: str = "TEXT") -> dict[str, Any]:
    with closing(sqlite3.connect(file)) as made, made:
        made.execute(f"CREATE TABLE sales (sku {kind} PRIMARY KEY, ctr, sales, odd)")
        rows = [(key, *map(row.get, FIELDS)) for key, row in table.items()]
        made.executemany("INSERT INTO sales VALUES (?, ?, ?, ?)", rows)
    return {"kind": "sqlite", "file": file, "table": "sales", "id_column": "sku"}


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    return lambda table: write(tmp_path / "made.db", table)


class TestSqlite(StoreContract):
    """A table of a file."""


@pytest.mark.parametrize("kind", ["INTEGER", "TEXT", ""])
async def test_a_column_of_whole_numbers(tmp_path: Path, kind: str) -> None:
    """Whatever type it has, or none, the key 7 is found there, and no key that is written otherwise."""
    settings = write(tmp_path / "made.db", {}, kind)
    with closing(sqlite3.connect(tmp_path / "made.db")) as made, made:
        made.execute("INSERT INTO sales VALUES (7, 0.5, 1, NULL)")
    async with opened(settings) as store:
        rows = await store.fetch(["x", "7", "8", "07", "9" * 40], 20.0)
    assert rows.found.tolist() == [False, True, False, False, False]


async def test_a_newer_file_in_its_place_is_read(tmp_path: Path) -> None:
    """A file that is put in the place of the one before is seen from the next question on."""
    settings = write(tmp_path / "made.db", {"a": {"ctr": 1}})
    async with opened(settings) as store:
        before = await store.fetch(["a"], 20.0)
        write(tmp_path / "new.db", {"a": {"ctr": 2}})
        (tmp_path / "new.db").rename(tmp_path / "made.db")
        after = await store.fetch(["a"], 20.0)
    assert (before.values[0, 0], after.values[0, 0]) == (1, 2)


@pytest.mark.parametrize(
    "change", [{"table": "nowhere"}, {"fields": ["nowhere"]}, {"file": Path("/no/such.db")}]
)
async def test_what_is_not_there_is_found_at_the_start(tmp_path: Path, change: dict[str, Any]) -> None:
    """A file, a table, a column: the fault names the file."""
    settings = write(tmp_path / "made.db", {})
    with pytest.raises(StoreFault, match=r"\.db: "):
        async with opened({**settings, **change}):
            pass


async def test_names_are_quoted(tmp_path: Path) -> None:
    """A table and columns may be called anything."""
    with closing(sqlite3.connect(tmp_path / "made.db")) as made, made:
        made.execute('CREATE TABLE "a""b c" ("the id", "select")')
        made.execute('INSERT INTO "a""b c" VALUES (1, 2)')
    odd = {"table": 'a"b c', "id_column": "the id", "fields": ["select"]}
    async with opened({"kind": "sqlite", "file": tmp_path / "made.db", **odd}) as store:
        assert (await store.fetch(["1"], 20.0)).values.tolist() == [[2.0]]


async def test_a_file_that_breaks_is_a_failure(tmp_path: Path) -> None:
    """What was a table and is none any more fails the question, and no more."""
    settings = write(tmp_path / "made.db", {})
    async with opened(settings) as store:
        (tmp_path / "made.db").write_bytes(b"no database" * 200)
        with pytest.raises(BackendError, match="SQLite failed with DatabaseError"):
            await store.fetch(["a"], 20.0)


async def test_a_question_is_interrupted_when_its_time_is_up(tmp_path: Path) -> None:
    """A view that counts for minutes is left, and the thread is free again."""
    with closing(sqlite3.connect(tmp_path / "made.db")) as made, made:
        made.execute(
            "CREATE VIEW slow AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e12) "
            "SELECT max(i) AS id, 1 AS ctr FROM n"
        )
        made.execute("CREATE VIEW quick AS SELECT 1 AS id, 1 AS ctr")
    raw = {"kind": "sqlite", "file": tmp_path / "made.db", "table": "quick", "fields": ["ctr"], "threads": 1}
    async with opened(raw) as store:
        store._select = store._select.replace("quick", "slow")  # type: ignore[attr-defined]
        with pytest.raises(BackendTimeout):
            await store.fetch(["1"], 0.05)
        store._select = store._select.replace("slow", "quick")  # type: ignore[attr-defined]
        assert (await store.fetch(["1"], 30.0)).found.tolist() == [True]
