"""The public service: a message in, a pipeline's answer out."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from difflib import get_close_matches
from time import perf_counter, time
from typing import TYPE_CHECKING

import grpc

from backends.base import Backend
from mixer import catalogue, describe, telemetry, wire, wire_events, wire_explain
from mixer.access import access_of
from mixer.app import App, build
from mixer.caller import Scope, caller
from mixer.errors import NoFeedback, UnknownMix, UnknownModel
from mixer.events import EventOutcome
from mixer.explain import Answered
from mixer.explainer import Explainer, timed
from mixer.metrics import Metrics
from mixer.record import current
from mixer.serving import Listening, Server, State, stop_signal
from mixer.settings import Settings
from mixer.values import TENANT, Request
from mixer.wiring import Mix
from protos.mixer.v1 import mixer_pb2 as pb
from protos.mixer.v1 import mixer_pb2_grpc as rpc

if TYPE_CHECKING:
    from mixer.feedback import Feedback

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["MixerService"].full_name


class MixerService(rpc.MixerServiceServicer):
    """mixer.v1.MixerService over the mixes of one app."""

    def __init__(
        self,
        settings: Settings,
        mixes: Mapping[str, Mix],
        explainer: Explainer,
        feedback: Feedback | None = None,
    ) -> None:
        """Answers for these mixes; without `feedback` it takes none."""
        self._settings, self._mixes, self._feedback = settings, mixes, feedback
        self._explainer = explainer

    async def Search(  # noqa: N802
        self, message: pb.SearchRequest, context: grpc.aio.ServicerContext
    ) -> pb.SearchResponse:
        """Raises: RequestError, which an interceptor answers."""
        began_s = perf_counter()
        name = message.mix or self._settings.server.default_mix
        mix = self._mix(name)
        record = current()
        record.facts["mixer.mix"] = name
        left_s = self._left_s(context)
        if message.debug:
            caller().require(Scope.DEBUG)
        request = _of_tenant(wire.request_from(message, name, mix.settings, self._settings.limits, left_s))
        answer = await mix.search(request)
        if self._feedback:
            self._feedback.served(request.query_id, name, answer.arm)
        return wire.response_from(answer, mix.settings.fields, record.trace_id, perf_counter() - began_s)

    async def Feedback(  # noqa: N802
        self, message: pb.FeedbackRequest, context: grpc.aio.ServicerContext
    ) -> pb.FeedbackResponse:
        """Raises: RequestError, which an interceptor answers."""
        if self._feedback is None:
            raise NoFeedback("this server takes no feedback: its settings have no `feedback`")
        events = wire_events.events_from(message, self._settings.limits, time())
        outcomes = await self._feedback.take(events)
        duplicates = outcomes.count(EventOutcome.DUPLICATE)
        current().facts.update(
            {"mixer.feedback.events": len(events), "mixer.feedback.duplicates": duplicates}
        )
        return wire_events.response_from(outcomes)

    async def Explain(  # noqa: N802
        self, message: pb.ExplainRequest, context: grpc.aio.ServicerContext
    ) -> pb.ExplainResponse:
        """Raises: RequestError, which an interceptor answers."""
        which = wire_explain.which_from(message, self._explainer.settings.hits)
        if which.model and which.model not in self._settings.models:
            raise UnknownModel(f"model: no model has that name; {_hint(which.model, self._settings.models)}")
        answered, explanation = await self._explainer.explain(
            lambda: self._answered(message, self._left_s(context)),
            which,
            lambda answer: self._mix(answer.plan.request.mix).lens,
            lambda: self._left_s(context),
        )
        current().facts.update(describe.of_explanation(explanation, which.model))
        shown = self._mix(explanation.answer.plan.request.mix).settings.fields
        return wire_explain.response_from(explanation, answered, shown)

    async def _answered(self, message: pb.ExplainRequest, left_s: float) -> Answered:
        """The answer to explain: a remembered one, or that of a search asked anew."""
        if not message.HasField("search"):
            return self._explainer.answered(message.query_id, caller().tenant)
        name = message.search.mix or self._settings.server.default_mix
        mix = self._mix(name)
        current().facts["mixer.mix"] = name
        request = wire_explain.request_from(message, name, mix.settings, self._settings.limits, left_s)
        return await timed(mix.rehearse, _of_tenant(request))

    def _left_s(self, context: grpc.aio.ServicerContext) -> float:
        """What is left of the caller's deadline, or of our own where there is none."""
        remaining_s = context.time_remaining()
        return self._settings.server.default_deadline_s if remaining_s is None else float(remaining_s)

    def _mix(self, name: str) -> Mix:
        if name in self._mixes:
            return self._mixes[name]
        raise UnknownMix(f"mix: no mix has that name; {_hint(name, self._mixes)}")


