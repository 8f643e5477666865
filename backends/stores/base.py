"""What a feature store is to Mixer: keys in, rows of numbers out.

It fails as backends do, by a `BackendError`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat

from backends.base import EngineSettings, FloatColumn
from backends.stores.key import KeyTemplate

BoolColumn = NDArray[np.bool_]


def _checked(key: str) -> str:
    KeyTemplate.parse(key)
    return key


def _distinct(fields: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(fields)) < len(fields):
        raise ValueError("names a field twice")
    return fields


class CacheSettings(EngineSettings):
    """How long a process keeps rows that it read, and those that it found missing."""

    rows: NonNegativeInt = 100_000
    """0 keeps none."""
    ttl_s: PositiveFloat = 10.0


class StoreSettings(EngineSettings):
    """What every store declares."""

    key: Annotated[str, AfterValidator(_checked)] = "{id}"
    """Of a row: `{id}` stands for a document's id, `{context.NAME}` for what the caller sent under that name."""
    fields: Annotated[tuple[str, ...], Field(min_length=1), AfterValidator(_distinct)]
    """Numbers of a row, by the store's own names."""
    cache: CacheSettings = CacheSettings()

    @property
    def template(self) -> KeyTemplate:
        """The key, read."""
        return KeyTemplate.parse(self.key)


class StoreFault(ValueError):
    """A store cannot be opened; says what to mend."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Of n keys and f fields: float64 (n, f), NaN for missing; `found` (n,) says which keys have a row."""

    values: FloatColumn
    found: BoolColumn
    unreadable: int = 0
    """Values that are there and are no finite number; they count as missing."""

    def fault(self, n: int, f: int) -> str:
        """Why these are not rows of n keys and f fields; empty where they are."""
        if self.values.shape != (n, f) or self.found.shape != (n,):
            return f"rows of another shape than {n} keys and {f} fields"
        return ""


class Store(Protocol):
    """One feature store, asked from the event loop; safe to ask many times at once."""

    async def fetch(self, keys: Sequence[str], timeout_s: float) -> Rows:
        """The rows of these distinct keys, of which there is at least one, in one round trip.

        Raises: a BackendError; anything else is a programmer's mistake.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections; called once."""
        ...


def no_rows(n: int, f: int) -> tuple[FloatColumn, BoolColumn]:
    """Values (n, f) and what is found (n,), of which nothing is known yet."""
    return np.full((n, f), np.nan), np.zeros(n, np.bool_)


def numbers(rows: Sequence[Sequence[Any]], width: int) -> tuple[FloatColumn, int]:
    """Rows of numbers, or of what reads as such, as float64 (n, width), None becoming NaN; and how many do not."""
    told = [np.nan if value is None else value for value in chain.from_iterable(rows)]
    try:
        values = np.fromiter(map(float, told), np.float64, len(told))
    except (TypeError, ValueError, OverflowError):
        values = np.fromiter(map(_number, told), np.float64, len(told))
    odd = np.isinf(values)
    values[odd] = np.nan
    return values.reshape(-1, width), int(odd.sum())


def _number(value: Any) -> float:
    """Infinity for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return np.inf


def password_from(variable: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What an environment variable holds; None where none is named. Raises: StoreFault where it is not set."""
    if variable and not environment.get(variable):
        raise StoreFault(f"password_env: the environment variable {variable} is not set")
    return environment[variable] if variable else None
