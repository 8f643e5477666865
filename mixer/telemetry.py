"""Where traces go, by OpenTelemetry's SDK, which only this, `mixer.spans` and `mixer.otlp_logs` import.

Standard OTEL_* variables set it up.

Without an endpoint no span is made; a caller's trace context still reaches the backends.
A collector that is down, slow or full costs a counted drop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Any

import numpy as np
import structlog
from opentelemetry import trace
from opentelemetry.context import Context, get_value
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import INVALID_SPAN_CONTEXT, Status, StatusCode

from mixer import catalogue, otlp
from mixer.interceptors import CALLS, FORCE_SAMPLE
from mixer.mask import masked_values
from mixer.metrics import Metrics
from mixer.record import Record, Step, current
from mixer.spans import CallTracer

TIMEOUT_S = 2.0
"""Of an exporter, where the environment names none."""
_QUEUE, _BATCH, _DELAY_MS = 1024, 16, 200.0
"""Small batches, sent often: large ones hold the interpreter long enough to be seen in the slowest requests."""
_SHUTDOWN_S = 5.0


class Telemetry:
    """Tracing of one process, from its start to its end."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """Takes the provider that is to be shut down at the end, where there is one."""
        self._provider = provider

    def shutdown(self) -> None:
        """Send what is left, but not for long: an exporter that hangs is left behind. Call it off the event loop."""
        if self._provider is None:
            return
        within(_SHUTDOWN_S, self._provider.shutdown)


def within(seconds: float, verb: Callable[[], object]) -> None:
    """Wait for the verb, but not for longer: then it is left behind."""
    waited = threading.Thread(target=verb, daemon=True)
    waited.start()
    waited.join(seconds)


def start(service_name: str, metrics: Metrics, exporter: SpanExporter | None = None) -> Telemetry:
    """Set up tracing for this process; `exporter` stands in for the one that the environment names."""
    exporter = exporter or _exporter(os.environ)
    if exporter is None:
        return Telemetry()
    provider = Provider(CountedBatches(exporter, metrics), resource_of(service_name))
    trace.set_tracer_provider(provider)
    return Telemetry(provider)


def resource_of(service_name: str) -> Resource:
    """What telemetry says of this process; the environment has the last word."""
    ours = Resource.create({"service.name": service_name, "service.version": version("mixer")})
    return ours.merge(OTELResourceDetector().detect())


def _exporter(environment: Mapping[str, str]) -> SpanExporter | None:
    """The exporter that the environment asks for, if it does."""
    setting = partial(otlp_setting, environment, "TRACES")
    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environment.get("OTEL_TRACES_EXPORTER") == "none" or not setting("ENDPOINT"):
        return None
    timeout_s = float(setting("TIMEOUT") or TIMEOUT_S)
    if setting("PROTOCOL").startswith("http/"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(timeout=timeout_s)
    return OverGrpc(timeout=timeout_s)


def otlp_setting(environment: Mapping[str, str], signal: str, name: str) -> str:
    """What the environment says of a signal's exporter, or of all signals'; empty where it says nothing."""
    own, general = f"OTEL_EXPORTER_OTLP_{signal}_{name}", f"OTEL_EXPORTER_OTLP_{name}"
    return environment.get(own) or environment.get(general) or ""


class Provider(TracerProvider):
    """The SDK's provider, but for the tracer of served calls."""

    def __init__(self, batches: CountedBatches, resource: Resource | None = None) -> None:
        """All spans go into these batches."""
        super().__init__(resource=resource, shutdown_on_exit=False)
        self.sampler = Forced(self.sampler)
        self.add_span_processor(batches)
        self._calls = CallTracer(self, batches.on_end)

    def get_tracer(self, instrumenting_module_name: str, *rest: Any, **named: Any) -> trace.Tracer:
        """See the API; a library's tracer is the SDK's own."""
        if instrumenting_module_name == "mixer":
            return self._calls
        return super().get_tracer(instrumenting_module_name, *rest, **named)


