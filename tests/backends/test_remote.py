"""A backend in another process, and all that can go wrong between."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from backends.base import (
    Backend,
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    Hits,
    Query,
)
from backends.memory import Memory, MemorySettings
from backends.remote import Remote, RemoteSettings
from backends.service import add_to
from protos.backends.v1 import backend_pb2 as pb

SECRET = "hunter2"
Handler = Callable[[bytes, Any], Awaitable[bytes]]


@asynccontextmanager
async def raw_service(handler: Handler) -> AsyncIterator[Remote]:
    """A service that answers bytes, and a `Remote` in front of it."""
    method = grpc.unary_unary_rpc_method_handler(handler)
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("backends.v1.BackendService", {"Retrieve": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    remote = connect(f"127.0.0.1:{port}")
    try:
        yield remote
    finally:
        await remote.close()
        await server.stop(None)


def connect(target: str, **more: Any) -> Remote:
    return Remote(RemoteSettings(kind="remote", target=target, health_check=False, **more))


def answering(message: bytes) -> Handler:
    async def handler(request: bytes, context: Any) -> bytes:
        return message

    return handler


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, BackendTimeout),
        (grpc.StatusCode.INVALID_ARGUMENT, BackendRefused),
        (grpc.StatusCode.OUT_OF_RANGE, BackendRefused),
        (grpc.StatusCode.UNIMPLEMENTED, BackendRefused),
        (grpc.StatusCode.UNAVAILABLE, BackendUnreachable),
        (grpc.StatusCode.INTERNAL, BackendError),
        (grpc.StatusCode.CANCELLED, BackendError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, BackendError),
        (grpc.StatusCode.UNKNOWN, BackendError),
    ],
)
async def test_status_is_translated(code: grpc.StatusCode, kind: type[BackendError]) -> None:
    """Every status is one of our errors, in our words: neither the service's nor the user's."""

    async def handler(request: bytes, context: Any) -> bytes:
        await context.abort(code, f"failed at {SECRET}", (("grpc-status-details-bin", b"\xff\xff"),))
        return b""

    async with raw_service(handler) as remote:
        with pytest.raises(BackendError) as caught:
            await remote.retrieve(Query(SECRET, 10), timeout_s=5.0)
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)
    assert SECRET in str(caught.value.__cause__)


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\xff\xff",
        pb.RetrieveResponse(ids=["a", "b"], scores=[1.0]).SerializeToString(),
        pb.RetrieveResponse(ids=["a"]).SerializeToString(),
        pb.RetrieveResponse(ids=["a", ""], scores=[1.0, 0.5]).SerializeToString(),
        pb.RetrieveResponse(
            ids=["a"], scores=[1.0], numbers=[pb.NumberColumn(name="year", values=[1, 2])]
        ).SerializeToString(),
        pb.RetrieveResponse(ids=["a"], scores=[1.0], texts=[pb.TextColumn(name="title")]).SerializeToString(),
        pb.RetrieveResponse(texts=[pb.TextColumn(name="t"), pb.TextColumn(name="t")]).SerializeToString(),
    ],
)
async def test_garbage_is_named(answer: bytes) -> None:
    """An answer that cannot be decoded is garbage, one whose columns do not fit says so; neither is a crash."""
    async with raw_service(answering(answer)) as remote:
        try:
            hits = await remote.retrieve(Query("x", 10), timeout_s=5.0)
        except BackendGarbage:
            return
    assert hits.fault()


async def test_oddities_pass(memory: Memory, serve: Callable[..., Any]) -> None:
    """NaN, infinities, repeats and hits beyond the limit are the merge's to count, not this edge's to hide."""
    memory.hits = Hits(["a", "a", "b"], np.array([np.nan, np.inf, -np.inf]))
    async with serve(memory) as target:
        remote = connect(target)
        hits = await remote.retrieve(Query("x", 1), timeout_s=5.0)
        await remote.close()
    assert hits.ids == ["a", "a", "b"]
    np.testing.assert_array_equal(hits.scores, [np.nan, np.inf, -np.inf])


async def test_large_answer(memory: Memory, serve: Callable[..., Any]) -> None:
    """An answer beyond gRPC's usual 4 MiB is taken up to the setting, and refused whole above it."""
    n = 10_000
    memory.hits = Hits([f"{i}" for i in range(n)], np.zeros(n), texts={"title": ["x" * 1000] * n})
    async with serve(memory) as target:
        remote, narrow = connect(target), connect(target, max_message_bytes=1_000_000)
        assert len(await remote.retrieve(Query("x", n), timeout_s=10.0)) == n
        with pytest.raises(BackendError, match="RESOURCE_EXHAUSTED"):
            await narrow.retrieve(Query("x", n), timeout_s=10.0)
        await remote.close()
        await narrow.close()


