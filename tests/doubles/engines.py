"""Backends over real sockets: a healthy one, and raw ones that answer as they are told, sense or nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from backends import service
from backends.base import Backend
from backends.memory import Memory, MemorySettings
from mixer.metrics import Metrics
from mixer.serving import Listening, Server
from protos.backends.v1 import backend_pb2 as pb

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "1", "title": "read a csv file", "year": 2001},
    {"id": "2", "title": "write a csv file", "year": 1999},
    {"id": "3", "title": "a file of csv rows", "year": 1890},
    {"id": "4", "title": "csv"},
]
FIELDS = {"title": {"type": "text"}, "year": {"type": "number"}, "kind": {"type": "keyword"}}

Answer = Callable[[pb.RetrieveRequest, Any], Awaitable[bytes]]


def memory(documents: Sequence[Mapping[str, Any]] = DOCUMENTS, kind: type[Memory] = Memory) -> Memory:
    """Documents in memory; `kind` may answer otherwise."""
    return kind(
        MemorySettings.model_validate({"kind": "memory", "fields": FIELDS, "documents": list(documents)})
    )


@asynccontextmanager
async def healthy(backend: Backend | None = None) -> AsyncIterator[str]:
    """A backend served as `python -m backends serve` does, with health and its own spans; its target."""
    server = Server(Listening("127.0.0.1:0", concurrent_calls=256, drain_s=0.1), Metrics(), [service.SERVICE])
    service.add_to(server.grpc, backend or memory())
    await server.start()
    await server.ready()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop()


class Engine:
    """A raw `backends.v1` service, and what it saw."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.target = ""
        self.asked, self.cancelled = asyncio.Event(), asyncio.Event()
        self.requests: list[pb.RetrieveRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []

    async def retrieve(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """Answer, and take note of a call that is given up."""
        self.requests.append(pb.RetrieveRequest.FromString(request))
        self.metadata.append({pair[0]: pair[1] for pair in context.invocation_metadata()})
        self.asked.set()
        try:
            return await self._answer(self.requests[-1], context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@asynccontextmanager
async def engine(answer: Answer) -> AsyncIterator[Engine]:
    """An engine that answers so."""
    made, server = Engine(answer), grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    method = grpc.unary_unary_rpc_method_handler(made.retrieve)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service.SERVICE, {"Retrieve": method}),)
    )
    made.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield made
    finally:
        await server.stop(None)


def answering(message: bytes | pb.RetrieveResponse) -> Answer:
    """Always this message."""
    data = message if isinstance(message, bytes) else message.SerializeToString()

    async def answer(request: pb.RetrieveRequest, context: Any) -> bytes:
        return data

    return answer


async def hanging(request: pb.RetrieveRequest, context: Any) -> bytes:
    """Never answers."""
    await asyncio.Event().wait()
    return b""


def failing(code: grpc.StatusCode, text: str) -> Answer:
    """Always this status."""

    async def answer(request: pb.RetrieveRequest, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(code, text)
        return b""

    return answer


def columns(
    ids: Sequence[str],
    scores: Sequence[float] | None = None,
    titles: Sequence[str] | None = None,
    version: str = "v1",
) -> pb.RetrieveResponse:
    """An answer in columns; scores fall to 1 where none are given."""
    return pb.RetrieveResponse(
        ids=ids,
        scores=range(len(ids), 0, -1) if scores is None else scores,
        texts=[] if titles is None else [pb.TextColumn(name="title", values=titles)],
        index=pb.Index(version=version),
        server_version="raw/1",
    )
