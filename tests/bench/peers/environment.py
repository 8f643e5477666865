"""What both peers are told when they start, from environment variables, and the spans they send."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

HTTPX_DEFAULT_TIMEOUT_S = 5.0
NUMBERS = tuple(f"n{column}" for column in range(10))


@dataclass(frozen=True, slots=True)
class Settings:
    """Backends by name with their URLs, the model file, and how much a slow backend may cost."""

    backends: Mapping[str, str]
    model: str
    backend_timeout_s: float | None
    """None: httpx's default timeout, and a backend's failure fails the search, as in any first version.

    A number: that timeout, and a backend that fails is logged and left out.
    """

    @classmethod
    def from_environment(cls) -> Settings:
        """Read BACKENDS (a JSON object), MODEL and, where it is set, BACKEND_TIMEOUT_S."""
        timeout = os.environ.get("BACKEND_TIMEOUT_S")
        return cls(
            backends=json.loads(os.environ["BACKENDS"]),
            model=os.environ["MODEL"],
            backend_timeout_s=float(timeout) if timeout else None,
        )

    @property
    def timeout_s(self) -> float:
        """Of one call to one backend."""
        return self.backend_timeout_s or HTTPX_DEFAULT_TIMEOUT_S

    @property
    def features(self) -> list[str]:
        """The model's columns, in its order."""
        return [*NUMBERS, *(f"{name}_{value}" for name in self.backends for value in ("score", "rank"))]


def start_tracing() -> None:
    """OpenTelemetry as its first page has it: sampler and endpoint from OTEL_*, batches of the default size."""
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    HTTPXClientInstrumentor().instrument()
