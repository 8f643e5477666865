"""Qdrant beyond the contract: collections of every shape by its local mode, and what a server sends and suffers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from backends import spans
from backends.base import (
    BackendError,
    BackendGarbage,
    BackendTimeout,
    BackendUnreachable,
    Equals,
    Filter,
    Hits,
    Query,
    Range,
    Terms,
)
from backends.index import IndexFault
from backends.qdrant import Qdrant
from backends.qdrant_settings import QdrantSettings
from tests.doubles import qdrant
from tests.doubles.sockets import refusing

SECRET = "hunter2"
FIELDS = {
    "year": {"type": "number"},
    "tags": {"type": "keyword"},
    "kind": {"type": "keyword", "key": "meta.kind"},
}
BASE: dict[str, Any] = {
    "kind": "qdrant",
    "collection": "books",
    "vector": "meaning",
    "id": "sku",
    "fields": FIELDS,
}
Opened = Callable[..., Any]


@pytest.fixture
def opened(library: dict[str, Path]) -> Opened:
    @asynccontextmanager
    async def backend(**more: Any) -> AsyncIterator[Qdrant]:
        raw = {**BASE, "embedder": library["vectors"], **more}
        engine = Qdrant(QdrantSettings.model_validate(raw))
        try:
            yield engine
        finally:
            await engine.close()

    return backend


async def ask(backend: Qdrant, text: str = "read csv", timeout_s: float = 30.0, **more: Any) -> Hits:
    return await backend.retrieve(Query(text, more.pop("limit", 10), **more), timeout_s)


@pytest.fixture
def folder(tmp_path: Path, library: dict[str, Path]) -> Path:
    """Three points with payloads of many shapes."""
    documents: list[dict[str, Any]] = [
        {"id": "a", "title": "read csv"},
        {"id": "7", "title": "read csv rows"},
        {"id": "c", "title": "write csv"},
    ]
    qdrant.fill(tmp_path / "data", "books", documents, library["vectors"])
    client = QdrantClient(path=str(tmp_path / "data"))
    client.set_payload(
        "books", {"meta": {"kind": "k"}, "year": 2001, "changed": 100.5, "tags": ["x", 7]}, [0]
    )
    client.set_payload("books", {"sku": 7, "year": "2001", "meta": "k", "tags": True}, [1])
    client.set_payload("books", {"meta": {"kind": ["k", "l"]}, "year": -0.5, "changed": 50}, [2])
    client.close()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        (Filter("kind", Equals("k")), ["a", "c"]),
        (Filter("kind", Terms(("l", "z"))), ["c"]),
        (Filter("tags", Equals("7")), ["a"]),
        (Filter("tags", Equals("07")), []),
        (Filter("year", Equals(2001)), ["a"]),
        (Filter("year", Terms((-0.5, 2001.0))), ["a", "c"]),
        (Filter("year", Range(max=1e400)), ["a", "c"]),
        (Filter("year", Range(min=float("inf"))), []),
        (Filter("id", Terms(("7", "c"))), ["7", "c"]),
    ],
    ids=str,
)
async def test_payloads(opened: Opened, folder: Path, condition: Filter, ids: list[str]) -> None:
    """Nested keys, lists and whole numbers are filtered as they are shown; a value of another type is missing."""
    async with opened(path=folder) as backend:
        hits = await ask(backend, filters=(condition,), fields=("year", "tags", "kind"))
    assert hits.fault() is None
    assert sorted(hits.ids) == ids
    shown = dict(zip(hits.ids, hits.texts["tags"], strict=True))
    assert shown.get("a", "x, 7") == "x, 7"
    assert shown.get("7", "") == ""


async def test_ids_of_points(opened: Opened, folder: Path) -> None:
    """Without a key for it a document's id is its point's, and is filtered as such."""
    async with opened(path=folder, id="") as backend:
        assert set((await ask(backend)).ids) == {"0", "1", "2"}
        several = Terms(("1", "01", "-1", "x", str(2**70), "00000000-0000-0000-0000-000000000001"))
        assert (await ask(backend, filters=(Filter("id", several),))).ids == ["1"]
        assert (await ask(backend, filters=(Filter("id", Equals("x")),))).ids == []


@pytest.mark.parametrize("distance", list(models.Distance))
async def test_distances(
    opened: Opened, tmp_path: Path, library: dict[str, Path], distance: models.Distance
) -> None:
    """More is nearer, whatever the collection compares by."""
    documents = [{"id": "far", "title": "open a file"}, {"id": "near", "title": "read csv rows"}]
    qdrant.fill(tmp_path / "data", "books", documents, library["vectors"], distance)
    async with opened(path=tmp_path / "data") as backend:
        hits = await ask(backend, "csv rows")
    assert hits.ids == ["near", "far"]
    assert hits.scores[0] > hits.scores[1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"collection": "films"}, "no collection films"),
        ({"vector": ""}, "no vector without a name"),
        ({"vector": "taste"}, r"no vector taste \(vector\)"),
    ],
)
async def test_collection_that_is_not_as_declared(
    opened: Opened, folder: Path, more: dict[str, Any], message: str
) -> None:
    """What is missing is named."""
    async with opened(path=folder, **more) as backend:
        with pytest.raises(BackendError, match=message):
            await ask(backend)


async def test_version(opened: Opened, library: dict[str, Path]) -> None:
    """More points, or a later one, change the version; the latest change is how fresh the collection is."""
    async with qdrant.replying() as replies, opened(url=replies.url, updated_at="changed") as backend:
        first = (await ask(backend)).index
        assert (first.fresh_at_s, first.server_version) == (1000.0, "qdrant/1.15.4")
        assert (await ask(backend)).index == first
        replies.latest = "1970-01-01T01:00:00Z"
        async with asyncio.timeout(60):
            while (later := (await ask(backend)).index) == first:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    assert later.fresh_at_s == 3600.0
    assert later.version != first.version


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_folder_in_use(opened: Opened, folder: Path) -> None:
    """A folder that is open already is a fault at start. (The client leaves the file of its lock open.)"""
    async with opened(path=folder):
        with pytest.raises(IndexFault, match="another process has it open"):
            async with opened(path=folder):
                pass


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "give either `url`"),
        ({"url": "http://db:6333", "path": "data"}, "give either `url`"),
        ({"url": f"http://u:{SECRET}@db:6333"}, "api_key_env"),
        ({"url": "db:6333"}, "http://"),
    ],
)
def test_settings_that_make_no_sense(library: dict[str, Path], more: dict[str, Any], message: str) -> None:
    """Each names its mend, and repeats no secret."""
    with pytest.raises(ValidationError, match=message) as caught:
        QdrantSettings.model_validate({**BASE, "embedder": library["vectors"], **more})
    assert all(SECRET not in fault["msg"] for fault in caught.value.errors(include_input=False))


async def test_key_comes_from_the_environment(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is sent with every request; a variable that is not set is one clear fault at start."""
    monkeypatch.setenv("BOOKS_KEY", SECRET)
    async with qdrant.replying() as replies, opened(url=replies.url, api_key_env="BOOKS_KEY") as backend:
        await ask(backend)
        assert {headers.get("api-key") for _, headers, _ in replies.asked} == {SECRET}
    monkeypatch.delenv("BOOKS_KEY")
    with pytest.raises(IndexFault, match="environment variable BOOKS_KEY is not set"):
        async with opened(url="http://db:6333", api_key_env="BOOKS_KEY"):
            pass


