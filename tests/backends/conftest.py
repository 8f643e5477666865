"""One small library of documents, indexed by every engine, and each engine opened over it."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from pydantic import TypeAdapter

from backends import BackendSettings, open_backend, service
from backends.base import Backend
from backends.build import Definition, write
from backends.memory import Memory, MemorySettings
from backends.schema import Schema, parse
from tests.doubles import postgres, qdrant

SCHEMA: dict[str, Any] = {
    "fields": {
        "title": {"type": "text"},
        "aliases": {"type": "text"},
        "kind": {"type": "keyword"},
        "tags": {"type": "keyword"},
        "year": {"type": "number"},
        "uses": {"type": "number"},
    }
}
DOCUMENTS: list[dict[str, Any]] = [
    {"id": "csv.reader", "title": "read csv rows from a file", "kind": "function", "year": 2001, "uses": 40},
    {"id": "csv.writer", "title": "write csv rows to a file", "kind": "function", "year": 2001, "uses": 30},
    {
        "id": "csv",
        "title": "read and write csv files",
        "kind": "module",
        "tags": ["text", "io"],
        "year": 2001,
    },
    {"id": "json.loads", "title": "read json from a text", "kind": "function", "tags": "text", "uses": 90},
    {"id": "json.dump", "title": "write json to a file", "aliases": ["store", "save"], "tags": ["io"]},
    {"id": "json", "title": "read and write json", "kind": "module", "year": 2008, "uses": 120},
    {"id": "open", "title": "open a file to read or write", "kind": "function", "year": 1991, "uses": 500},
    {
        "id": "naïve",
        "title": "read a café menu, 東京, Ελλάς and straße",
        "kind": "Kind, with 'quotes'",
        "year": -5.5,
    },
    {"id": "blank", "title": "", "kind": "module", "tags": [], "year": None},
]
INDEXED: dict[str, dict[str, Any]] = {
    "tantivy": {"kind": "tantivy"},
    "sqlite": {"kind": "sqlite", "symbols": ["id"], "popularity": "uses"},
    "vectors": {"kind": "vectors", "parts": [{"embedder": {"kind": "lsa", "dimensions": 8}}]},
}
Indexing = Callable[..., Path]


def shelved(kind: str, folder: Path) -> Path:
    """The library as an index of this kind, in this folder."""
    parsed = [parse(raw, Schema.model_validate(SCHEMA)) for raw in DOCUMENTS]
    write(Definition.model_validate({"schema": SCHEMA, "engine": INDEXED[kind]}), parsed, folder)
    return folder


def opened(raw: dict[str, Any]) -> Backend:
    adapter: TypeAdapter[BackendSettings] = TypeAdapter(BackendSettings)
    return open_backend(adapter.validate_python(raw))


@pytest.fixture(scope="session")
def documents() -> list[dict[str, Any]]:
    return DOCUMENTS


@pytest.fixture
def index(tmp_path: Path) -> Indexing:
    """Index documents: `index(options, documents=..., schema=..., name=...)` gives the folder."""

    def indexed(
        options: dict[str, Any],
        documents: list[dict[str, Any]] = DOCUMENTS,
        schema: dict[str, Any] = SCHEMA,
        name: str = "index",
    ) -> Path:
        definition = Definition.model_validate({"schema": schema, "engine": options})
        parsed = [parse(raw, Schema.model_validate(schema)) for raw in documents]
        write(definition, parsed, tmp_path / name)
        return tmp_path / name

    return indexed


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An index folder by kind."""
    root = tmp_path_factory.mktemp("library")
    return {kind: shelved(kind, root / kind) for kind in INDEXED}


@asynccontextmanager
async def served(backend: Backend, **limits: Any) -> AsyncIterator[str]:
    """The backend as a gRPC service over loopback; its target."""
    server = grpc.aio.server()
    service.add_to(server, backend, **limits)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
def serve() -> Callable[..., Any]:
    return served


@pytest.fixture
def memory() -> Memory:
    return Memory(MemorySettings.model_validate({"kind": "memory", "documents": DOCUMENTS, **SCHEMA}))


@pytest.fixture
def open_raw() -> Callable[[dict[str, Any]], Backend]:
    return opened


@pytest.fixture(scope="session")
def postgres_server(library: dict[str, Path]) -> Iterator[postgres.Server]:
    """A server that holds the documents in a table `library`; for reading only."""
    with postgres.running() as server:
        postgres.fill(server, "library", DOCUMENTS, library["vectors"])
        yield server


@pytest.fixture(scope="session")
def qdrant_folder(library: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Qdrant's local mode that holds the documents in a collection `library`; for reading only."""
    folder = tmp_path_factory.mktemp("qdrant")
    qdrant.fill(folder, "library", DOCUMENTS, library["vectors"])
    return folder


@pytest.fixture
def on_servers(request: pytest.FixtureRequest, library: dict[str, Path]) -> Callable[[str], dict[str, Any]]:
    """Settings of the kinds whose documents lie with a server, which is started when first asked for."""

    def settings(kind: str) -> dict[str, Any]:
        if kind == "qdrant":
            folder = request.getfixturevalue("qdrant_folder")
            return qdrant.settings(folder, "library", SCHEMA, library["vectors"])
        server: postgres.Server = request.getfixturevalue("postgres_server")
        return postgres.settings(
            server, "library", SCHEMA, kind.removeprefix("postgres-"), library["vectors"]
        )

    return settings


@pytest.fixture(
    params=[
        "memory",
        "remote",
        "tantivy",
        "sqlite",
        "vectors",
        "postgres-words",
        "postgres-vectors",
        "qdrant",
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def backend(
    kind: str, memory: Memory, library: dict[str, Path], on_servers: Callable[[str], dict[str, Any]]
) -> AsyncIterator[Backend]:
    """Every engine in turn, over the same documents."""
    if kind == "memory":
        yield memory
    elif kind == "remote":
        async with served(memory) as target:
            remote = opened({"kind": "remote", "target": target, "health_check": False})
            yield remote
            await remote.close()
    else:
        held = {"kind": kind, "index": library[kind]} if kind in library else on_servers(kind)
        engine = opened(held)
        yield engine
        await engine.close()
