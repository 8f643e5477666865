"""Around every call of the server, outermost first: telemetry, errors, who may ask, calls at once, the message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from opentelemetry import propagate, trace
from opentelemetry.context import attach, detach, set_value
from opentelemetry.trace import Span, SpanKind, StatusCode

from mixer import catalogue
from mixer.errors import InvalidRequest, Overloaded, RequestError, Violation
from mixer.load import Load
from mixer.metrics import Metrics
from mixer.record import Record, close_record, open_record
from mixer.status import abort

CALLS = "mixer.call"
"""The logger of the one line a call."""
log = logging.getLogger(CALLS)
tracer = trace.get_tracer("mixer")

Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Behavior = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]
MayForce = Callable[[Mapping[str, str | bytes]], bool]
"""Whether the caller that sent this metadata may have its call traced, whatever the ratio."""

FORCE_SAMPLE = "x-mixer-force-sample"
"""Metadata that asks for a trace, and where samplers find in the context whether there shall be one."""
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Statuses that make a server span an error; the others are the caller's."""
_CLOCKS_APART_S = 0.01
_SEARCH = "/Search"
BYSTANDERS = ("grpc.health.", "grpc.reflection.")
"""Services that are counted but neither traced nor logged."""


class Around(Protocol):
    """Wraps unary calls; streams (health's Watch) pass as they are."""

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """The handler of `service/Method` with something before and after it."""
        ...