async def test_what_a_server_is_asked(opened: Opened) -> None:
    """A search has the shapes of Qdrant's REST interface, and asks for no more payload or points than there are."""
    asked = (Filter("year", Range(min=2000)), Filter("tags", Terms(("x", ""))), Filter("id", Equals("a")))
    async with qdrant.replying() as replies, opened(url=replies.url, ef=64, least=0.6) as backend:
        hits = await ask(backend, limit=2**40, filters=asked, fields=("year", "tags"), timeout_s=20.5)
    path, _, body = next(entry for entry in replies.asked if "/query" in entry[0])
    assert path == "/collections/books/points/query?timeout=21"
    assert (body["using"], body["limit"], len(body["query"]["nearest"])) == ("meaning", 1004, 8)
    assert body["params"] == {"hnsw_ef": 64, "exact": False}
    assert body["with_payload"] == {"include": ["sku", "year", "tags"]}
    most = 1.7976931348623157e308
    assert body["filter"]["must"] == [
        {"key": "year", "range": {"gte": 2000.0, "lte": most}},
        {"should": [{"key": "tags", "match": {"any": ["x"]}}]},
        {"should": [{"key": "sku", "match": {"any": ["a"]}}]},
    ]
    assert (hits.ids, hits.scores.tolist(), hits.texts["tags"]) == (["a"], [0.75], ["x, y"])


