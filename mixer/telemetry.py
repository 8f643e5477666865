"""Where telemetry goes: the only file that imports OpenTelemetry's SDK. Standard OTEL_* variables set it up.

Without an endpoint no span is made; a caller's trace context still reaches the backends.
A collector that is down, slow or full costs a counted drop.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from mixer import catalogue
from mixer.metrics import Metrics

_QUEUE, _BATCH, _DELAY_MS, _TIMEOUT_S = 4096, 32, 200.0, 2.0
"""Small batches, sent often: large ones hold the interpreter long enough to be seen in the slowest requests."""
_SWITCH_INTERVAL_S = 0.0005
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
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_SHUTDOWN_S)


def start(service_name: str, metrics: Metrics, exporter: SpanExporter | None = None) -> Telemetry:
    """Set up tracing for this process; `exporter` stands in for the one that the environment names."""
    exporter = exporter or _exporter(os.environ)
    if exporter is None:
        return Telemetry()
    ours = Resource.create({"service.name": service_name, "service.version": version("mixer")})
    resource = ours.merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(CountedBatches(exporter, metrics))
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    trace.set_tracer_provider(provider)
    return Telemetry(provider)


def _exporter(environment: Mapping[str, str]) -> SpanExporter | None:
    """The exporter that the environment asks for, if it does."""

    def setting(name: str) -> str:
        traces, general = f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"
        return environment.get(traces) or environment.get(general) or ""

    disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or environment.get("OTEL_TRACES_EXPORTER") == "none" or not setting("ENDPOINT"):
        return None
    timeout_s = float(setting("TIMEOUT") or _TIMEOUT_S)
    if setting("PROTOCOL").startswith("http/"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

    return OverGrpc(timeout=timeout_s)


class CountedBatches(SpanProcessor):
    """Sends spans in batches on a thread of its own, and counts those that do not arrive."""

    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        """OTEL_BSP_* variables override the sizes."""
        self._full = metrics.counter(catalogue.SPANS_DROPPED, reason="queue_full")
        self._size = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or _QUEUE)
        batch = int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or _BATCH)
        self._counted = _CountedExporter(exporter, metrics)
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
        """Queue the span, or count it as dropped where the queue is full."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self._ended - self._counted.taken >= self._size:
            self._full.inc()
            return
        self._ended += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what is queued."""
        self._batches.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is queued now."""
        return self._batches.force_flush(timeout_millis)


class _CountedExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        self._exporter = exporter
        self._failed = metrics.counter(catalogue.SPANS_DROPPED, reason="export_failed")
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self._failed.inc(len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


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
