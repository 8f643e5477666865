"""Around every call of the server, outermost first: telemetry, errors, the limit on calls at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from mixer import catalogue
from mixer.errors import Overloaded, RequestError
from mixer.metrics import Metrics, exemplar
from mixer.observe import event

log = logging.getLogger("mixer.call")
tracer = trace.get_tracer("mixer")

Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Behavior = Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]

_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Statuses that make a server span an error; the others are the caller's."""
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

    def around(self, behavior: Behavior, details: grpc.HandlerCallDetails) -> Behavior:
        """See the class."""
        method = details.method.lstrip("/")
        parent = propagate.extract({pair[0]: pair[1] for pair in details.invocation_metadata or ()})

        async def watched(request: Any, context: grpc.aio.ServicerContext) -> Any:
            call = _Call(self._metrics, method)
            token = event.set(call.said)
            self._in_flight.inc()
            bystander = method.startswith(_BY_STANDERS)
            span: Span = trace.INVALID_SPAN if bystander else call.span(parent)
            with trace.use_span(
                span, end_on_exit=True, record_exception=False, set_status_on_exception=False
            ):
                code = "INTERNAL"
                try:
                    response = await behavior(request, context)
                    code = _name_of(context.code())
                    return response
                except asyncio.CancelledError:
                    code = "CANCELLED" if (context.time_remaining() or 1) > 0 else "DEADLINE_EXCEEDED"
                    raise
                except grpc.aio.AbortError:
                    code = _name_of(context.code())
                    raise
                finally:
                    self._in_flight.dec()
                    event.reset(token)
                    call.end(span, code, log_line=not bystander)

        return watched


@dataclass(slots=True)
class _Call:
    """One call, from its start to its end."""

    metrics: Metrics
    method: str
    said: dict[str, Any]
    began_s: float

    def __init__(self, metrics: Metrics, method: str) -> None:
        self.metrics, self.method, self.said = metrics, method, {}
        self.began_s = perf_counter()
        metrics.counter(catalogue.SERVER_STARTED, **self._labels).inc()

    @property
    def _labels(self) -> dict[str, str]:
        service, _, name = self.method.rpartition("/")
        return {"grpc_type": "unary", "grpc_service": service, "grpc_method": name}

    def span(self, parent: Any) -> Span:
        attributes = {"rpc.system.name": "grpc", "rpc.method": self.method}
        return tracer.start_span(self.method, parent, SpanKind.SERVER, attributes)

    def end(self, span: Span, code: str, log_line: bool) -> None:
        elapsed_s = perf_counter() - self.began_s
        self.metrics.counter(catalogue.SERVER_HANDLED, **self._labels, grpc_code=code).inc()
        self.metrics.histogram(catalogue.SERVER_SECONDS, **self._labels).observe(elapsed_s, exemplar())
        if span.is_recording():
            span.set_attributes({**self.said, "rpc.response.status_code": code})
            if code != "OK":
                span.set_attribute("error.type", code)
            if code in _FAULTS:
                span.set_status(StatusCode.ERROR, code)
        if log_line:
            context = span.get_span_context()
            trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else ""
            said = {"trace_id": trace_id, "rpc.method": self.method, "rpc.response.status_code": code}
            log.info("call", extra={**said, "elapsed_ms": round(elapsed_s * 1000, 3), **self.said})


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
                await _abort(context, error)
            except asyncio.CancelledError:
                if context.cancelled() or (context.time_remaining() or 1) <= 0:
                    raise
                await context.abort(grpc.StatusCode.CANCELLED, "the server gave this call up; try again")
            except grpc.aio.AbortError:
                raise
            except Exception:
                log.exception("unexpected error")
                await context.abort(grpc.StatusCode.INTERNAL, "internal error; the server's log tells more")

        return answered


async def _abort(context: grpc.aio.ServicerContext, error: RequestError) -> None:
    """End the call with the error's status; wrong fields go along as google.rpc.BadRequest."""
    status = status_pb2.Status(code=error.status.value[0], message=str(error))
    if error.violations:
        violation = error_details_pb2.BadRequest.FieldViolation
        wrong = [violation(field=v.field, description=v.description) for v in error.violations]
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=wrong))
    await context.abort_with_status(rpc_status.to_status(status))


class LimitCalls(Around):
    """More calls at once than the limit are turned away at once, so that those within it stay fast."""

    def __init__(self, most: int) -> None:
        """Health checks and reflection are not counted."""
        self._most = most
        self._now = 0

    def around(self, behavior: Behavior, details: grpc.HandlerCallDetails) -> Behavior:
        """See the class."""
        if details.method.lstrip("/").startswith(_BY_STANDERS):
            return behavior

        async def limited(request: Any, context: grpc.aio.ServicerContext) -> Any:
            if self._now >= self._most:
                raise Overloaded(f"{self._most} calls are being answered; try again with a pause")
            self._now += 1
            try:
                return await behavior(request, context)
            finally:
                self._now -= 1

        return limited
