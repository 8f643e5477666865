"""The last so many of something, each under its key."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """The last so many keys, each with a value; the oldest goes first."""

    def __init__(self, most: int) -> None:
        """Keeps `most` keys."""
        self._most = most
        # Of an ordinary dict the first key is slow to find once many before it are gone.
        self._kept: OrderedDict[str, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> V | None:
        """The value of a key; None where it is not, or no longer, kept."""
        return self._kept.get(key)

    def put(self, key: str, value: V) -> None:
        """Keep this value; a key that is put again is as good as new."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)

    def drop(self, key: str) -> None:
        """Keep it no longer."""
        self._kept.pop(key, None)
