from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import BackendError, BackendRefused, BackendTimeout
from backends.stores.base import Rows, StoreSettings, no_rows
from mixer.hydrate import Hydrate, Hydrator, Wanted, as_they_are, look_up
from mixer.values import Candidates, Outcome, Stored
from tests.samples import candidates, mix, plan, request

TABLE = {"a": [1.0, 10.0], "b": [2.0, np.nan], "user:ann": [31.0, 0.5]}


class Fake:
    """A store of a table; `then` happens before it answers."""

    def __init__(
        self, then: Callable[[], Any] | None = None, table: Mapping[str, Sequence[float]] = TABLE
    ) -> None:
        self.then, self.table, self.asked, self.closed = then, table, list[list[str]](), False

    async def fetch(self, keys: Sequence[str], timeout_s: float) -> Rows:
        self.asked.append(list(keys))
        await asyncio.sleep(0)
        if self.then:
            told = self.then()
            if told is not None:
                return await told if asyncio.iscoroutine(told) else told  # type: ignore[no-any-return]
        values, found = no_rows(len(keys), 2)
        for place, key in enumerate(keys):
            if key in self.table:
                values[place], found[place] = self.table[key], True
        return Rows(values, found)

    async def close(self) -> None:
        self.closed = True


def hydrator(store: Fake, **settings: Any) -> Hydrator:
    return Hydrator("clicks", StoreSettings(**{"fields": ("ctr", "sales"), **settings}), store)


async def stored(
    store: Fake, ids: Sequence[str] = ("a", "b", "c"), timeout_s: float = 5.0, **settings: Any
) -> Stored:
    return await hydrator(store, **settings).look_up(Wanted(ids, {}, timeout_s))


def raising(error: BaseException) -> Callable[[], Any]:
    def then() -> None:
        raise error

    return then


async def test_a_row_a_document() -> None:
    """Columns stand in the order of the ids; a document without a row, and a field without a value, are missing."""
    store = Fake()
    told = await stored(store, ["b", "c", "a"])
    np.testing.assert_array_equal(told.columns["ctr"], [2, np.nan, 1])
    np.testing.assert_array_equal(told.columns["sales"], [np.nan, np.nan, 10])
    assert (told.outcome, told.asked, told.cached, told.found, told.lost) == (Outcome.OK, 3, 0, 2, 0)
    assert store.asked == [["b", "c", "a"]]


async def test_one_row_for_all() -> None:
    """A store that is keyed by the context gives every document the same values."""
    store = Fake()
    one = hydrator(store, key="user:{context.user}")
    told = await one.look_up(Wanted(["x", "y"], {"user": "ann"}, 5.0))
    assert told.columns["ctr"].tolist() == [31, 31]
    assert (told.asked, told.found, store.asked) == (1, 1, [["user:ann"]])


@pytest.mark.parametrize("context", [{}, {"user": ""}, {"other": "ann"}])
async def test_a_caller_who_does_not_say_who_they_are(context: Mapping[str, str]) -> None:
    """The store is not asked, the columns are missing, the answer says why; it is no failure."""
    store = Fake()
    told = await hydrator(store, key="user:{context.user}").look_up(Wanted(["x", "y"], context, 5.0))
    np.testing.assert_array_equal(told.columns["ctr"], [np.nan, np.nan])
    assert (told.outcome, told.asked, store.asked) == (Outcome.OK, 0, [])
    assert told.detail == "the request's context has no user"


async def test_only_what_the_cache_does_not_know_is_asked() -> None:
    """Rows, and that there is none, are known for a while; the store hears of the rest, in one go."""
    store = Fake()
    one = hydrator(store)
    await one.look_up(Wanted(["a", "c"], {}, 5.0))
    told = await one.look_up(Wanted(["a", "b", "c"], {}, 5.0))
    assert store.asked == [["a", "c"], ["b"]]
    assert (told.asked, told.cached, told.found) == (3, 2, 2)
    again = await one.look_up(Wanted(["a", "b", "c"], {}, 0.0))
    assert (again.outcome, again.cached, len(store.asked)) == (Outcome.OK, 3, 2)


@pytest.mark.parametrize(
    ("then", "outcome", "detail"),
    [
        (raising(BackendTimeout("late")), Outcome.TIMEOUT, "no answer within 5000 ms"),
        (raising(BackendError("broken")), Outcome.ERROR, "broken"),
        (raising(BackendRefused("never")), Outcome.REFUSED, "never"),
        (raising(KeyError("secret")), Outcome.ERROR, "crashed with KeyError"),
        (raising(asyncio.CancelledError()), Outcome.CANCELLED, "it cancelled the call by itself"),
        (
            lambda: Rows(*no_rows(1, 2)),
            Outcome.ERROR,
            "garbage: rows of another shape than 2 keys and 2 fields",
        ),
    ],
)
async def test_a_failure_is_a_value(then: Callable[[], Any], outcome: Outcome, detail: str) -> None:
    """However the store fails, what the cache knew stands, the rest is missing and lost, and nothing is kept of it."""
    store = Fake()
    one = hydrator(store)
    await one.look_up(Wanted(["a"], {}, 5.0))
    store.then = then
    told = await one.look_up(Wanted(["a", "b", "c"], {}, 5.0))
    np.testing.assert_array_equal(told.columns["ctr"], [1, np.nan, np.nan])
    assert (told.outcome, told.detail) == (outcome, detail)
    assert (told.asked, told.cached, told.found, told.lost) == (3, 1, 1, 2)
    store.then = None
    assert (await one.look_up(Wanted(["b"], {}, 5.0))).columns["ctr"].tolist() == [2]


