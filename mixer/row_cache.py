"""Rows of numbers kept by key for a while, looked up many at once: the oldest place is given to the newest row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from time import monotonic

import numpy as np

from backends.base import FloatColumn
from backends.stores.base import BoolColumn, Rows


class RowCache:
    """At most so many rows of one width; one whose time is up is as good as none. Keeps missing rows too."""

    def __init__(self, size: int, width: int, ttl_s: float, clock: Callable[[], float] = monotonic) -> None:
        """Takes its memory as it fills."""
        self._size, self._ttl_s, self._clock = size, ttl_s, clock
        # The last row is never written: it is that of keys that have none.
        self._values = np.empty((size + 1, width))
        self._found = np.zeros(size + 1, np.bool_)
        self._until_s = np.full(size + 1, -np.inf)
        self._places: dict[str, int] = {}
        self._keys: list[str] = []
        self._next = 0

    def get(self, keys: Sequence[str]) -> tuple[FloatColumn, BoolColumn, BoolColumn]:
        """Of n keys: values (n, f), which have a row (n,), and of which that is known (n,); NaN where it is not."""
        places = np.fromiter(map(self._places.get, keys, repeat(self._size)), np.intp, len(keys))
        known = self._until_s[places] > self._clock()
        values = np.where(known[:, None], self._values[places], np.nan)
        return values, self._found[places] & known, known

    def put(self, keys: Sequence[str], rows: Rows) -> None:
        """Keep these rows, a key each, from now on."""
        if not self._size:
            return
        places = np.fromiter(map(self._place, keys), np.intp, len(keys))
        self._values[places], self._found[places] = rows.values, rows.found
        self._until_s[places] = self._clock() + self._ttl_s

    def _place(self, key: str) -> int:
        """The key's own place, or the oldest."""
        place = self._places.get(key)
        if place is None:
            place, self._next = self._next, (self._next + 1) % self._size
            if place < len(self._keys):
                del self._places[self._keys[place]]
                self._keys[place] = key
            else:
                self._keys.append(key)
            self._places[key] = place
        return place
