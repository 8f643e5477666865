from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from backends.stores.base import Rows, StoreFault, StoreSettings, no_rows, numbers, password_from

NAN = float("nan")


@pytest.mark.parametrize(
    ("row", "expected", "unreadable"),
    [
        ([1, 2.5, True, Decimal("0.1"), None], [1, 2.5, 1, 0.1, NAN], 0),
        ([b"1.5", "2", b" 3 ", "nan"], [1.5, 2, 3, NAN], 0),
        ([b"abc", "", {}, datetime(2024, 1, 1, tzinfo=UTC), 7], [NAN, NAN, NAN, NAN, 7], 4),
        ([b"inf", float("-inf"), 10**400, 1], [NAN, NAN, NAN, 1], 3),
        ([], [], 0),
    ],
)
def test_numbers(row: Sequence[Any], expected: Sequence[float], unreadable: int) -> None:
    """What reads as a finite number is one; what is not there is missing, what is something else is counted too."""
    values, odd = numbers([row], max(len(row), 1))
    np.testing.assert_array_equal(values.ravel(), expected)
    assert odd == unreadable


@given(st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=3, max_size=3)))
def test_text_keeps_every_bit(rows: list[list[float]]) -> None:
    """A number that was written as text is the same double."""
    values, odd = numbers([[repr(value).encode() for value in row] for row in rows], 3)
    np.testing.assert_array_equal(values, np.array(rows).reshape(-1, 3))
    assert odd == 0


def test_rows_of_another_shape_are_a_fault() -> None:
    """As many rows as keys, as many columns as fields."""
    rows = Rows(*no_rows(2, 3))
    assert rows.fault(2, 3) == ""
    assert rows.fault(3, 3)
    assert rows.fault(2, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"fields": []},
        {"fields": ["a", "a"]},
        {"fields": ["a"], "key": "{uid}"},
        {"fields": ["a"], "cache": {"rows": -1}},
        {"fields": ["a"], "cache": {"ttl_s": 0}},
        {"fields": ["a"], "ttl": 3},
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    """No field, one twice, a key of nothing, a cache of less than nothing."""
    with pytest.raises(ValidationError):
        StoreSettings.model_validate(settings)


def test_passwords_come_from_the_environment() -> None:
    """By the variable's name; none where none is named, a fault where it holds nothing."""
    assert password_from("SHOP", {"SHOP": "secret"}) == "secret"
    assert password_from("", {}) is None
    for environment in ({}, {"SHOP": ""}):
        with pytest.raises(StoreFault, match="SHOP is not set"):
            password_from("SHOP", environment)
