"""A small OTLP receiver, so that the demo can show the trace of a call as a tree. Not for production."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from rich.text import Text
from rich.tree import Tree


@dataclass(frozen=True, slots=True)
class SpanSeen:
    """One span as it arrived."""

    id: bytes
    parent: bytes
    name: str
    service: str
    start_ns: int
    end_ns: int
    failed: bool
    attributes: dict[str, Any]


class Collector(rpc.TraceServiceServicer):
    """Receives spans over gRPC and keeps them by trace."""

    def __init__(self) -> None:
        """Listens on a free port of the loopback at once."""
        self._traces: dict[str, list[SpanSeen]] = defaultdict(list)
        self._arrived = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(4))
        rpc.add_TraceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
        }
        """Variables that make a process send its spans here."""
        self._server.start()

    def Export(self, request: pb.ExportTraceServiceRequest, context: object) -> pb.ExportTraceServiceResponse:  # noqa: N802
        """OTLP's only call."""
        with self._arrived:
            for resource in request.resource_spans:
                service = _attributes(resource.resource.attributes).get("service.name", "")
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        self._traces[span.trace_id.hex()].append(_seen(span, service))
            self._arrived.notify_all()
        return pb.ExportTraceServiceResponse()

    def trace(self, trace_id: str, root: str, spans: int, timeout_s: float = 5.0) -> list[SpanSeen]:
        """The spans of a trace, once its root and that many in all are in, or what came within the time."""
        deadline_s = time.monotonic() + timeout_s
        with self._arrived:
            while time.monotonic() < deadline_s:
                seen = self._traces[trace_id]
                if len(seen) >= spans and any(span.name == root for span in seen):
                    break
                self._arrived.wait(0.1)
            return list(self._traces[trace_id])

    def stop(self) -> None:
        """Close the port."""
        self._server.stop(None).wait()


def _seen(span: Any, service: str) -> SpanSeen:
    return SpanSeen(
        id=span.span_id,
        parent=span.parent_span_id,
        name=span.name,
        service=service,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        failed=span.status.code == span.status.STATUS_CODE_ERROR,
        attributes=_attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


_TOLD = (
    "mixer.degraded",
    "mixer.model.version",
    "mixer.backend.outcome",
    "mixer.backend.hits",
    "mixer.candidates",
    "mixer.features.missing",
    "mixer.ranker",
    "mixer.hits",
)


def tree(spans: list[SpanSeen]) -> Tree:
    """A trace as a tree: every span with its time, when it began, its process, and what it says."""
    children: dict[bytes, list[SpanSeen]] = defaultdict(list)
    known = {span.id for span in spans}
    for span in sorted(spans, key=lambda span: span.start_ns):
        children[span.parent if span.parent in known else b""].append(span)
    begin_ns = min((span.start_ns for span in spans), default=0)
    drawn = Tree(Text("trace", "bold"))
    _grow(drawn, b"", children, begin_ns)
    return drawn


def _grow(branch: Tree, parent: bytes, children: dict[bytes, list[SpanSeen]], begin_ns: int) -> None:
    for span in children[parent]:
        line = Text(f"{(span.end_ns - span.start_ns) / 1e6:8.2f} ms  ", "red" if span.failed else "cyan")
        line.append(span.name, "bold")
        line.append(f"  +{(span.start_ns - begin_ns) / 1e6:.2f} ms  {span.service}", "dim")
        told = [
            f"{key.removeprefix('mixer.')}={span.attributes[key]}" for key in _TOLD if key in span.attributes
        ]
        line.append(f"  {' '.join(told)}" if told else "", "green")
        _grow(branch.add(line), span.id, children, begin_ns)
