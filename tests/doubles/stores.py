"""What every feature store must do, whatever holds its rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from backends.stores import AnyStoreSettings, open_store
from backends.stores.base import Store

Table = Mapping[str, Mapping[str, float | str | None]]
Filled = Callable[[Table], dict[str, Any]]
"""Makes rows be there by key, of the fields `ctr` and `sales`, which are numbers, and `odd`, which is text; and tells
the settings of a store that reads them."""

FIELDS = ("ctr", "sales", "odd")
TABLE: Table = {
    "a": {"ctr": 0.1, "sales": 7, "odd": "1.5"},
    "b'; --": {"ctr": 1e-300, "sales": None, "odd": "no number"},
    "ünï": {"ctr": -2.5, "sales": 2**53, "odd": "inf"},
}
NAN = float("nan")


@asynccontextmanager
async def opened(raw: Mapping[str, Any], **settings: Any) -> AsyncIterator[Store]:
    """A store of these settings."""
    whole = {"fields": FIELDS, **raw, **settings}
    store = open_store(TypeAdapter[AnyStoreSettings](AnyStoreSettings).validate_python(whole))
    try:
        yield store
    finally:
        await store.close()


class StoreContract:
    """Rules of all stores; who inherits them has a fixture `filled`."""

    async def test_rows_stand_in_the_order_of_the_keys(self, filled: Filled) -> None:
        """A value is what was written, to the bit; what is not there or is no number is NaN and the latter counted."""
        async with opened(filled(TABLE)) as store:
            rows = await store.fetch(["ünï", "missing", "a", "b'; --"], 20.0)
        expected = [[-2.5, 2.0**53, NAN], [NAN, NAN, NAN], [0.1, 7, 1.5], [1e-300, NAN, NAN]]
        np.testing.assert_array_equal(rows.values, expected)
        assert rows.values.dtype == np.float64
        assert rows.found.tolist() == [True, False, True, True]
        assert rows.unreadable == 2

    async def test_only_the_fields_that_are_asked(self, filled: Filled) -> None:
        """One field is one column."""
        async with opened(filled(TABLE), fields=["sales"]) as store:
            rows = await store.fetch(["a"], 20.0)
        assert rows.values.tolist() == [[7.0]]

    async def test_nothing_is_there(self, filled: Filled) -> None:
        """Keys without a row are no failure."""
        async with opened(filled({})) as store:
            rows = await store.fetch(["x", "y"], 20.0)
        assert (rows.found.tolist(), rows.values.shape, rows.unreadable) == ([False, False], (2, 3), 0)

    async def test_many_keys_at_once(self, filled: Filled) -> None:
        """Two thousand keys are one question."""
        table = {f"d{number}": {"ctr": number / 7, "sales": 1, "odd": None} for number in range(0, 2000, 2)}
        async with opened(filled(table)) as store:
            rows = await store.fetch([f"d{number}" for number in range(2000)], 30.0)
        assert rows.found.tolist() == [True, False] * 1000
        np.testing.assert_array_equal(rows.values[::2, 0], np.arange(0, 2000, 2) / 7)

    async def test_many_questions_at_once(self, filled: Filled) -> None:
        """Each gets its own answer."""
        table = {f"d{number}": {"ctr": number, "sales": None, "odd": None} for number in range(40)}
        async with opened(filled(table)) as store:
            asked = [store.fetch([f"d{number}", f"d{39 - number}"], 30.0) for number in range(40)]
            answers = await asyncio.gather(*asked)
        told = [rows.values[:, 0].tolist() for rows in answers]
        assert told == [[number, 39 - number] for number in range(40)]