async def test_nothing_is_asked_that_nothing_can_pass(opened: Opened) -> None:
    """A filter without values, or a text without meaning, is no question to the server."""
    async with qdrant.replying() as replies, opened(url=replies.url) as backend:
        assert (await ask(backend, filters=(Filter("tags", Terms(())),))).ids == []
        assert (await ask(backend, "zzqqxxyy")).ids == []
    assert not [path for path, _, _ in replies.asked if "/query" in path]


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (400, BackendError, "status 400"),
        (401, BackendError, "this key may not read"),
        (403, BackendError, "this key may not read"),
        (404, BackendError, "no collection books"),
        (429, BackendError, "429"),
        (500, BackendError, "status 500"),
        (502, BackendUnreachable, "502"),
        (503, BackendUnreachable, "503"),
    ],
)
async def test_status_is_translated(
    opened: Opened, status: int, kind: type[BackendError], message: str
) -> None:
    """Every status is one of our errors in our words; the server's are not repeated."""
    async with qdrant.replying() as replies, opened(url=replies.url) as backend:
        replies.status = status
        with pytest.raises(BackendError, match=message) as caught:
            await ask(backend)
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"[]", b'{"result": {"points": [{"id": {}}]}}', b"\xff\xfe", b"{" * 99999]
)
async def test_garbage_is_named(opened: Opened, body: bytes) -> None:
    """A body without sense is garbage, not a crash."""
    async with qdrant.replying() as replies, opened(url=replies.url) as backend:
        replies.body = body
        with pytest.raises(BackendGarbage):
            await ask(backend)


async def test_hung_server(opened: Opened) -> None:
    """A server that says nothing is left when the time is up, or the caller leaves; connections go back."""
    async with qdrant.replying() as replies, opened(url=replies.url, connections=2) as backend:
        await ask(backend)
        replies.mode = "hang"
        for _ in range(5):
            with pytest.raises(BackendTimeout):
                await ask(backend, timeout_s=0.1)
        asked = asyncio.create_task(ask(backend))
        await asyncio.sleep(0.1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        replies.mode = ""
        assert (await ask(backend)).ids == ["a", "b"]


async def test_broken_connections(opened: Opened) -> None:
    """A connection that is cut in a search, or refused, is unreachable; the next search is answered."""
    async with qdrant.replying() as replies, opened(url=replies.url) as backend:
        replies.mode = "reset"
        with pytest.raises(BackendUnreachable):
            await ask(backend)
        replies.mode = ""
        assert (await ask(backend)).ids == ["a", "b"]
    with refusing() as target:
        async with opened(url=f"http://{target}") as backend:
            with pytest.raises(BackendUnreachable):
                await ask(backend)


async def test_span(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traced search has a client span by the conventions of databases."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "tracer", provider.get_tracer("test"))
    async with qdrant.replying() as replies, opened(url=replies.url) as backend:
        with provider.get_tracer("test").start_as_current_span("retrieve"):
            await ask(backend)
    span = exporter.get_finished_spans()[0]
    assert span.name == "query books"
    assert dict(span.attributes or {}) == {
        "db.system.name": "qdrant",
        "db.operation.name": "query",
        "db.collection.name": "books",
        "server.address": "127.0.0.1",
        "server.port": int(replies.url.rpartition(":")[2]),
    }
