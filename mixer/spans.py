"""The spans of served calls, made by the API's own classes without the SDK's lock, limits and cleaning.

One event loop sets each of them, with the catalogue's plain values: what those guard against cannot happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import time_ns
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags


class CallTracer(trace.Tracer):
    """Starts the spans of served calls: sampled as the provider says, without the SDK's lock, limits and cleaning."""

    def __init__(
        self, provider: TracerProvider, ended: Callable[[ReadableSpan], None], name: str = "mixer"
    ) -> None:
        """Takes the provider whose sampler, ids and resource they have, and who hears of their end."""
        self._provider, self._ended = provider, ended
        self._scope = InstrumentationScope(name, "")

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Any = None,
        links: Any = None,
        start_time: int | None = None,
        record_exception: bool = True,
        set_status_on_exception: bool = True,
    ) -> trace.Span:
        """See the API; links are not kept."""
        parent = trace.get_current_span(context).get_span_context()
        ids = self._provider.id_generator
        trace_id = parent.trace_id if parent.is_valid else ids.generate_trace_id()
        chosen = self._provider.sampler.should_sample(context, trace_id, name, kind, attributes)
        flags = parent.trace_flags & ~TraceFlags.SAMPLED
        if chosen.decision.is_sampled():
            flags |= TraceFlags.SAMPLED
        own = SpanContext(trace_id, ids.generate_span_id(), False, TraceFlags(flags), chosen.trace_state)
        if not chosen.decision.is_recording():
            return trace.NonRecordingSpan(own)
        return CallSpan(
            self._ended,
            name=name,
            context=own,
            parent=parent if parent.is_valid else None,
            resource=self._provider.resource,
            attributes=dict(chosen.attributes or {}),
            kind=kind,
            start_time=start_time or time_ns(),
            instrumentation_scope=self._scope,
        )

    @contextmanager
    def start_as_current_span(  # type: ignore[override]  # the API types its own manager
        self, name: str, *rest: Any, **named: Any
    ) -> Iterator[trace.Span]:
        """See the API."""
        with trace.use_span(self.start_span(name, *rest, **named), end_on_exit=True) as span:
            yield span


class CallSpan(trace.Span, ReadableSpan):
    """The span of one call: set by one thread, with plain values."""

    def __init__(self, ended: Callable[[ReadableSpan], None], **fields: Any) -> None:
        """Takes who hears of the end, and a ReadableSpan's fields."""
        ReadableSpan.__init__(self, **fields)
        self._ended = ended

    def get_span_context(self) -> SpanContext:
        """See the API."""
        return cast(SpanContext, self._context)

    def is_recording(self) -> bool:
        """See the API."""
        return self._end_time is None

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """See the API."""
        self._attributes = {**(self._attributes or {}), **attributes}

    def set_attribute(self, key: str, value: Any) -> None:
        """See the API."""
        self.set_attributes({key: value})

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """See the API."""
        self._status = status if isinstance(status, Status) else Status(status, description)

    def update_name(self, name: str) -> None:
        """See the API."""
        self._name = name

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """See the API."""
        self._events = (*self._events, Event(name, attributes, timestamp))

    def record_exception(
        self,
        exception: BaseException,
        attributes: Any = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        """By its class alone: its words may be the user's."""
        self.add_event("exception", {"exception.type": type(exception).__qualname__}, timestamp)

    def end(self, end_time: int | None = None) -> None:
        """See the API."""
        if self._end_time is None:
            self._end_time = end_time or time_ns()
            self._ended(self)
