"""Around every call of the server, outermost first: telemetry, errors, the limit on calls at once, the message."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from mixer import catalogue
from mixer.errors import InvalidRequest, Overloaded, RequestError, Violation
from mixer.metrics import Metrics, exemplar
from mixer.observe import event
from mixer.status import abort

log = logging.getLogger("mixer.call")
tracer = trace.get_tracer("mixer")

Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Behavior = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]

_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Statuses that make a server span an error; the others are the caller's."""
_CLOCKS_APART_S = 0.01
_BY_STANDERS = ("grpc.health.", "grpc.reflection.")
"""Services that are counted but neither traced nor logged."""


class Around(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Base of the interceptors: wraps the behavior of unary calls; streams (health's Watch) pass as they are."""

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler:
        """Called by gRPC for every call."""
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None:
            return handler
        return self.wrapped(handler, details)

    def wrapped(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        """The handler of a unary call with its behavior wrapped."""
        return grpc.unary_unary_rpc_method_handler(
            self.around(handler.unary_unary, details),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def around(self, behavior: Behavior, details: grpc.HandlerCallDetails) -> Behavior:
        """The behavior with something before and after it."""
        raise NotImplementedError


class WatchCalls(Around):
    """A server span, the RED metrics and one log line for every call."""

    def __init__(self, metrics: Metrics) -> None:
        """Counts into these metrics."""
        self._metrics = metrics
        self._in_flight = metrics.gauge(catalogue.SERVER_IN_FLIGHT)
        self._methods: dict[str, _Method] = {}
        self._unknown = _Method(metrics, "unknown/unknown", "unknown")

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler:
        """A method that is not served is counted here, by no name of the caller's; gRPC answers for it."""
        handler = await super().intercept_service(continuation, details)
        if handler is None:
            self._unknown.started.inc()
            self._unknown.handled["UNIMPLEMENTED"].inc()
        return handler

    def around(self, behavior: Behavior, details: grpc.HandlerCallDetails) -> Behavior:
        """See the class."""
        method = self._method(details.method.lstrip("/"))
        parent = propagate.extract({pair[0]: pair[1] for pair in details.invocation_metadata or ()})

        async def watched(request: Any, context: grpc.aio.ServicerContext) -> Any:
            call = _Call(method)
            token = event.set(call.said)
            self._in_flight.inc()
            span: Span = trace.INVALID_SPAN if method.bystander else call.span(parent)
            with trace.use_span(
                span, end_on_exit=True, record_exception=False, set_status_on_exception=False
            ):
                code = "INTERNAL"
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
                    event.reset(token)
                    call.end(span, code)

        return watched

    def _method(self, name: str) -> _Method:
        """Only served methods get here, so that there are few."""
        if name not in self._methods:
            self._methods[name] = _Method(self._metrics, name, "unary")
        return self._methods[name]


class _Method:
    """One method's metrics, bound once; every status counts from 0, so that the first failure is a rise."""

    def __init__(self, metrics: Metrics, name: str, kind: str) -> None:
        service, _, method = name.rpartition("/")
        labels = {"grpc_type": kind, "grpc_service": service, "grpc_method": method}
        self.name = name
        self.bystander = name.startswith(_BY_STANDERS)
        self.started = metrics.counter(catalogue.SERVER_STARTED, **labels)
        self.seconds = metrics.histogram(catalogue.SERVER_SECONDS, **labels)
        self.handled = {
            code.name: metrics.counter(catalogue.SERVER_HANDLED, **labels, grpc_code=code.name)
            for code in grpc.StatusCode
        }


@dataclass(slots=True)
class _Call:
    """One call, from its start to its end."""

    method: _Method
    said: dict[str, Any]
    began_s: float

    def __init__(self, method: _Method) -> None:
        self.method, self.said = method, {}
        self.began_s = perf_counter()
        method.started.inc()

    def span(self, parent: Any) -> Span:
        name = self.method.name
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        return tracer.start_span(name, parent, SpanKind.SERVER, attributes)

    def end(self, span: Span, code: str) -> None:
        elapsed_s = perf_counter() - self.began_s
        self.method.handled[code].inc()
        self.method.seconds.observe(elapsed_s, exemplar())
        if span.is_recording():
            span.set_attributes({**self.said, "rpc.response.status_code": code})
            if code in _FAULTS:
                span.set_attribute("error.type", code)
                span.set_status(StatusCode.ERROR, code)
        if not self.method.bystander:
            context = span.get_span_context()
            trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
            said = {"trace_id": trace_id, "rpc.method": self.method.name, "rpc.response.status_code": code}
            log.info("call", extra={**said, "elapsed_ms": round(elapsed_s * 1000, 3), **self.said})


def _expired(context: grpc.aio.ServicerContext) -> bool:
    """Whether a cancelled call ran out of time; the caller's clock may run out a little before ours."""
    left_s = context.time_remaining()
    return left_s is not None and left_s < _CLOCKS_APART_S


def _name_of(code: object) -> str:
    """The name of a status as the context holds it: a member, a number, or nothing for OK."""
    if isinstance(code, grpc.StatusCode):
        return str(code.name)
    return next((status.name for status in grpc.StatusCode if status.value[0] == (code or 0)), "UNKNOWN")


class AnswerErrors(Around):
    """Request errors become their status; anything else is INTERNAL, told to the log and not to the caller."""

    def around(self, behavior: Behavior, details: grpc.HandlerCallDetails) -> Behavior:
        """See the class."""

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

        return answered


class LimitCalls(Around):
    """More calls at once than the limit are turned away at once, so that those within it stay fast."""

    def __init__(self, most: int) -> None:
        """Health checks and reflection are not counted."""
        self._most = most
        self._now = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call is left: all have ended, and their answers are sent."""
        await self._idle.wait()

    def around(self, behavior: Behavior, details: grpc.HandlerCallDetails) -> Behavior:
        """See the class."""
        if details.method.lstrip("/").startswith(_BY_STANDERS):
            return behavior

        async def limited(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if self._now >= self._most:
                raise Overloaded(f"{self._most} calls are being answered; try again with a pause")
            self._now += 1
            self._idle.clear()
            context.add_done_callback(self._ended)
            return await behavior(request, context)

        return limited

    def _ended(self, _: object) -> None:
        self._now -= 1
        if not self._now:
            self._idle.set()


class ReadMessages(Around):
    """Decodes the message within the call, so that one that cannot be read is answered and counted like any other."""

    def wrapped(self, handler: Handler, details: grpc.HandlerCallDetails) -> Handler:
        """See the class."""

        async def read(data: bytes, context: grpc.aio.ServicerContext) -> Any:
            try:
                message = handler.request_deserializer(data)
            except DecodeError:
                raise InvalidRequest([Violation("(message)", f"is not one of {details.method}")]) from None
            return await handler.unary_unary(message, context)

        return grpc.unary_unary_rpc_method_handler(read, response_serializer=handler.response_serializer)
