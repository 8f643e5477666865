"""Runs a gRPC server from its first call to a clean end: health, reflection, the admin port, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mixer.access import OPEN, Access
from mixer.access_settings import ServerTlsSettings
from mixer.admin import Admin
from mixer.interceptors import AnswerErrors, Around, Layers, LimitCalls, ReadMessages, WatchCalls
from mixer.load import Load
from mixer.metrics import Metrics
from mixer.tls import ServerCertificate

MESSAGE_BYTES = 64 * 1024 * 1024
_ON_THEIR_WAY_S = 0.05
"""For calls that had reached the process when it stopped taking any, and for health's last word."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class State(StrEnum):
    """How far a server is, from its first line to its last."""

    STARTING = "starting"
    READY = "ready"
    NOT_READY = "not_ready"
    """It answers, but a check failed."""
    DRAINING = "draining"
    FAILED = "failed"
    """It could not start."""


@dataclass(frozen=True, slots=True)
class Listening:
    """How a server listens: `host:port`, port 0 for any free one; an empty `admin` for none."""

    address: str
    admin: str = ""
    concurrent_calls: int = 64
    max_connection_age_s: float = 300.0
    drain_s: float = 10.0
    shares_port: bool = False
    """Other processes of this user may listen on the same port."""
    tls: ServerTlsSettings | None = None
    health: str = ""
    """Answers health checks in the clear; empty for none."""


class Followed(Protocol):
    """Files that may be replaced while the server runs."""

    async def follow(self) -> None:
        """For as long as the loop runs."""
        ...


class Server:
    """One gRPC server with its health; not ready until told so."""

    def __init__(
        self,
        listening: Listening,
        metrics: Metrics,
        services: Sequence[str],
        access: Access = OPEN,
        load: Load | None = None,
    ) -> None:
        """`services` are the full names of what will be added to `grpc`; `load` limits the calls by latency."""
        self._metrics = metrics
        self._listening, self._services, self._access = listening, services, access
        self._calls = LimitCalls(listening.concurrent_calls, metrics, load)
        watch = WatchCalls(metrics, access.may_force)
        layers: list[Around] = [watch, AnswerErrors(), *access.layers, self._calls, ReadMessages()]
        self.grpc = grpc.aio.server(interceptors=[Layers(metrics, layers)], options=_options(listening))
        self._health = health.aio.HealthServicer()
        self._admin = Admin(metrics.registry) if listening.admin else None
        self._probed = self._probing(metrics) if listening.health else None
        self._beside: list[asyncio.Task[None]] = []
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        if access.reflection:
            names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.grpc, pool=_Descriptors())
        self.port = self.admin_port = self.health_port = 0

    def _probing(self, metrics: Metrics) -> grpc.aio.Server:
        """Another port for health alone."""
        layers = Layers(metrics, [WatchCalls(metrics)])
        server = grpc.aio.server(interceptors=[layers], options=_options(self._listening))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        return server

    async def start(self) -> None:
        """Bind and begin to answer; health says NOT_SERVING until `ready`.

        Raises: OSError where a port is taken or a certificate cannot be read, ValueError where it is wrong.
        """
        await self._report(_NOT_SERVING)
        tls = self._listening.tls
        certificate = ServerCertificate(tls, self._metrics) if tls else None
        self.port = _bound(self.grpc, self._listening.address, certificate)
        if self._probed:
            self.health_port = _bound(self._probed, self._listening.health)
            await self._probed.start()
        if self._admin:
            self.admin_port = self._admin.start(self._listening.admin)
        await self.grpc.start()
        followed: list[Followed] = [*self._access.files, *([certificate] if certificate else [])]
        self._beside = [asyncio.create_task(files.follow()) for files in followed]

    async def ready(self) -> None:
        """Every check passed: health says SERVING."""
        await self._report(_SERVING)
        if self._admin:
            self._admin.ready = True

    async def stop(self) -> None:
        """Say NOT_SERVING, let calls in flight end within the drain time, then cancel what is left."""
        await self._health.enter_graceful_shutdown()
        if self._admin:
            self._admin.ready = False
        await self._drain()
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        if self._probed:
            await self._probed.stop(None)
        if self._admin:
            await asyncio.to_thread(self._admin.stop)

    async def _drain(self) -> None:
        """Take no new call and wait for those in flight. Watchers of health, who would never end, end with them."""
        stopping = asyncio.create_task(self.grpc.stop(self._listening.drain_s))
        await asyncio.sleep(_ON_THEIR_WAY_S)
        idle = asyncio.create_task(self._calls.idle())
        await asyncio.wait({stopping, idle}, return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        await self.grpc.stop(None)
        await stopping

    async def _report(self, status: int) -> None:
        for service in ("", *self._services):
            await self._health.set(service, status)


def _bound(server: grpc.aio.Server, address: str, certificate: ServerCertificate | None = None) -> int:
    """The port, with TLS where there is a certificate. Raises: OSError, port taken."""
    try:
        if certificate:
            return int(server.add_secure_port(address, certificate.credentials))
        return int(server.add_insecure_port(address))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: is the port taken?") from error


class _Descriptors:
    """The default pool; it finds the file of a method too, which is what some clients (ghz) ask reflection for."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            method: Any = self._pool.FindMethodByName(symbol)
            file: FileDescriptor = method.containing_service.file
            return file


def _options(listening: Listening) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(listening.shares_port)),
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.max_connection_age_ms", int(listening.max_connection_age_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def stop_signal() -> asyncio.Event:
    """Set at SIGTERM or SIGINT, from now on: call it before anything that takes long to start."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    return told


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end on uvloop, or on asyncio's own loop where there is none."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
