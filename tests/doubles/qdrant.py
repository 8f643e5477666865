"""A folder of Qdrant's local mode, filled as a collection would be; and its REST interface, by replies written down."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient, models

from backends.embedding import Embedding
from backends.schema import parse


def fill(
    folder: Path,
    collection: str,
    documents: list[dict[str, Any]],
    index: Path,
    distance: models.Distance = models.Distance.COSINE,
) -> None:
    """A collection of the documents, with the vectors that an index's embedders make of them as `meaning`."""
    embedding, client = Embedding.of(index), QdrantClient(path=str(folder))
    parameters = models.VectorParams(size=embedding.dimensions, distance=distance)
    client.create_collection(collection, {"meaning": parameters})
    vectors = [embedding.document(parse(raw, embedding.schema)).tolist() for raw in documents]
    client.upsert(
        collection,
        [
            models.PointStruct(id=number, vector={"meaning": vector}, payload={**raw, "sku": raw["id"]})
            for number, (raw, vector) in enumerate(zip(documents, vectors, strict=True))
        ],
    )
    client.close()


def settings(folder: Path, collection: str, schema: dict[str, Any], index: Path) -> dict[str, Any]:
    """Settings over what `fill` made."""
    return {
        "kind": "qdrant",
        "path": folder,
        "collection": collection,
        "vector": "meaning",
        "embedder": index,
        "id": "sku",
        "fields": schema["fields"],
        "least": 0.05,
    }


ROOT = {
    "title": "qdrant - vector search engine",
    "version": "1.15.4",
    "commit": "20db14f87c861f3958ad50382cf0b69396e40c10",
}
INFO = {
    "status": "green",
    "optimizer_status": "ok",
    "indexed_vectors_count": 0,
    "points_count": 2,
    "segments_count": 2,
    "config": {
        "params": {
            "vectors": {"meaning": {"size": 8, "distance": "Cosine"}},
            "shard_number": 1,
            "replication_factor": 1,
            "write_consistency_factor": 1,
            "on_disk_payload": True,
        },
        "hnsw_config": {
            "m": 16,
            "ef_construct": 100,
            "full_scan_threshold": 10000,
            "max_indexing_threads": 0,
        },
        "optimizer_config": {
            "deleted_threshold": 0.2,
            "vacuum_min_vector_number": 1000,
            "default_segment_number": 0,
            "flush_interval_sec": 5,
        },
        "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
    },
    "payload_schema": {},
}
POINTS = [
    {"id": 1, "version": 3, "score": 0.5, "payload": {"sku": "b", "year": 2001}},
    {"id": 2, "version": 3, "score": 0.75, "payload": {"sku": "a", "tags": ["x", "y"]}},
]


@dataclass
class Replies:
    """What the server says, by the end of the path, and what it was asked."""

    status: int = 200
    body: bytes | None = None
    """Said to every search in place of points."""
    mode: str = ""
    """`hang`: nothing is said to a search; `reset`: its connection is cut."""
    points: list[dict[str, Any]] = field(default_factory=lambda: list(POINTS))
    latest: object = 1000
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    """Path, headers, and body."""
    url: str = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().strip().split("\r\n")
                headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                path = first.split()[1]
                self.asked.append((path, headers, json.loads(body) if body else None))
                if path.partition("?")[0].endswith("/query") and self.mode == "reset":
                    writer.transport.abort()
                    return
                if path.partition("?")[0].endswith("/query") and self.mode == "hang":
                    await reader.read()
                    return
                status, said = self._said(path.partition("?")[0])
                length = f"content-type: application/json\r\ncontent-length: {len(said)}"
                writer.write(f"HTTP/1.1 {status} Said\r\n{length}\r\n\r\n".encode() + said)
                await writer.drain()

    def _said(self, path: str) -> tuple[int, bytes]:
        if path == "/":
            return 200, json.dumps(ROOT).encode()
        if path.endswith("/query") and (self.body is not None or self.status != 200):
            return self.status, self.body or b'{"status":{"error":"hunter2"},"time":0.0}'
        scrolled = {"points": [{"id": 1, "payload": {"changed": self.latest}}], "next_page_offset": None}
        result = {"query": {"points": self.points}, "scroll": scrolled}.get(path.rpartition("/")[2], INFO)
        return 200, json.dumps({"result": result, "status": "ok", "time": 0.0001}).encode()


@asynccontextmanager
async def replying() -> AsyncIterator[Replies]:
    """A server on the loopback that says what it is told to."""
    replies, tasks = Replies(), set[asyncio.Task[None]]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with suppress(asyncio.CancelledError):
                await replies.answer(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    replies.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield replies
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
