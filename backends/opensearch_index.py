"""What an index is now, as its server tells: its fields, held against the settings, its version and freshness."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

from backends.base import BackendError, BackendGarbage, BackendRefused, Index
from backends.bounds import FRACTIONAL, WHOLE
from backends.opensearch_query import Held
from backends.opensearch_settings import Dsl, OpenSearchSettings, Vectors
from backends.served import digest
from backends.web import NONSENSE, State

Ask = Callable[[str, str, Mapping[str, Any], Dsl | None], Awaitable[Any]]
"""Method, path, parameters, body -> the answer, read. Raises: BackendError."""

_TYPES = {
    "text": {"text", "match_only_text", "annotated_text", "search_as_you_type"},
    "keyword": {"keyword", "constant_keyword", "wildcard", "version"},
    "number": {*WHOLE, *FRACTIONAL},
}
_VECTORS = {"opensearch": "knn_vector", "elasticsearch": "dense_vector"}
_SEGMENTS = "indices.*.shards.*.routing.primary,indices.*.shards.*.segments.*.{}"
_OF_CONNECTION = {
    "urls",
    "user",
    "password_env",
    "api_key_env",
    "ca_file",
    "connections",
    "version_every_s",
    "version",
    "updated_at",
}


class Reader:
    """Reads the state of one index or alias."""

    def __init__(self, settings: OpenSearchSettings, ask: Ask) -> None:
        """Asks nothing yet."""
        self._settings, self._ask = settings, ask
        self._path = quote(settings.index, safe=",*")
        self._chosen = settings.model_dump_json(exclude=_OF_CONNECTION)
        self._known: tuple[Any, str, Mapping[str, Held]] | None = None

    async def read(self) -> State[Held]:
        """The state now. Raises: BackendError where the index is not as the settings have it."""
        try:
            return await self._read()
        except BackendRefused as error:
            raise BackendError(f"the server does not tell of the index: {error}") from error
        except NONSENSE as error:
            raise BackendGarbage("what the server says of the index makes no sense") from error

    async def _read(self) -> State[Held]:
        segments, fresh_at_s = await asyncio.gather(self._segments(), self._fresh_at_s())
        # After what it holds: an index that takes the name meanwhile is seen to be another.
        indices = await self._indices()
        if self._known is None or self._known[0] != indices:
            server, held = await asyncio.gather(self._server(), self._fields())
            self._known = (indices, server, held)
        _, server, held = self._known
        version = digest([indices, segments, self._chosen, server])
        schema = digest(sorted((name, *field) for name, field in held.items()))
        return State(Index(version, fresh_at_s, server, schema), held)

    async def _indices(self) -> Any:
        """What tells an index from another that takes its name."""
        if self._settings.version == "none":
            return {}
        path, wanted = f"/{self._path}/_stats/docs", {"filter_path": "indices.*.uuid"}
        return (await self._ask("GET", path, wanted, None)).get("indices", {})

    async def _segments(self) -> Any:
        """What a search sees: the segments of the primaries, and how much of each is deleted."""
        if self._settings.version == "none":
            return []
        wanted = ",".join(map(_SEGMENTS.format, ("num_docs", "deleted_docs", "search")))
        answer = await self._ask("GET", f"/{self._path}/_segments", {"filter_path": wanted}, None)
        return [
            [index, shard, name, segment["num_docs"], segment["deleted_docs"]]
            for index, shards in sorted(answer.get("indices", {}).items())
            for shard, copies in sorted(shards["shards"].items())
            for copy in copies
            if copy["routing"]["primary"]
            for name, segment in sorted(copy.get("segments", {}).items())
            if segment["search"]
        ]

    async def _fresh_at_s(self) -> float:
        if not self._settings.updated_at:
            return 0.0
        latest = {"aggs": {"latest": {"max": {"field": self._settings.updated_at}}}}
        wanted: Dsl = {"size": 0, "track_total_hits": False, **latest}
        answer = await self._ask("POST", f"/{self._path}/_search", {}, wanted)
        value = answer["aggregations"]["latest"]["value"]
        return 0.0 if value is None else float(value) / 1000

    async def _server(self) -> str:
        version = (await self._ask("GET", "/", {}, None))["version"]
        found = str(version.get("distribution", "elasticsearch"))
        if found != self._settings.flavor:
            raise BackendError(f"the server is {found[:32]}: set `flavor` to it")
        return f"{found}/{version['number']}"

    async def _fields(self) -> Mapping[str, Held]:
        """Raises: BackendError naming the fields that the index does not have so."""
        settings = self._settings
        declared = settings.named("text", "keyword", "number")
        wanted = {name: _TYPES[settings.fields[name].type] for name in declared}
        if settings.id != "_id":
            declared, wanted = {**declared, "id": settings.id}, {**wanted, "id": _TYPES["keyword"]}
        if settings.updated_at:
            declared |= {"updated_at": settings.updated_at}
            wanted |= {"updated_at": {"date", "date_nanos"}}
        if isinstance(settings.search, Vectors):
            declared |= {"search.field": settings.search.field}
            wanted |= {"search.field": {_VECTORS[settings.flavor]}}
        parameters = {"fields": ",".join(sorted(set(declared.values())))}
        there = (await self._ask("GET", f"/{self._path}/_field_caps", parameters, None))["fields"]
        faults = [fault for name in declared if (fault := _fault(name, declared[name], wanted[name], there))]
        if faults:
            raise BackendError(f"index {settings.index}: {'; '.join(faults)}")
        return {name: Held(declared[name], _narrowest(there[declared[name]])) for name in settings.fields}


def _fault(name: str, field: str, wanted: set[str], there: Mapping[str, Any]) -> str:
    """Why a field will not do; empty where it does."""
    found = set(there.get(field, {})) - {"unmapped"}
    if not found:
        return f"`{name}`: there is no field {field}"
    if found - wanted:
        known = ", ".join(sorted(found))[:64]
        return f"`{name}`: field {field} is {known}, where {' or '.join(sorted(wanted))} is needed"
    is_sought = all(told["searchable"] for kind, told in there[field].items() if kind in found)
    return "" if is_sought or name == "search.field" else f"`{name}`: field {field} is not indexed"


def _narrowest(kinds: Mapping[str, Any]) -> str:
    """Of several types in several indices, the one that holds least."""
    order = [*WHOLE, *FRACTIONAL]
    known = sorted(kinds.keys() - {"unmapped"}, key=lambda kind: order.index(kind) if kind in order else 0)
    return known[0]
