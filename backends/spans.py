"""A client span around a call to a database, by OpenTelemetry's `db.*` conventions; none where the call is not traced.

    with db_span("opensearch", "search", "products", "db.example.org", 9200) as span:
        ...

The text of a query is never told: whether a user's words may be kept is for the caller of all this to say, not here.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode

from backends.base import BackendError

tracer = trace.get_tracer("backends")
_UNTRACED: AbstractContextManager[Span] = nullcontext(INVALID_SPAN)


def db_span(
    system: str, operation: str, collection: str, address: str, port: int | None = None
) -> AbstractContextManager[Span]:
    """A span below the current one; what is raised in it, but for its words, makes it an error.

    A call that is not sampled costs a look at its context, and never begins a trace of its own.
    """
    if not trace.get_current_span().get_span_context().trace_flags.sampled:
        return _UNTRACED
    attributes: dict[str, str | int] = {
        "db.system.name": system,
        "db.operation.name": operation,
        "db.collection.name": collection,
        "server.address": address,
    }
    if port is not None:
        attributes["server.port"] = port
    return _watched(f"{operation} {collection}", attributes)


@contextmanager
def _watched(name: str, attributes: dict[str, str | int]) -> Iterator[Span]:
    with tracer.start_as_current_span(
        name,
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,  # its words may be the user's
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", _kind_of(error))
            span.set_status(Status(StatusCode.ERROR))
            raise


def _kind_of(error: BaseException) -> str:
    if isinstance(error, CancelledError):
        return "cancelled"
    return error.code if isinstance(error, BackendError) else type(error).__qualname__