async def test_hung_service_times_out(memory: Memory, serve: Callable[..., Any]) -> None:
    """A service that never answers costs the timeout and no more."""
    memory.latency_s = 3600.0
    async with serve(memory) as target, asyncio.timeout(10.0):
        remote = connect(target)
        with pytest.raises(BackendTimeout):
            await remote.retrieve(Query("x", 1), timeout_s=0.1)
        await remote.close()


async def test_black_hole_times_out() -> None:
    """A peer that takes the connection and says nothing costs the timeout and no more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = connect(f"127.0.0.1:{silent.getsockname()[1]}")
        async with asyncio.timeout(10.0):
            with pytest.raises((BackendTimeout, BackendUnreachable)):
                await remote.retrieve(Query("x", 1), timeout_s=0.2)
        await remote.close()


async def test_nobody_listens() -> None:
    """A port without a server is unreachable, long before the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    remote = connect(f"127.0.0.1:{port}")
    async with asyncio.timeout(10.0):
        with pytest.raises(BackendUnreachable):
            await remote.retrieve(Query("x", 1), timeout_s=60.0)
    await remote.close()


async def test_service_comes_back(memory: Memory) -> None:
    """A service that was down is asked again once it is up."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    remote = connect(f"127.0.0.1:{port}", reconnect_max_s=0.05)
    with pytest.raises(BackendUnreachable):
        await remote.retrieve(Query("csv", 1), timeout_s=5.0)
    server = grpc.aio.server()
    add_to(server, memory)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    async with asyncio.timeout(20.0):
        assert await _eventually(remote)
    await remote.close()
    await server.stop(None)


async def _eventually(backend: Backend) -> Hits:
    while True:
        try:
            return await backend.retrieve(Query("csv", 1), timeout_s=5.0)
        except BackendUnreachable:
            await asyncio.sleep(0.02)


async def test_health_is_heeded(memory: Memory) -> None:
    """An address that reports NOT_SERVING is not asked until it reports SERVING."""
    server, checks = grpc.aio.server(), health.aio.HealthServicer()
    add_to(server, memory)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    remote = Remote(RemoteSettings(kind="remote", target=f"127.0.0.1:{port}"))
    with pytest.raises(BackendUnreachable):
        await remote.retrieve(Query("csv", 1), timeout_s=5.0)
    await checks.set("", health_pb2.HealthCheckResponse.SERVING)
    async with asyncio.timeout(20.0):
        assert await _eventually(remote)
    await remote.close()
    await server.stop(None)


async def test_addresses_share_the_calls(memory: Memory, serve: Callable[..., Any]) -> None:
    """Several addresses of one target are asked in turn."""
    memory.hits, other = Hits(["one"], np.ones(1)), Memory(MemorySettings(kind="memory", fields={}))
    other.hits = Hits(["two"], np.ones(1))
    async with serve(memory) as first, serve(other) as second, asyncio.timeout(20.0):
        remote, seen = connect(f"ipv4:{first},{second}"), set[str]()
        while seen != {"one", "two"}:
            seen.update((await remote.retrieve(Query("x", 1), timeout_s=5.0)).ids)
        await remote.close()


async def test_deadline_and_cancel_reach_the_service() -> None:
    """The service sees the timeout as its deadline, and a cancelled task as a cancelled call."""
    seen: list[float] = []
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(request: bytes, context: Any) -> bytes:
        seen.append(context.time_remaining())
        begun.set()
        try:
            await asyncio.sleep(3600.0)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    async with raw_service(handler) as remote, asyncio.timeout(10.0):
        task = asyncio.create_task(remote.retrieve(Query("x", 1), timeout_s=60.0))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await cancelled.wait()
    assert 10.0 < seen[0] < 61.0


async def test_close_ends_calls_in_flight(memory: Memory, serve: Callable[..., Any]) -> None:
    """A call that waits when the connection is closed ends as unreachable, not as cancelled."""
    memory.latency_s = 3600.0
    async with serve(memory) as target, asyncio.timeout(10.0):
        remote = connect(target)
        task = asyncio.create_task(remote.retrieve(Query("x", 1), timeout_s=60.0))
        await asyncio.sleep(0.05)
        await remote.close()
        with pytest.raises(BackendUnreachable):
            await task


async def test_trace_goes_along() -> None:
    """The service is told the caller's trace in W3C's words."""
    seen: dict[str, str] = {}

    async def handler(request: bytes, context: Any) -> bytes:
        seen.update({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        return b""

    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
    async with raw_service(handler) as remote:
        with trace.use_span(span):
            await remote.retrieve(Query("x", 1), timeout_s=5.0)
    assert seen["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