class Layers(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """All that stands around a call, the outermost first, put around each method once."""

    def __init__(self, metrics: Metrics, layers: Sequence[Around]) -> None:
        """Calls of methods that nobody serves are counted, by no name of the caller's; gRPC answers them."""
        self._layers = layers
        self._handlers: dict[str, Handler] = {}
        self._unknown = _Method(metrics, "unknown/unknown", "unknown")

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler:
        """Called by gRPC for every call."""
        if details.method in self._handlers:
            return self._handlers[details.method]
        handler = await continuation(details)
        if handler is None:
            self._unknown.started.inc()
            self._unknown.handled["UNIMPLEMENTED"].inc()
        elif handler.unary_unary is not None:
            for layer in reversed(self._layers):
                handler = layer.wrapped(handler, details.method.lstrip("/"))
            self._handlers[details.method] = handler
        return handler


def anybody(metadata: Mapping[str, str | bytes]) -> bool:
    """Where nobody asks for proof, all may."""
    return True


def around(handler: Handler, behavior: Behavior) -> Handler:
    """The handler with another behavior."""
    return grpc.unary_unary_rpc_method_handler(
        behavior,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


class WatchCalls:
    """A server span, the RED metrics and one log line for every call."""

    def __init__(self, metrics: Metrics, may_force: MayForce = anybody) -> None:
        """Counts into these metrics."""
        self._metrics, self._may_force = metrics, may_force
        self._in_flight = metrics.gauge(catalogue.SERVER_IN_FLIGHT)

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """See `Around`."""
        behavior, watched = handler.unary_unary, _Method(self._metrics, method, "unary", self._may_force)

        async def watch(request: Any, context: grpc.aio.ServicerContext) -> Any:
            call, code = _Call(watched, context), "INTERNAL"
            self._in_flight.inc()
            try:
                response = await behavior(request, context)
                code = _name_of(context.code())
                return response
            except asyncio.CancelledError:
                code = "DEADLINE_EXCEEDED" if _expired(context) else "CANCELLED"
                raise
            except grpc.aio.AbortError:
                code = _name_of(context.code())
                raise
            finally:
                self._in_flight.dec()
                call.end(code)

        return around(handler, watch)


class _Method:
    """One method's metrics, bound once; every status counts from 0, so that the first failure is a rise."""

    def __init__(self, metrics: Metrics, name: str, kind: str, may_force: MayForce = anybody) -> None:
        service, _, method = name.rpartition("/")
        labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method}
        self.name = name
        self.bystander = name.startswith(BYSTANDERS)
        self.may_force = may_force
        self.forced = metrics.by_outcome(catalogue.FORCED_SAMPLES, ("forced", "refused"))
        self.started = metrics.counter(catalogue.SERVER_STARTED, **labels)
        self.seconds = metrics.histogram(catalogue.SERVER_SECONDS, **labels)
        self.handled = {
            code.name: metrics.counter(catalogue.SERVER_HANDLED, **labels, grpc_code=code.name)
            for code in grpc.StatusCode
        }


class _Call:
    """One call, from its start to its end."""

    __slots__ = ("_began_s", "_method", "_record", "_span", "_tokens")

    def __init__(self, method: _Method, context: grpc.aio.ServicerContext) -> None:
        self._method = method
        self._began_s = perf_counter()
        method.started.inc()
        self._span, forced = (trace.INVALID_SPAN, "") if method.bystander else _server_span(method, context)
        self._record = Record(self._span, log.isEnabledFor(logging.INFO) and not method.bystander)
        if forced:
            self._record.facts["mixer.force_sample"] = forced
        self._tokens = attach(trace.set_span_in_context(self._span)), open_record(self._record)

    def end(self, code: str) -> None:
        elapsed_s = perf_counter() - self._began_s
        self._method.handled[code].inc()
        self._method.seconds.observe(elapsed_s, self._record.exemplar)
        if code in _FAULTS and self._span.is_recording():
            self._span.set_attribute("error.type", code)
            self._span.set_status(StatusCode.ERROR, code)
        self._record.facts["rpc.response.status_code"] = code
        self._span.end()
        self._log(code, elapsed_s)
        attached, opened = self._tokens
        close_record(opened)
        detach(attached)

    def _log(self, code: str, elapsed_s: float) -> None:
        if self._method.bystander or not self._record.heard:
            return
        context = self._record.context
        trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
        said = {"trace_id": trace_id, "rpc.method": self._method.name}
        elapsed_ms = round(elapsed_s * 1000, 3)
        log.info("call", extra={**said, "elapsed_ms": elapsed_ms, **self._record.facts})


def _server_span(method: _Method, context: grpc.aio.ServicerContext) -> tuple[Span, str]:
    """The call's root span, below the caller's where it sent one, and what became of its wish to be traced."""
    sent = {pair[0]: pair[1] for pair in context.invocation_metadata() or ()}
    parent, forced = propagate.extract(sent), ""
    if sent.get(FORCE_SAMPLE, "0") != "0":
        forced = "forced" if method.may_force(sent) else "refused"
        method.forced[forced].inc()
        parent = set_value(FORCE_SAMPLE, forced == "forced", parent)
    attributes = {"rpc.system.name": "grpc", "rpc.method": method.name}
    return tracer.start_span(method.name, parent, SpanKind.SERVER, attributes), forced


def _expired(context: grpc.aio.ServicerContext) -> bool:
    """Whether a cancelled call ran out of time; the caller's clock may run out a little before ours."""
    left_s = context.time_remaining()
    return left_s is not None and left_s < _CLOCKS_APART_S


def _name_of(code: object) -> str:
    """The name of a status as the context holds it: a member, a number, or nothing for OK."""
    if isinstance(code, grpc.StatusCode):
        return str(code.name)
    return next((status.name for status in grpc.StatusCode if status.value[0] == (code or 0)), "UNKNOWN")


class AnswerErrors:
    """Request errors become their status; anything else is INTERNAL, told to the log and not to the caller."""

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """See `Around`."""
        behavior = handler.unary_unary

        async def answered(request: Any, context: grpc.aio.ServicerContext) -> Any:
            try:
                return await behavior(request, context)
            except RequestError as error:
                await abort(context, error)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                await context.abort(grpc.StatusCode.CANCELLED, "the server gave this call up; try again")
            except grpc.aio.AbortError:
                raise
            except Exception:
                log.exception("unexpected error")
                await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log tells more")

        return around(handler, answered)


class LimitCalls:
    """More calls at once than the limit are turned away at once, so that those within it stay fast."""

    def __init__(self, most: int, metrics: Metrics, load: Load | None = None) -> None:
        """`load` has a limit of its own, up to `most`. Health checks and reflection are not counted."""
        self._most, self._load = most, load
        self._shed = metrics.counter(catalogue.CALLS_SHED).inc
        self._now = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is left: all have ended, and their answers are sent."""
        await self._idle.wait()

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """See `Around`."""
        if method.startswith(BYSTANDERS):
            return handler
        timed = self._load is not None and method.endswith(_SEARCH)
        behavior = self._timed(handler.unary_unary) if timed else handler.unary_unary

        async def limited(request: Any, context: grpc.aio.ServicerContext) -> Any:
            most = self._load.limit if self._load else self._most
            if self._now >= most:
                self._shed()
                raise Overloaded(f"{most} calls are being answered; try again with a pause")
            self._counted(1)
            self._idle.clear()
            context.add_done_callback(self._ended)
            return await behavior(request, context)

        return around(handler, limited)

    def _timed(self, behavior: Behavior) -> Behavior:
        """Tells the load how long a search took, or for how long its caller waited in vain."""

        async def timed(request: Any, context: grpc.aio.ServicerContext) -> Any:
            began_s, at_once = perf_counter(), self._now
            try:
                response = await behavior(request, context)
            except RequestError:
                # It did not take what an answer takes.
                raise
            except BaseException:
                self._took(perf_counter() - began_s, at_once)
                raise
            self._took(perf_counter() - began_s, at_once)
            return response

        return timed

    def _took(self, elapsed_s: float, at_once: int) -> None:
        if self._load:
            self._load.took(elapsed_s, at_once)

    def _counted(self, more: int) -> None:
        self._now += more
        if self._load:
            self._load.now(self._now)

    def _ended(self, _: object) -> None:
        self._counted(-1)
        if not self._now:
            self._idle.set()


class ReadMessages:
    """Decodes the message within the call, so that one that cannot be read is answered and counted like any other."""

    def wrapped(self, handler: Handler, method: str) -> Handler:
        """See `Around`."""

        async def read(data: bytes, context: grpc.aio.ServicerContext) -> Any:
            try:
                message = handler.request_deserializer(data)
            except DecodeError:
                raise InvalidRequest([Violation("(message)", f"is not one of /{method}")]) from None
            return await handler.unary_unary(message, context)

        return grpc.unary_unary_rpc_method_handler(read, response_serializer=handler.response_serializer)
