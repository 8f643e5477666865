"""Feature stores in a real Redis, asked by themselves and by a running Mixer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from backends import spans
from backends.base import BackendError, BackendTimeout, BackendUnreachable
from mixer.settings import Settings
from tests.doubles import engines, mixers
from tests.doubles.stores import TABLE, Filled, StoreContract, opened
from tests.integration.programs import free_port
from tests.integration.redis_server import RedisServer

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
NAN = float("nan")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """An empty one that is up."""
    made = RedisServer(free_port(), tmp_path)
    with made.running():
        yield made


def raw(server: RedisServer, **settings: Any) -> dict[str, Any]:
    return {"kind": "redis", "url": server.url, **settings}


class TestHashes(StoreContract):
    """Hashes, read by a script."""

    @pytest.fixture
    def filled(self, server: RedisServer) -> Filled:
        return lambda table: server.write_hashes(table) or raw(server)  # type: ignore[func-returns-value]


class TestHashesWithoutScript(StoreContract):
    """Hashes, read by a pipeline."""

    @pytest.fixture
    def filled(self, server: RedisServer) -> Filled:
        return lambda table: server.write_hashes(table) or raw(server, script=False)  # type: ignore[func-returns-value]


class TestJson(StoreContract):
    """Texts of JSON."""

    @pytest.fixture
    def filled(self, server: RedisServer) -> Filled:
        return lambda table: server.write_json(table) or raw(server, layout="json")  # type: ignore[func-returns-value]


@pytest.mark.parametrize("script", [True, False])
async def test_a_key_of_another_type_costs_its_own_row(server: RedisServer, script: bool) -> None:
    """Its values are there and cannot be read; the other rows are what they are."""
    server.write_hashes(TABLE)
    server.client.set("text", "ctr")
    server.client.rpush("list", 1, 2)
    async with opened(raw(server, script=script)) as store:
        rows = await store.fetch(["text", "a", "list", "missing"], 20.0)
    np.testing.assert_array_equal(rows.values[:, 0], [NAN, 0.1, NAN, NAN])
    assert (rows.found.tolist(), rows.unreadable) == ([True, True, True, False], 6)


async def test_texts_that_are_no_json_objects(server: RedisServer) -> None:
    """They are there and cannot be read, as is a value that is no number."""
    held: dict[str, Any] = {
        "broken": "{",
        "list": "[1, 2]",
        "number": "3",
        "bytes": b"\xff",
        "nested": '{"ctr": {"a": 1}}',
    }
    server.client.mset(held)
    async with opened(raw(server, layout="json"), fields=["ctr"]) as store:
        rows = await store.fetch([*held, "missing"], 20.0)
    assert np.isnan(rows.values).all()
    assert (rows.found.tolist(), rows.unreadable) == ([True] * 5 + [False], 5)


@pytest.mark.parametrize("settings", [{}, {"script": False}, {"layout": "json"}])
async def test_late_answers_answer_nothing_else(server: RedisServer, settings: dict[str, Any]) -> None:
    """Questions whose time is up while Redis hangs are left behind; those after them get their own answers, over
    as few connections as may be."""
    table = {f"d{number}": {"ctr": float(number), "sales": None, "odd": None} for number in range(30)}
    (server.write_json if settings.get("layout") else server.write_hashes)(table)
    async with opened(raw(server, connections=2, **settings)) as store:
        await store.fetch(["d0"], 20.0)
        with server.hanging():
            asked = [store.fetch([f"d{number}"], 0.05) for number in range(20)]
            late = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in late} == {BackendTimeout}
        rows = await asyncio.gather(*(store.fetch([f"d{number}"], 30.0) for number in range(30)))
    assert [each.values[0, 0] for each in rows] == list(range(30))


async def test_a_canceled_question_spoils_no_connection(server: RedisServer) -> None:
    """Whenever a caller goes away in the middle of one, the next gets its own answer over the only connection."""
    server.write_hashes({f"d{number}": {"ctr": float(number)} for number in range(40)})
    async with opened(raw(server, connections=1), fields=["ctr"]) as store:
        for number in range(40):
            task = asyncio.ensure_future(store.fetch([f"d{39 - number}"] * 1, 20.0))
            await asyncio.sleep(number / 40_000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await store.fetch([f"d{number}"], 20.0)).values.tolist() == [[number]]


async def test_a_server_that_restarts(tmp_path: Path) -> None:
    """While it is down it is unreachable, at once; once it is up its new rows are read, by a script that it does not
    know yet."""
    server = RedisServer(free_port(), tmp_path)
    async with opened(raw(server)) as store:
        with pytest.raises(BackendUnreachable):
            await store.fetch(["a"], 20.0)
        for ctr in (1.0, 2.0):
            with server.running():
                server.write_hashes({"a": {"ctr": ctr}})
                assert (await store.fetch(["a"], 20.0)).values[0, 0] == ctr
            with pytest.raises(BackendUnreachable):
                await store.fetch(["a"], 20.0)


async def test_passwords_and_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The right password is let in, a wrong one and none are refused in words of ours; a user who may run no scripts
    is served without."""
    server = RedisServer(free_port(), tmp_path, "hidden")
    monkeypatch.setenv("RIGHT", "hidden")
    monkeypatch.setenv("WRONG", "guessed")
    with server.running():
        server.client.acl_setuser(
            "reader", enabled=True, passwords=["+hidden"], keys=["*"], commands=["+hmget"]
        )
        server.write_hashes(TABLE)
        async with opened(raw(server, password_env="RIGHT")) as store:
            assert (await store.fetch(["a"], 20.0)).found.tolist() == [True]
        for settings in ({}, {"password_env": "WRONG"}):
            async with opened(raw(server, **settings)) as store:
                with pytest.raises(BackendError, match="refused the user or the password") as refused:
                    await store.fetch(["a"], 20.0)
                assert not isinstance(refused.value, BackendUnreachable)
        named = raw(server, username="reader", password_env="RIGHT")
        async with opened(named) as store:
            with pytest.raises(BackendError, match="NoPermissionError"):
                await store.fetch(["a"], 20.0)
        async with opened(named, script=False) as store:
            assert (await store.fetch(["a"], 20.0)).found.tolist() == [True]


