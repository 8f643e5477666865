"""Answers of tables put in the order of the keys that were asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backends.stores.base import Rows, no_rows, numbers

_BIGINT_DIGITS = 18


def rows_of(keys: Sequence[str], told: Sequence[Sequence[Any]], width: int) -> Rows:
    """Rows of these keys, of a table's rows: the key, then its values. A key that stands in several has any of them."""
    place = dict(zip(keys, range(len(keys)), strict=True))
    places = np.fromiter((place.get(str(row[0]), -1) for row in told), np.intp, len(told))
    read, unreadable = numbers([row[1:] for row in told], width)
    values, found = no_rows(len(keys), width)
    known = places >= 0
    values[places[known]], found[places[known]] = read[known], True
    return Rows(values, found, unreadable)


def whole_numbers(keys: Sequence[str]) -> list[int]:
    """Those keys that are one, of a size that a database holds."""
    return [
        int(key)
        for key in keys
        if key.isascii() and key.removeprefix("-").isdigit() and len(key) <= _BIGINT_DIGITS
    ]