async def test_a_store_that_keeps_no_time_is_left_behind() -> None:
    """The time given ends the look-up, whatever the store does with it."""
    told = await stored(Fake(lambda: asyncio.sleep(60)), timeout_s=0.01)
    assert (told.outcome, told.lost) == (Outcome.TIMEOUT, 3)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
async def test_without_time_nobody_is_asked(timeout_s: float) -> None:
    """Where ranking's reserve is all that is left, the store is skipped, and the answer says so."""
    store = Fake()
    told = await stored(store, timeout_s=timeout_s)
    assert (told.outcome, told.lost, store.asked) == (Outcome.SKIPPED, 3, [])
    assert told.detail == "no time was left to ask"


async def test_a_canceled_search_cancels_its_look_ups() -> None:
    """Cancellation from outside is no outcome: it goes through."""
    task = asyncio.ensure_future(stored(Fake(lambda: asyncio.sleep(60)), timeout_s=60.0))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_no_candidates_ask_nobody() -> None:
    """No ids are no keys; columns are there, of length 0."""
    store = Fake()
    told = await stored(store, [])
    assert (told.asked, told.columns["ctr"].shape, store.asked) == (0, (0,), [])


async def hydrated(hydrators: Mapping[str, Hydrator], rules: Mapping[str, Any], **asked: Any) -> Candidates:
    found = candidates([2, 1], ids=["a", "b"])
    made = mix("a", stores=rules)
    return await Hydrate(made, hydrators, look_up)(plan(made, request(**asked)), found)


async def test_all_stores_at_once_in_the_mix_s_order() -> None:
    """None waits for another, and whichever is done first, they stand as the mix names them."""
    met = asyncio.Barrier(2)

    async def together() -> Rows:
        await met.wait()
        return Rows(*no_rows(2, 2))

    stores = {name: Hydrator(name, StoreSettings(fields=("x", "y")), Fake(together)) for name in "pq"}
    told = await hydrated(stores, {"q": {"timeout_s": 20}, "p": {"timeout_s": 20}})
    assert [(each.store, each.outcome) for each in told.stores] == [("q", Outcome.OK), ("p", Outcome.OK)]


async def test_a_store_has_its_own_time_or_what_is_left() -> None:
    """The lesser of the store's timeout and the deadline less the reserve for ranking."""
    seen: list[float] = []

    async def watched(one: Hydrator, wanted: Wanted) -> Stored:
        seen.append(wanted.timeout_s)
        return await one.look_up(wanted)

    made = mix("a", stores={"clicks": {"timeout_s": 0.5}}, rank_reserve_s=0.1)
    stage = Hydrate(made, {"clicks": hydrator(Fake())}, watched)
    for left_s in (1000.0, 0.3, 0.05):
        await stage(plan(made, request(deadline_s=monotonic() + left_s)), candidates([1], ids=["a"]))
    assert seen[0] == 0.5
    assert seen[1] <= 0.2
    assert seen[2] < 0


async def test_the_candidates_stay_as_they_are() -> None:
    """The stage adds; without stores it gives back what it got."""
    found = candidates([2, 1], ids=["a", "b"])
    assert await as_they_are(plan(), found) is found
    told = await hydrated({"clicks": hydrator(Fake())}, {"clicks": {}})
    assert (told.ids, told.fused.tolist(), found.stores) == (found.ids, found.fused.tolist(), ())


async def test_closing_closes_the_store() -> None:
    """Once for all mixes."""
    store = Fake()
    await hydrator(store).close()
    assert store.closed


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), min_size=1, max_size=12),
    st.integers(0, 6),
    st.sets(st.integers(0, 11)),
)
def test_columns_are_what_a_look_up_by_key_gives(
    asked: list[list[str]], rows: int, failing: set[int]
) -> None:
    """Whatever the cache holds, and whichever calls fail: a value is that of its key, or missing where there is none or
    where the store was needed and did not answer."""
    table = {key: [float(place), -float(place)] for place, key in enumerate("abcdef")}

    async def run() -> None:
        store = Fake(table=table)
        one = hydrator(store, cache={"rows": rows, "ttl_s": 1000})
        for number, ids in enumerate(asked):
            store.then = raising(BackendError("down")) if number in failing else None
            told = await one.look_up(Wanted(ids, {}, 5.0))
            known = np.array([table.get(id_, [np.nan, np.nan])[0] for id_ in ids])
            column = told.columns["ctr"]
            lost = np.isnan(column) & ~np.isnan(known)
            np.testing.assert_array_equal(column[~lost], known[~lost])
            assert int(lost.sum()) <= told.lost
            assert told.lost == (0 if told.outcome is Outcome.OK else told.asked - told.cached)

    asyncio.run(run())
