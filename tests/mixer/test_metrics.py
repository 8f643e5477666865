from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from mixer import catalogue
from mixer.metrics import Metrics, exemplar


def test_every_metric_of_the_catalogue_exists_from_the_start() -> None:
    """A scrape before the first call names them all, with their help: nobody waits for a first failure to learn
    that a metric exists."""
    text = generate_latest(Metrics().registry).decode()
    for metric in catalogue.METRICS:
        assert f"# HELP {metric.name} {metric.help}" in text
        assert f"# TYPE {metric.name} {metric.kind}" in text


def test_two_registries_do_not_meet() -> None:
    """Each Metrics counts for itself: two servers in one process do not share figures."""
    first, second = Metrics(), Metrics()
    first.counter(catalogue.DEGRADED, mix="m").inc()
    assert first.registry.get_sample_value("mixer_degraded_total", {"mix": "m"}) == 1
    assert second.registry.get_sample_value("mixer_degraded_total", {"mix": "m"}) is None


def test_the_same_labels_are_the_same_sample() -> None:
    """Binding labels twice counts in one place."""
    metrics = Metrics()
    for _ in range(2):
        metrics.counter(catalogue.DEGRADED, mix="m").inc()
    assert metrics.registry.get_sample_value("mixer_degraded_total", {"mix": "m"}) == 2


def test_labels_are_those_of_the_catalogue() -> None:
    """A label too many, too few or of another name is a mistake at once."""
    for labels in ({}, {"mix": "m", "query": "q"}, {"query": "q"}):
        with pytest.raises(ValueError, match="label"):
            Metrics().counter(catalogue.DEGRADED, **labels).inc()


def test_a_metric_is_of_its_kind() -> None:
    """A counter asked for as a gauge is a mistake at once, named."""
    with pytest.raises(TypeError, match="mixer_degraded_total is a counter"):
        Metrics().gauge(catalogue.DEGRADED, mix="m")


def test_histograms_have_the_catalogue_s_buckets() -> None:
    """The steps are those declared, and infinity."""
    metrics = Metrics()
    metrics.histogram(catalogue.CANDIDATES, mix="m").observe(5)
    found = metrics.registry.get_sample_value
    below, above = ({"mix": "m", "le": le} for le in ("3.0", "10.0"))
    assert (found("mixer_candidates_bucket", below), found("mixer_candidates_bucket", above)) == (0, 1)


def test_there_are_no_creation_times() -> None:
    """One series a metric, not two: `_created` is left out."""
    metrics = Metrics()
    metrics.counter(catalogue.DEGRADED, mix="m").inc()
    assert "_created" not in generate_latest(metrics.registry).decode()


def within(sampled: bool) -> NonRecordingSpan:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=flags))


def test_an_exemplar_is_of_a_recorded_trace() -> None:
    """Outside a trace, or in one that is not sampled, there is none: it would lead nowhere."""
    assert exemplar() is None
    with trace.use_span(within(sampled=False)):
        assert exemplar() is None
    with trace.use_span(within(sampled=True)):
        assert exemplar() == {"trace_id": f"{0xABC:032x}"}


def test_exemplars_are_scraped() -> None:
    """In OpenMetrics the trace id stands behind the bucket that it fell into."""
    metrics = Metrics()
    with trace.use_span(within(sampled=True)):
        metrics.histogram(catalogue.STAGE_SECONDS, mix="m", stage="plan").observe(0.01, exemplar())
    assert f'# {{trace_id="{0xABC:032x}"}}' in openmetrics(metrics.registry).decode()
