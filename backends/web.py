"""What engines that are asked over HTTP do alike: keep the time, know the index, embed the query."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Generic, TypeVar
from urllib.parse import urlsplit

import numpy as np

from backends import filters
from backends.base import Hits, Index, Query
from backends.embedding import Embedding
from backends.schema import Schema
from backends.served import Live, within
from backends.spans import db_span

Held = TypeVar("Held")

NONSENSE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading an answer raises that is not one."""
_SECURE_PORT = 443


@dataclass(frozen=True, slots=True)
class State(Generic[Held]):
    """An index as it was when last looked at."""

    index: Index
    held: Mapping[str, Held]
    """The server's name and type by the settings' name of a field."""


@dataclass(frozen=True, slots=True)
class Where:
    """What spans tell of the server."""

    system: str
    collection: str
    url: str
    port: int
    """Of HTTP in the clear, where the URL names none."""

    @property
    def address(self) -> tuple[str, int]:
        """The server's host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (self.port if parts.scheme == "http" else _SECURE_PORT)


class WebBackend(ABC, Generic[Held]):
    """A backend over an index whose state is read beside the searches."""

    def __init__(self, where: Where, schema: Schema, embedder: Path | None, live: Live[State[Held]]) -> None:
        """`embedder` is an index of vectors that embeds the queries. Raises: IndexFault where it cannot be opened."""
        self._schema, self._live, self._closed = schema, live, False
        self._embedding = Embedding.of(embedder) if embedder else None
        self._told = (where.system, "search", where.collection, *where.address)

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """See `Backend`. The server is given what is left of the time; cancelling the task cancels its search."""
        filters.check(query, self._schema)
        with db_span(*self._told):
            async with within(timeout_s):
                return await self._answer(query, monotonic() + timeout_s)

    async def close(self) -> None:
        """See `Backend`. Calls in flight end as unreachable."""
        self._closed = True
        await self._live.close()
        await self._disconnect()

    async def _answer(self, query: Query, deadline: float) -> Hits:
        state = await self._live.get()
        vector = await self._embedded(query.text)
        hits = Hits([], np.empty(0))
        if query.limit > 0 and query.text.strip() and (vector is None or any(vector)):
            hits = await self._searched(query, vector, state, deadline - monotonic())
        return replace(hits, index=state.index)

    async def _embedded(self, text: str) -> list[float] | None:
        """The query's vector where we make it."""
        if self._embedding is None:
            return None
        vector: list[float] = (await asyncio.to_thread(self._embedding.query, text)).tolist()
        return vector

    @abstractmethod
    async def _searched(
        self, query: Query, vector: list[float] | None, state: State[Held], left_s: float
    ) -> Hits:
        """What the server finds, but for the index. Raises: BackendError."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Let go of the connections."""
