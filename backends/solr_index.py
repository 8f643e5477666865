"""What a collection is now, as its server tells: its fields, held against the settings, its version and freshness."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from backends.base import BackendError, BackendGarbage, BackendRefused, Index
from backends.bounds import FRACTIONAL, WHOLE
from backends.served import digest
from backends.solr_query import Held
from backends.solr_settings import SolrSettings, Vectors
from backends.web import NONSENSE, State

Ask = Callable[[str, Mapping[str, str]], Awaitable[Any]]
"""Path below Solr's root, parameters -> the answer, read. Raises: BackendError."""

_TYPES = {
    **dict.fromkeys(("TextField", "SortableTextField"), "text"),
    **dict.fromkeys(("StrField", "UUIDField"), "keyword"),
    **dict.fromkeys(("IntPointField", "TrieIntField"), "integer"),
    **dict.fromkeys(("LongPointField", "TrieLongField"), "long"),
    **dict.fromkeys(("FloatPointField", "TrieFloatField"), "float"),
    **dict.fromkeys(("DoublePointField", "TrieDoubleField"), "double"),
    **dict.fromkeys(("DatePointField", "TrieDateField"), "date"),
    "DenseVectorField": "vector",
}
_WANTED = {"text": {"text"}, "keyword": {"keyword"}, "number": {*WHOLE, *FRACTIONAL}}
_OF_CONNECTION = {
    "url",
    "user",
    "password_env",
    "ca_file",
    "connections",
    "version_every_s",
    "version",
    "updated_at",
}
_CHANGES = ("version", "numDocs", "maxDoc", "deletedDocs")


class Reader:
    """Reads the state of one collection or core."""

    def __init__(self, settings: SolrSettings, ask: Ask) -> None:
        """Asks nothing yet."""
        self._settings, self._ask = settings, ask
        self._chosen = settings.model_dump_json(exclude=_OF_CONNECTION)
        self._known: tuple[str, str, Mapping[str, Held]] | None = None

    async def read(self) -> State[Held]:
        """The state now. Raises: BackendError where the collection is not as the settings have it."""
        try:
            return await self._read()
        except BackendRefused as error:
            raise BackendError(f"the server does not tell of the collection: {error}") from error
        except NONSENSE as error:
            raise BackendGarbage("what the server says of the collection makes no sense") from error

    async def _read(self) -> State[Held]:
        told, committed_at_s = await self._told()
        if self._known is None or self._known[0] != told:
            server, held = await asyncio.gather(self._server(), self._fields())
            self._known = (told, server, held)
        _, server, held = self._known
        version = digest([told, self._chosen, server])
        schema = digest(sorted((name, *field) for name, field in held.items()))
        fresh_at_s = await self._updated_at_s() if self._settings.updated_at else committed_at_s
        return State(Index(version, fresh_at_s, server, schema), held)

    async def _told(self) -> tuple[str, float]:
        """What changes with the documents, and when they last did, 0 where unknown."""
        if self._settings.version == "luke":
            told = (await self._of("admin/luke", numTerms="0", show="index"))["index"]
            committed = told.get("userData", {}).get("commitTimeMSec", "0")
            changed = [told.get(name) for name in _CHANGES]
            return json.dumps([*changed, committed]), _at_s(told.get("lastModified"))
        if self._settings.version == "documents":
            found = await self._latest("_version_")
            return json.dumps([found["numFound"], found["docs"]]), 0.0
        return "", 0.0

    async def _updated_at_s(self) -> float:
        documents = (await self._latest(self._settings.updated_at))["docs"]
        return _at_s(documents[0].get(self._settings.updated_at)) if documents else 0.0

    async def _latest(self, field: str) -> Any:
        """How many documents there are, and the greatest value of the field. Solr keeps it until they change."""
        answer = await self._of("select", q="*:*", sort=f"{field} desc", fl=field, rows="1")
        return answer["response"]

    async def _server(self) -> str:
        told = await self._ask("admin/info/system", {"wt": "json"})
        if told.get("mode") == "solrcloud" and self._settings.version == "luke":
            raise BackendError("`version: luke` tells of one core: on SolrCloud set `version` to documents")
        return f"solr/{told['lucene']['solr-spec-version']}"

    async def _fields(self) -> Mapping[str, Held]:
        """Raises: BackendError naming the fields that the collection does not have so."""
        settings = self._settings
        declared = {**settings.named("text", "keyword", "number"), "id": settings.id}
        wanted = {name: _WANTED[field.type] for name, field in settings.fields.items()}
        wanted["id"] = _WANTED["keyword"]
        if settings.updated_at:
            declared["updated_at"], wanted["updated_at"] = settings.updated_at, {"date"}
        if isinstance(settings.search, Vectors):
            declared["search.field"], wanted["search.field"] = settings.search.field, {"vector"}
        there = await self._schema(declared.values())
        faults = [fault for name in declared if (fault := _fault(name, declared[name], wanted[name], there))]
        if faults:
            raise BackendError(f"collection {settings.collection}: {'; '.join(faults)}")
        return {
            name: Held(declared[name], there[declared[name]]["kind"], _is_shown(there[declared[name]]))
            for name in settings.fields
        }

    async def _schema(self, names: Any) -> dict[str, dict[str, Any]]:
        """The schema's entry of each field, those of patterns among them, and our word for its type in `kind`."""
        wanted = {"fl": ",".join(sorted(set(names))), "includeDynamic": "true", "showDefaults": "true"}
        fields, types = await asyncio.gather(
            self._of("schema/fields", **wanted), self._of("schema/fieldtypes")
        )
        classes = {told["name"]: told["class"].rsplit(".", 1)[-1] for told in types["fieldTypes"]}
        return {
            told["name"]: {**told, "kind": _TYPES.get(classes[told["type"]], classes[told["type"]])}
            for told in fields["fields"]
        }

    async def _of(self, path: str, **parameters: str) -> Any:
        return await self._ask(f"{self._settings.collection}/{path}", {"wt": "json", **parameters})


def _fault(name: str, field: str, wanted: set[str], there: Mapping[str, Any]) -> str:
    """Why a field will not do; empty where it does."""
    if field not in there:
        return f"`{name}`: there is no field {field}"
    told = there[field]
    if told["kind"] not in wanted:
        return f"`{name}`: field {field} is {told['kind']}, where {' or '.join(sorted(wanted))} is needed"
    # A number is found by its docValues too.
    is_sought = told["indexed"] or (told["docValues"] and told["kind"] not in ("text", "keyword"))
    return "" if is_sought else f"`{name}`: field {field} is not indexed"


def _is_shown(told: Mapping[str, Any]) -> bool:
    return bool(told["stored"] or (told["docValues"] and told.get("useDocValuesAsStored", True)))


def _at_s(moment: str | None) -> float:
    return datetime.fromisoformat(moment).timestamp() if moment else 0.0
