"""The catalogue's metrics as Prometheus objects, each made once in a registry of Mixer's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from opentelemetry import trace
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from mixer.catalogue import METRICS, Kind, Metric

disable_created_metrics()

T = TypeVar("T", Counter, Gauge, Histogram)


class Metrics:
    """One registry with every metric of the catalogue."""

    def __init__(self) -> None:
        """All metrics exist from the start, without samples until something happens."""
        self.registry = CollectorRegistry(auto_describe=True)
        self._made = {metric.name: self._make(metric) for metric in METRICS}

    def counter(self, metric: Metric, **labels: str) -> Counter:
        """A counter, bound to these labels."""
        return self._bound(metric, Counter, labels)

    def gauge(self, metric: Metric, **labels: str) -> Gauge:
        """A gauge, bound to these labels."""
        return self._bound(metric, Gauge, labels)

    def histogram(self, metric: Metric, **labels: str) -> Histogram:
        """A histogram, bound to these labels."""
        return self._bound(metric, Histogram, labels)

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.kind is Kind.HISTOGRAM:
            return Histogram(
                metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
            )
        make = Counter if metric.kind is Kind.COUNTER else Gauge
        return make(metric.name, metric.help, metric.labels, registry=self.registry)

    def _bound(self, metric: Metric, kind: type[T], labels: Mapping[str, str]) -> T:
        made = self._made[metric.name]
        if not isinstance(made, kind):
            raise TypeError(f"{metric.name} is a {metric.kind}")
        return made.labels(**labels) if labels else made


def exemplar() -> dict[str, str] | None:
    """The current trace as an exemplar, where it is recorded."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid or not context.trace_flags.sampled:
        return None
    return {"trace_id": trace.format_trace_id(context.trace_id)}
