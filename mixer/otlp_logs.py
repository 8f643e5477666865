"""Log records over OTLP, by OpenTelemetry's SDK, to where the standard OTEL_* variables say.

Whoever logs never waits for the receiver.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from mixer.telemetry import TIMEOUT_S, otlp_setting, resource_of, within

EVENT = "mixer.search"
_QUEUE, _BATCH, _DELAY_MS = 256, 8, 200.0
"""Small batches: receivers of gRPC take 4 MiB at once, and a row may be some hundred KiB."""


class LogRecords:
    """Queues records and sends them in batches, on a thread of the SDK's."""

    def __init__(
        self, service_name: str, lost: Callable[[str, int], None], exporter: LogRecordExporter | None = None
    ) -> None:
        """`lost` hears of records that do not arrive. OTEL_BLRP_* variables override the sizes."""
        self._lost = lost
        self._size = int(os.environ.get("OTEL_BLRP_MAX_QUEUE_SIZE") or _QUEUE)
        batch = int(os.environ.get("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE") or _BATCH)
        self._counted = _Counted(exporter or _exporter(os.environ), lost)
        self._provider = LoggerProvider(resource_of(service_name), shutdown_on_exit=False)
        self._provider.add_log_record_processor(
            BatchLogRecordProcessor(
                self._counted,
                schedule_delay_millis=float(os.environ.get("OTEL_BLRP_SCHEDULE_DELAY") or _DELAY_MS),
                max_export_batch_size=min(batch, self._size),
                max_queue_size=self._size,
            )
        )
        self._logger = self._provider.get_logger("mixer")
        self._emitted = 0

    def emit(self, body: str, attributes: Mapping[str, str | bool], time_ns: int, trace_id: str = "") -> None:
        """Queue a record, or count it as lost where the queue is full. `trace_id` is 32 hex digits."""
        if self._emitted - self._counted.taken >= self._size:
            self._lost("otlp_queue_full", 1)
            return
        self._emitted += 1
        self._logger.emit(
            LogRecord(
                timestamp=time_ns,
                context=_within(trace_id),
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                body=body,
                attributes=attributes,
                event_name=EVENT,
            )
        )

    def shutdown(self, within_s: float) -> None:
        """Send what is queued, but not for long: what is left then is lost."""
        within(within_s, self._provider.shutdown)
        if left := self._emitted - self._counted.taken:
            self._lost("otlp_failed", left)


class _Counted(LogRecordExporter):
    def __init__(self, exporter: LogRecordExporter, lost: Callable[[str, int], None]) -> None:
        self._exporter, self._lost = exporter, lost
        self.taken = 0

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.taken += len(batch)
        result = LogRecordExportResult.FAILURE
        try:
            result = self._exporter.export(batch)
        finally:
            if result is not LogRecordExportResult.SUCCESS:
                self._lost("otlp_failed", len(batch))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


def _within(trace_id: str) -> Context:
    """The context of a trace of which no span is known."""
    flags = TraceFlags(TraceFlags.SAMPLED if trace_id else TraceFlags.DEFAULT)
    span = NonRecordingSpan(SpanContext(int(trace_id or "0", 16), trace.INVALID_SPAN_ID, False, flags))
    return trace.set_span_in_context(span, Context())


def _exporter(environment: Mapping[str, str]) -> LogRecordExporter:
    """The one that the environment asks for."""
    setting = partial(otlp_setting, environment, "LOGS")
    timeout_s = float(setting("TIMEOUT") or TIMEOUT_S)
    if setting("PROTOCOL").startswith("http/"):
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as OverHttp

        return OverHttp(timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as OverGrpc

    return OverGrpc(timeout=timeout_s)
