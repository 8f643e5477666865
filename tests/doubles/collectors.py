"""Collectors of traces and logs, over gRPC and over HTTP, that keep what they get as it came.

With `key` they do as Honeycomb does: they refuse who does not name it.
"""

from __future__ import annotations

import gzip
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
LOGS = "opentelemetry.proto.collector.logs.v1.LogsService"
KEY = "x-honeycomb-team"


class Collector:
    """What arrived."""

    def __init__(self, key: str = "") -> None:
        self.key = key
        self.refused = 0
        self.endpoint = ""
        self.messages: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    @property
    def resources(self) -> list[ResourceSpans]:
        """Spans by the resource that sent them."""
        requests = (pb.ExportTraceServiceRequest.FromString(message) for message in self.messages)
        return [resource for request in requests for resource in request.resource_spans]

    @property
    def spans(self) -> list[Span]:
        """Every span."""
        return [span for resource in self.resources for scope in resource.scope_spans for span in scope.spans]

    def takes(self, message: bytes, headers: dict[str, str]) -> bool:
        """Keep it, if who sends it may."""
        if self.key and headers.get(KEY) != self.key:
            self.refused += 1
            return False
        self.messages.append(message)
        self.headers.append(headers)
        return True

    async def export(self, message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        """One message over gRPC."""
        headers = {pair[0]: str(pair[1]) for pair in context.invocation_metadata()}
        if not self.takes(message, headers):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "unknown API key")
        return pb.ExportTraceServiceResponse().SerializeToString()


@asynccontextmanager
async def over_grpc(service: str = TRACES, key: str = "") -> AsyncIterator[Collector]:
    """A collector of this service at a gRPC endpoint; its empty answer is the same for all."""
    collector, server = Collector(key), grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(collector.export)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


@contextmanager
def over_http(key: str = "") -> Iterator[Collector]:
    """A collector at an HTTP endpoint."""
    collector = Collector(key)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = headers.get("content-encoding") == "gzip"
            taken = collector.takes(gzip.decompress(body) if packed else body, headers)
            self.send_response(200 if taken else 401)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.endpoint = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            yield collector
        finally:
            server.shutdown()
            serving.join()
