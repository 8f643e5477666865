"""An engine opened from its settings, asked as Mixer asks it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import TypeAdapter

from backends import BackendSettings, open_backend
from backends.base import Backend, Hits, Index, Query


@asynccontextmanager
async def opening(raw: dict[str, Any]) -> AsyncIterator[Backend]:
    """The engine, closed at the end."""
    adapter: TypeAdapter[BackendSettings] = TypeAdapter(BackendSettings)
    made = open_backend(adapter.validate_python(raw))
    try:
        yield made
    finally:
        await made.close()


async def asked(made: Backend, text: str, limit: int = 100, **more: Any) -> Hits:
    """Its answer to these words."""
    return await made.retrieve(Query(text, limit, **more), timeout_s=10.0)


async def index_when(made: Backend, holds: Callable[[Index], bool]) -> Index:
    """What answers tell of the index, once this holds of it."""
    async with asyncio.timeout(30.0):
        while not holds(found := (await asked(made, "csv")).index):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return found
