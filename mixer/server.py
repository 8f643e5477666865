"""The public service: a message in, a pipeline's answer out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from difflib import get_close_matches
from time import perf_counter

import grpc
from opentelemetry import trace

from backends.base import Backend
from mixer import telemetry, wire
from mixer.app import App, Mix, build
from mixer.errors import UnknownMix
from mixer.metrics import Metrics
from mixer.observe import event
from mixer.serving import Listening, Server, stop_signal
from mixer.settings import Settings
from protos.mixer.v1 import mixer_pb2 as pb
from protos.mixer.v1 import mixer_pb2_grpc as rpc

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["MixerService"].full_name


class MixerService(rpc.MixerServiceServicer):
    """mixer.v1.MixerService over the mixes of one app."""

    def __init__(self, settings: Settings, mixes: Mapping[str, Mix]) -> None:
        """Answers for these mixes."""
        self._settings, self._mixes = settings, mixes

    async def Search(  # noqa: N802
        self, message: pb.SearchRequest, context: grpc.aio.ServicerContext
    ) -> pb.SearchResponse:
        """Raises: RequestError, which an interceptor answers."""
        began_s = perf_counter()
        name = message.mix or self._settings.server.default_mix
        mix = self._mix(name)
        event.get({})["mixer.mix"] = name
        remaining_s = context.time_remaining()
        left_s = self._settings.server.default_deadline_s if remaining_s is None else remaining_s
        request = wire.request_from(message, name, mix.settings, self._settings.limits, left_s)
        answer = await mix.search(request)
        return wire.response_from(answer, mix.settings.fields, _trace_id(), perf_counter() - began_s)

    def _mix(self, name: str) -> Mix:
        if name in self._mixes:
            return self._mixes[name]
        close = get_close_matches(name[:100], self._mixes, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(self._mixes)}"
        raise UnknownMix(f"mix: no mix has that name; {hint}")


def _trace_id() -> str:
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.trace_flags.sampled else ""


@asynccontextmanager
async def running(
    settings: Settings, metrics: Metrics | None = None, backends: Mapping[str, Backend] | None = None
) -> AsyncIterator[tuple[Server, App]]:
    """A Mixer that answers, and is ready where its models passed; drained and closed at the end.

    `backends` stand in for those of the settings, by name. Raises: OSError, ValueError as `mixer.app.build` does.
    """
    app = await build(settings, metrics=metrics, backends=backends)
    server = Server(_listening(settings), app.metrics, [SERVICE])
    rpc.add_MixerServiceServicer_to_server(MixerService(settings, app.mixes), server.grpc)
    try:
        await server.start()
        if not app.faults:
            await server.ready()
        yield server, app
    finally:
        await server.stop()
        await app.close()


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    told, metrics = stop_signal(), Metrics()
    tracing = telemetry.start(settings.telemetry.service_name, metrics)
    try:
        async with running(settings, metrics) as (server, app):
            for mix, fault in app.faults.items():
                log.error("not ready", extra={"mix": mix, "why": fault})
            log.info("serving", extra={"port": server.port, "admin_port": server.admin_port})
            await told.wait()
            log.info("draining")
    finally:
        await asyncio.to_thread(tracing.shutdown)


def _listening(settings: Settings) -> Listening:
    server = settings.server
    return Listening(
        address=server.listen,
        admin=server.admin_listen,
        concurrent_calls=settings.limits.concurrent_calls,
        max_connection_age_s=server.max_connection_age_s,
        drain_s=server.drain_s,
    )
