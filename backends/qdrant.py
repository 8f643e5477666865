"""Qdrant: documents near the query in meaning, over a collection of your own. Nothing is written to it.

    kind: qdrant
    url: https://qdrant.example.org:6333   # REST; or, for small uses, a folder of the client's local mode:
    # path: qdrant
    api_key_env: QDRANT_API_KEY            # the environment variable that holds it; leave out where none is needed
    collection: products                   # or an alias
    vector: title                          # a named vector; leave out where the collection has but one, without a name
    embedder: indexes/semantic             # an index of kind vectors: what embeds the query; see backends/embedding.py
    id: sku                                # payload key with the document's id; the point's own id where none is given
    fields:
      title: {type: text}
      genres: {type: keyword, key: meta.genres}   # a text, a whole number, or a list of them
      year: {type: number}
    least: 0.05                            # scores no higher than this are not found; all are where none is given
    exact: false                           # true: compare every point, rather than search the graph
    ef: 128                                # effort in the graph; the collection's own where none is given
    updated_at: changed_at                 # payload key, with a payload index: seconds since 1970, or RFC 3339
    connections: 16                        # the most at once; more searches wait for one within their time

A score is Qdrant's; of a collection by Euclid or Manhattan it is 1 / (1 + distance). Ties go by id. Give each key
that is filtered by a payload index.

Once a second the collection is asked for its version, beside the searches. Qdrant counts points, not writes: the
version tells points that come or go, another configuration, and another latest `updated_at`. A point that is
overwritten in place without that changes no version. The count is the server's estimate: while it optimizes, the
version may change though no point did.

The local mode searches on the event loop, one process a folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from backends import filters
from backends import qdrant_points as points
from backends.base import (
    BackendError,
    BackendGarbage,
    BackendTimeout,
    BackendUnreachable,
    Hits,
    Index,
    Query,
)
from backends.embedding import Embedding
from backends.index import IndexFault
from backends.qdrant_settings import QdrantSettings
from backends.served import secret, within
from backends.spans import db_span
from backends.threads import Threads

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_VERSION_S = 1.0
_MORE_POINTS = 1000
"""A server may set room aside for as many hits as are asked for: no search asks for many more than it has points."""
_DISTANCES = {"Euclid", "Manhattan"}
_DOWN = {502, 503, 504}


@dataclass(frozen=True, slots=True)
class _Collection:
    """A collection as it was when last looked at."""

    index: Index
    count: int
    is_distance: bool
    """Less is nearer."""
    due_s: float
    """When to look again, of the monotonic clock."""


class Qdrant:
    """A backend over one collection. Connects when first asked."""

    Settings = QdrantSettings

    def __init__(self, settings: QdrantSettings) -> None:
        """Raises: IndexFault where the client, the key or the embedder is missing, or the folder is in use."""
        self._settings = settings
        self._client = _client(settings)
        self._schema = settings.declared
        self._numbers = set(self._schema.names("number"))
        self._keys = {name: field.key or name for name, field in settings.fields.items()}
        self._embedding = Embedding.of(settings.embedder)
        self._threads = Threads(1, "qdrant")
        self._known: _Collection | None = None
        self._closed = False
        address = urlsplit(settings.url)
        self._address, self._port = address.hostname or "localhost", address.port or 6333

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """See `Backend`. The server is told the time, in whole seconds; a task that ends closes its connection."""
        filters.check(query, self._schema)
        with db_span("qdrant", "query", self._settings.collection, self._address, self._port):
            if self._closed:
                raise BackendUnreachable("the backend is closed")
            if timeout_s <= 0:
                raise BackendTimeout("no time was left to ask")
            vector = await self._threads.run(partial(self._embedding.query, query.text), timeout_s)
            async with self._translated(timeout_s):
                return await self._answer(query, vector.tolist(), math.ceil(timeout_s))

    async def close(self) -> None:
        """See `Backend`."""
        self._closed = True
        await self._client.close()
        await self._threads.close()

    async def _answer(self, query: Query, vector: list[float], timeout_s: int) -> Hits:
        known = self._known or await self._looked_at(timeout_s)
        if monotonic() < known.due_s:
            return self._hits(await self._found(query, vector, known, timeout_s), query, known)
        found, known = await asyncio.gather(
            self._found(query, vector, known, timeout_s), self._looked_at(timeout_s)
        )
        return self._hits(found, query, known)

    async def _found(
        self, query: Query, vector: list[float], known: _Collection, timeout_s: int
    ) -> list[Any]:
        from qdrant_client import models

        passing = points.to_filter(query.filters, {**self._keys, "id": self._settings.id}, self._numbers)
        if passing is None or not any(vector) or query.limit <= 0:
            return []
        wanted = [self._keys[name] for name in query.fields if name in self._keys]
        shown = [key for key in (self._settings.id, *wanted) if key]
        answer = await self._client.query_points(
            self._settings.collection,
            query=vector,
            using=self._settings.vector or None,
            query_filter=passing,
            search_params=models.SearchParams(exact=self._settings.exact, hnsw_ef=self._settings.ef),
            limit=min(query.limit, 2 * known.count + _MORE_POINTS),
            with_payload=models.PayloadSelectorInclude(include=shown) if shown else False,
            timeout=timeout_s,
        )
        return answer.points

    async def _looked_at(self, timeout_s: int) -> _Collection:
        """The collection as it is now. Raises: BackendError where it has no such vector."""
        told, collection, latest = await asyncio.gather(
            self._client.info(),
            self._client.get_collection(self._settings.collection),
            self._latest(timeout_s),
        )
        due_s = monotonic() + _VERSION_S
        is_distance = _check(
            collection.config.params.vectors, self._settings.vector, self._embedding.dimensions
        )
        server = f"qdrant/{told.version}" if self._settings.url else f"qdrant-local/{told.version}"
        chosen = self._settings.model_dump_json(exclude={"url", "path", "api_key_env", "connections"})
        count = collection.points_count or 0
        counts = f"{count} {collection.indexed_vectors_count} {collection.segments_count}"
        content = f"{counts} {collection.config.model_dump_json()} {latest} {chosen} {server}"
        version = hashlib.sha256(content.encode()).hexdigest()[:16]
        index = Index(version, points.time_of(latest), server, self._schema.digest)
        self._known = _Collection(index, count, is_distance, due_s)
        return self._known

    async def _latest(self, timeout_s: int) -> Any:
        """The highest value of `updated_at`."""
        from qdrant_client import models

        key = self._settings.updated_at
        if not key:
            return None
        order = models.OrderBy(key=key, direction=models.Direction.DESC)
        found, _ = await self._client.scroll(
            self._settings.collection, limit=1, order_by=order, with_payload=[key], timeout=timeout_s
        )
        return points.value_of(found[0].payload, key) if found else None

    def _hits(self, found: list[Any], query: Query, known: _Collection) -> Hits:
        # Single, as servers tell them: the local mode's last digits are not always the same.
        scores = np.array([point.score for point in found], dtype=np.float32).astype(np.float64)
        scores = 1 / (1 + scores) if known.is_distance else scores
        ids = [self._id(point) for point in found]
        least = -math.inf if self._settings.least is None else self._settings.least
        rows = sorted(np.flatnonzero(scores > least).tolist(), key=lambda row: (-scores[row], ids[row]))
        payloads = [found[row].payload for row in rows]
        fields = {name: self._keys[name] for name in query.fields if name in self._keys}
        held = {name: [points.value_of(payload, key) for payload in payloads] for name, key in fields.items()}
        return Hits(
            ids=[ids[row] for row in rows],
            scores=scores[rows],
            numbers={
                n: np.array(list(map(points.number_of, held[n])), np.float64)
                for n in held
                if n in self._numbers
            },
            texts={n: list(map(points.text_of, held[n])) for n in held if n not in self._numbers},
            index=known.index,
        )

    def _id(self, point: Any) -> str:
        key = self._settings.id
        return points.text_of(points.value_of(point.payload, key)) if key else str(point.id)

    @asynccontextmanager
    async def _translated(self, timeout_s: float) -> AsyncIterator[None]:
        """Foreign errors in our words; theirs stay in `__cause__`."""
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        try:
            async with within(timeout_s):
                yield
        except UnexpectedResponse as error:
            raise self._status(error.status_code or 0) from error
        except ResourceExhaustedResponse as error:
            raise BackendError("the server takes no more searches for now: 429") from error
        except ResponseHandlingException as error:
            raise _handling(error.source) from error
        except ValueError as error:
            # The local mode's only way to say so, and what a body without sense ends in.
            raise (
                self._status(404) if self._settings.path else BackendGarbage("the answer cannot be decoded")
            ) from error

    def _status(self, status: int) -> BackendError:
        if status == 404:
            return BackendError(f"there is no collection {self._settings.collection}")
        if status in (401, 403):
            return BackendError("this key may not read the collection")
        if status in _DOWN:
            return BackendUnreachable(f"the server is down: {status}")
        return BackendError(f"the server failed with status {status}")


def _handling(source: Exception) -> BackendError:
    import httpx

    if isinstance(source, httpx.TimeoutException):
        return BackendTimeout("the connection gave no answer in time")
    if isinstance(source, httpx.TransportError):
        return BackendUnreachable("no connection, or the server is down")
    return BackendGarbage("the answer cannot be decoded")


def _check(vectors: Any, name: str, dimensions: int) -> bool:
    """Whether less is nearer in this vector of the collection. Raises: BackendError where there is no such."""
    held = vectors.get(name) if isinstance(vectors, dict) else None if name else vectors
    if held is None:
        raise BackendError(f"the collection has no vector {name or 'without a name'} (vector)")
    if held.size != dimensions:
        raise BackendError(f"the vector has {held.size} dimensions, the embedder's have {dimensions}")
    return str(held.distance.value) in _DISTANCES


def _client(settings: QdrantSettings) -> AsyncQdrantClient:
    key = secret("api_key_env", settings.api_key_env)
    try:
        import httpx
        from qdrant_client import AsyncQdrantClient
    except ImportError as error:
        raise IndexFault(
            "the qdrant engine is not installed: pip install '.[qdrant]' in Mixer's checkout"
        ) from error
    if settings.path is not None:
        try:
            return AsyncQdrantClient(path=str(settings.path))
        except (OSError, RuntimeError) as error:
            raise IndexFault(f"{settings.path} cannot be opened, or another process has it open") from error
    limits = httpx.Limits(
        max_connections=settings.connections, max_keepalive_connections=settings.connections
    )
    # As a header: the client itself warns where the key goes over plain HTTP, as it does behind a sidecar.
    headers = {"api-key": key} if key else None
    return AsyncQdrantClient(
        url=settings.url, headers=headers, limits=limits, check_compatibility=False, timeout=60
    )