class Forced(Sampler):
    """Samples the calls whose callers may ask for that, and of the others those that another sampler would."""

    def __init__(self, otherwise: Sampler) -> None:
        """Takes the one that the environment asks for."""
        self._otherwise = otherwise

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *rest: Any, **named: Any
    ) -> SamplingResult:
        """See the SDK."""
        chosen = self._otherwise.should_sample(parent_context, trace_id, name, *rest, **named)
        if get_value(FORCE_SAMPLE, parent_context) and not chosen.decision.is_sampled():
            return SamplingResult(Decision.RECORD_AND_SAMPLE, chosen.attributes, chosen.trace_state)
        return chosen

    def get_description(self) -> str:
        """See the SDK."""
        return f"Forced({self._otherwise.get_description()})"


class CountedBatches(SpanProcessor):
    """Sends calls in batches on a thread of its own, and counts the spans that do not arrive.

    A call waits as one piece, its own span with the steps noted in its record. On an event loop its bytes are written
    there, in a part of a millisecond and after its answer: on the thread, a batch of them would hold the interpreter
    for longer than the slowest requests should notice.
    """

    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        """OTEL_BSP_* variables override the sizes, which count calls."""
        self._full = metrics.counter(catalogue.SPANS_DROPPED, reason="queue_full")
        self._size = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or _QUEUE)
        batch = int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or _BATCH)
        self._counted = _CountedExporter(exporter, metrics)
        self._writes = isinstance(exporter, OverGrpc)
        self._batches = BatchSpanProcessor(
            self._counted,
            max_queue_size=self._size,
            max_export_batch_size=min(batch, self._size),
            schedule_delay_millis=float(os.environ.get("OTEL_BSP_SCHEDULE_DELAY") or _DELAY_MS),
        )
        self._ended = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing to do."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue the span, or count it and its steps as dropped where the queue is full."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        call = Call(span, current())
        if self._ended - self._counted.taken >= self._size:
            self._full.inc(call.size)
            return
        self._ended += 1
        try:
            asyncio.get_running_loop().call_soon(self._queue, call)
        except RuntimeError:  # a span that ends on another thread
            self._batches.on_end(call)

    def _queue(self, call: Call) -> None:
        if self._writes:
            call.write()
        self._batches.on_end(call)

    def shutdown(self) -> None:
        """Send what is queued."""
        self._batches.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is queued now."""
        return self._batches.force_flush(timeout_millis)


class Call(ReadableSpan):
    """A span that ended, with the facts and steps of its record where it is the record's own.

    It stands in the queue for all of them, and holds no more of a span itself than the queue reads.
    """

    def __init__(self, span: ReadableSpan, record: Record) -> None:
        """A span within a call, which some library made, has neither facts nor steps."""
        super().__init__(
            span.name, span.context, resource=span.resource, instrumentation_scope=span.instrumentation_scope
        )
        self._of = span
        self._record = record if span.context == record.context else Record()
        self.size = 1 + len(self._record.steps or ())
        """Spans of the call."""
        self.written = b""
        """All of them as fields of ScopeSpans, where they could be written."""

    def write(self) -> None:
        """Write all spans, and let go of what they were written from: less memory is touched again sooner."""
        record = self._record
        steps = [otlp.step_field(record, step) for step in record.steps or ()]
        fields = [otlp.span_field(self._of, record.facts), *steps]
        if None not in fields:
            self.written = b"".join(filter(None, fields))
            self._of, self._record = self, Record()

    def spans(self) -> list[ReadableSpan]:
        """The span itself and a span of every step."""
        of = self._of
        own = ReadableSpan(
            name=of.name,
            context=of.context,
            parent=of.parent,
            resource=of.resource,
            attributes={**(of.attributes or {}), **self._record.facts},
            events=of.events,
            links=of.links,
            kind=of.kind,
            status=of.status,
            start_time=of.start_time,
            end_time=of.end_time,
            instrumentation_scope=of.instrumentation_scope,
        )
        return [own, *map(self._span, self._record.steps or ())]

    def _span(self, step: Step) -> ReadableSpan:
        attributes = {key: _plain(value) for key, value in step.attributes.items()}
        if step.error:
            attributes["error.type"] = step.error
        return ReadableSpan(
            name=step.name,
            context=self._record.context_of(step.id),
            parent=self._record.context_of(step.parent_id),
            resource=self.resource,
            attributes=attributes,
            kind=step.kind,
            status=Status(StatusCode.ERROR, step.error) if step.error else _UNSET,
            start_time=step.began_ns,
            end_time=step.ended_ns,
            instrumentation_scope=self.instrumentation_scope,
        )


def _plain(value: Any) -> Any:
    """Arrays as tuples, which is how the SDK keeps them, with None for NaN as `otlp` has it."""
    if not isinstance(value, np.ndarray):
        return value
    return tuple(None if item != item else item for item in value.tolist())


_UNSET = Status()


class _CountedExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        self._exporter = exporter
        self._failed = metrics.counter(catalogue.SPANS_DROPPED, reason="export_failed")
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans if isinstance(self._exporter, OverGrpc) else _whole(spans))
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._failed.inc(sum(call.size if isinstance(call, Call) else 1 for call in spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _whole(calls: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    """Every span of every call."""
    return [span for call in calls for span in (call.spans() if isinstance(call, Call) else [call])]


class OverGrpc(OTLPSpanExporter):
    """The standard exporter, but for calls whose spans are written already."""

    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        written: dict[tuple[int, int], list[Call]] = {}
        others: list[ReadableSpan] = []
        for call in data:
            if isinstance(call, Call) and call.written:
                # By identity: a resource's own hash costs more than writing the span.
                written.setdefault((id(call.resource), id(call.instrumentation_scope)), []).append(call)
            else:
                others.append(call)
        parts = [*map(_framed, written.values()), *([encode_spans(_whole(others))] if others else [])]
        request = parts.pop()
        for part in parts:
            request.MergeFrom(part)
        return request


def _framed(calls: Sequence[Call]) -> ExportTraceServiceRequest:
    """Spans as they are written, in a request that says where they come from."""
    first = calls[0]
    empty = ReadableSpan(
        first.name,
        INVALID_SPAN_CONTEXT,
        resource=first.resource,
        instrumentation_scope=first.instrumentation_scope,
    )
    frame = encode_spans([empty])
    spans = frame.resource_spans[0].scope_spans[0]
    del spans.spans[:]
    spans.MergeFromString(b"".join([call.written for call in calls]))
    return frame


def start_logging(level: str, raw_messages: bool = False) -> None:
    """One JSON line an event on standard output, ours and the libraries'.

    Tracebacks name files and lines but not the exceptions' messages, which may hold a user's words, unless
    `raw_messages`.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        _with_traceback if raw_messages else _with_bare_traceback,
        _without_secrets,
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _without_secrets(_: object, __: str, line: dict[str, Any]) -> dict[str, Any]:
    """The one line a call is spared: it holds what the catalogue names, and no text of a library."""
    is_call = line.get("logger") == CALLS and line.get("event") == "call"
    return line if is_call else masked_values(line)


def _with_traceback(_: object, __: str, line: dict[str, Any]) -> dict[str, Any]:
    rendered: Any = structlog.processors.format_exc_info(None, "", line)
    return dict(rendered)


def _with_bare_traceback(_: object, __: str, line: dict[str, Any]) -> dict[str, Any]:
    info = line.pop("exc_info", None)
    if info:
        kind, _error, frames = sys.exc_info() if info is True else info
        line["error"] = kind.__name__ if kind else ""
        line["frames"] = _frames(frames)
    return line


def _frames(traceback: TracebackType | None) -> list[str]:
    places: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        places.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return places