async def test_over_a_socket_of_the_machine(server: RedisServer) -> None:
    """A path will do for an address."""
    server.write_hashes(TABLE)
    async with opened({"kind": "redis", "url": f"unix://{server.socket}"}) as store:
        assert (await store.fetch(["a"], 20.0)).found.tolist() == [True]


def settings(server: RedisServer, timeout_s: float = 15.0, ttl_s: float = 1000.0) -> Settings:
    """A Mixer with clicks of documents and facts about users."""
    features = [
        {"name": "ctr", "source": "store", "store": "clicks", "field": "ctr"},
        {"name": "age", "source": "store", "store": "users", "field": "age", "default": -1},
    ]
    stores = {
        "clicks": raw(server, key="doc:{id}", fields=["ctr", "sales"], cache={"ttl_s": ttl_s}),
        "users": raw(server, key="user:{context.user}", fields=["age"], cache={"rows": 0}),
    }
    mix = {"features": features, "stores": {name: {"timeout_s": timeout_s} for name in stores}}
    return mixers.settings({"a": MEMORY}, mix, stores=stores)


def fill(server: RedisServer) -> None:
    server.write_hashes({"1": {"ctr": 0.25, "sales": 3}, "2": {"ctr": 0.5}, "4": {"ctr": "much"}}, "doc:")
    server.write_hashes({"ann": {"age": 31}}, "user:")


async def test_a_search_with_features_of_documents_and_user(server: RedisServer) -> None:
    """Every hit has its own numbers and the user's; what is missing, unreadable and cached is counted."""
    fill(server)
    async with mixers.running(settings(server)) as mixer:
        first = await mixer.search("csv file", features=True, context={"user": "ann"})
        again = await mixer.search("csv file", features=True, context={"user": "bob"})
    assert [hit.id for hit in first.hits] == ["1", "2", "3", "4"]
    np.testing.assert_array_equal(first.features, [[0.25, 31], [0.5, 31], [NAN, 31], [NAN, 31]])
    np.testing.assert_array_equal(again.features[:, 1], [-1] * 4)
    clicks, users = first.stores
    assert (clicks.store, clicks.asked, clicks.cached, clicks.found, clicks.unreadable) == (
        "clicks",
        4,
        0,
        3,
        1,
    )
    assert (users.asked, users.found, again.stores[1].found) == (1, 1, 0)
    assert (again.stores[0].cached, again.degraded) == (4, False)
    rows = {
        source: mixer.value("mixer_store_rows_total", mix="default", store="clicks", source=source)
        for source in ("cache", "store", "lost")
    }
    assert rows == {"cache": 4, "store": 4, "lost": 0}
    assert mixer.value("mixer_store_missing_total", mix="default", store="clicks") == 2
    assert mixer.value("mixer_store_unreadable_total", mix="default", store="clicks") == 1