def _hint(name: str, known: Mapping[str, object]) -> str:
    close = get_close_matches(name[:100], known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(known) or 'none'}"


def _of_tenant(request: Request) -> Request:
    """The request with the tenant that proved to be its caller in the context, whatever the caller wrote there."""
    tenant = caller().tenant
    return replace(request, context={**request.context, TENANT: tenant}) if tenant else request


def _untold(state: State) -> None:
    """Nobody waits for it."""


@asynccontextmanager
async def running(
    settings: Settings,
    metrics: Metrics | None = None,
    backends: Mapping[str, Backend] | None = None,
    shares_port: bool = False,
    tell: Callable[[State], None] = _untold,
) -> AsyncIterator[tuple[Server, App]]:
    """A Mixer that answers, and is ready once its models passed; drained and closed at the end.

    `backends` stand in for those of the settings, by name. Raises: OSError, ValueError as `mixer.app.build` does.
    """
    metrics = metrics or Metrics()
    access = access_of(settings, metrics)
    app = await build(settings, metrics=metrics, backends=backends)
    server = Server(_listening(settings, shares_port), metrics, [SERVICE], access, app.load)
    rpc.add_MixerServiceServicer_to_server(
        MixerService(settings, app.mixes, app.explainer, app.feedback), server.grpc
    )
    ready = app.metrics.gauge(catalogue.WORKERS)
    try:
        await server.start()
        becoming = app.beside(_become_ready(server, app, tell))
        if not app.faults:
            await becoming
        yield server, app
    finally:
        ready.set(0)
        await server.stop()
        await app.close()


async def _become_ready(server: Server, app: App, tell: Callable[[State], None]) -> None:
    """At once where all models passed, or when one that did not was replaced by one that does."""
    await app.sound()
    await server.ready()
    app.metrics.gauge(catalogue.WORKERS).set(1)
    tell(State.READY)


async def serve(
    settings: Settings,
    metrics: Metrics | None = None,
    tell: Callable[[State], None] = _untold,
    shares_port: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain; `tell` hears how far it is."""
    told, metrics = stop_signal(), metrics or Metrics()
    tracing = telemetry.start(settings.telemetry.service_name, metrics)
    try:
        async with running(settings, metrics, shares_port=shares_port, tell=tell) as (server, app):
            for mix, fault in app.faults.items():
                log.error("not ready", extra={"mix": mix, "why": fault})
            _settle_heap()
            log.info("serving", extra={"port": server.port, "admin_port": server.admin_port})
            if app.faults:
                tell(State.NOT_READY)
            await told.wait()
            tell(State.DRAINING)
            log.info("draining")
    finally:
        await asyncio.to_thread(tracing.shutdown)


def _settle_heap() -> None:
    """What is loaded now stays: leave it out of the collector's rounds, and let young cycles gather for longer."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)


_YOUNG_OBJECTS = 20_000


def _listening(settings: Settings, shares_port: bool) -> Listening:
    server = settings.server
    return Listening(
        address=server.listen,
        admin=server.admin_listen,
        concurrent_calls=settings.limits.concurrent_calls,
        max_connection_age_s=server.max_connection_age_s,
        drain_s=server.drain_s,
        shares_port=shares_port,
        tls=server.tls,
        health=server.health_listen,
    )