async def test_spans_say_what_was_asked_and_nothing_of_whom(server: RedisServer) -> None:
    """Below the look-up stands the call by the conventions for databases; no span holds a key, or a user's value."""
    fill(server)
    with mixers.tracing() as traced, patch.object(spans, "tracer", traced.provider.get_tracer("backends")):
        async with mixers.running(settings(server)) as mixer:
            await mixer.search("csv file", context={"user": "ann"})
    call, look_up = traced.one("EVALSHA doc:{id}"), traced.one("look_up clicks")
    told = dict(call.attributes or {})
    assert call.parent is not None
    assert look_up.context is not None
    assert call.parent.span_id == look_up.context.span_id
    assert told["db.system.name"] == "redis"
    assert (told["db.operation.name"], told["server.port"]) == ("EVALSHA", server.port)
    assert "mixer.top.feature.ctr" in (traced.one("rank").attributes or {})
    said = [str(value) for span in traced.spans for value in (span.attributes or {}).values()]
    said += [key for span in traced.spans for key in span.attributes or {}]
    assert not [each for each in said if "ann" in each or "31" in each.split("(") or "feature.age" in each]


async def test_a_store_that_dies_costs_its_columns_and_no_answer(tmp_path: Path) -> None:
    """Searches go on while Redis is killed: each is answered, names the store, and keeps what the cache knew; when it
    is back they are whole again, and nothing of the failure was kept."""
    server = RedisServer(free_port(), tmp_path)
    seen: list[tuple[bool, tuple[str, ...]]] = []
    stop = asyncio.Event()

    async def search_on(mixer: mixers.Mixer) -> None:
        while not stop.is_set():
            result = await mixer.search("csv file", features=True, context={"user": "ann"})
            seen.append((result.degraded, result.degraded_reasons))

    async with mixers.running(settings(server)) as mixer:
        with server.running():
            fill(server)
            searching = [asyncio.ensure_future(search_on(mixer)) for _ in range(4)]
            await mixers.until(lambda: len(seen) > 20, 60)
            assert not any(degraded for degraded, _ in seen)
            server.kill()
        seen.clear()
        await mixers.until(lambda: any(degraded for degraded, _ in seen), 60)
        during = await mixer.search("csv file", features=True, context={"user": "ann"})
        with server.running():
            fill(server)
            seen.clear()
            await mixers.until(lambda: len(seen) > 20 and not seen[-1][0], 60)
            stop.set()
            await asyncio.gather(*searching)
            after = await mixer.search("csv file", features=True, context={"user": "ann"})
    assert during.degraded_reasons == ("store users: error",)
    np.testing.assert_array_equal(during.features, [[0.25, -1], [0.5, -1], [NAN, -1], [NAN, -1]])
    assert (during.stores[1].detail, during.stores[0].outcome) == (
        "no connection, or the server is down",
        "ok",
    )
    np.testing.assert_array_equal(after.features[:, 1], [31] * 4)


async def test_a_slow_store_is_left_behind(server: RedisServer) -> None:
    """While Redis hangs, searches are answered without it, in the store's time and not in Redis's."""
    fill(server)
    async with mixers.running(settings(server, timeout_s=0.5)) as mixer:
        with server.hanging():
            result = await mixer.search("csv file", features=True, context={"user": "ann"})
        later = await mixer.search("csv file", features=True, context={"user": "ann"})
    assert result.degraded_reasons == ("store clicks: timeout", "store users: timeout")
    assert [hit.id for hit in result.hits] == ["1", "2", "3", "4"]
    assert result.stores[0].detail == "no answer within 500 ms"
    assert (later.degraded, later.stores[0].cached) == (False, 0)
    assert mixer.value("mixer_store_rows_total", mix="default", store="clicks", source="lost") == 4
