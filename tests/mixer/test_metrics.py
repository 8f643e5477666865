from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import generate_latest, values
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from mixer import catalogue
from mixer.catalogue import METRICS, Kind, Metric
from mixer.metrics import Merged, Metrics, share


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


def test_exemplars_are_scraped() -> None:
    """In OpenMetrics the trace id stands behind the bucket that it fell into."""
    metrics = Metrics()
    metrics.histogram(catalogue.STAGE_SECONDS, mix="m", stage="plan").observe(
        0.01, {"trace_id": f"{0xABC:032x}"}
    )
    assert f'# {{trace_id="{0xABC:032x}"}}' in openmetrics(metrics.registry).decode()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where workers share their metrics; afterwards this process shares none."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    return tmp_path


def of_worker(folder: Path, number: int) -> Metrics:
    """The metrics of a worker that starts."""
    share(folder, number)
    return Metrics()


def merged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Merged:
    """What the supervisor serves; its own metrics, with one restart, are shared with nobody."""
    with monkeypatch.context() as patch:
        patch.setattr(values, "ValueClass", values.MutexValue)
        own = Metrics()
        own.counter(catalogue.WORKER_RESTARTS, reason="exited").inc()
        return Merged(own, folder)


def labels(metric: Metric) -> dict[str, str]:
    return dict.fromkeys(metric.labels, "x")


def count(metrics: Metrics, value: float) -> None:
    """Every metric, by this much."""
    for metric in METRICS:
        if metric.kind is Kind.HISTOGRAM:
            metrics.histogram(metric, **labels(metric)).observe(value)
        elif metric.kind is Kind.COUNTER:
            metrics.counter(metric, **labels(metric)).inc(value)
        else:
            metrics.gauge(metric, **labels(metric)).set(value)
    metrics.settle()


ONE_FOR_ALL = {
    catalogue.MODEL_INFO,
    catalogue.MODEL_SCORER,
    catalogue.MODEL_AGE,
    catalogue.MODEL_SCORER,
    catalogue.SCORE_BIN_REFERENCE,
    catalogue.FEATURE_BIN_REFERENCE,
    catalogue.BACKEND_FRESH_AT,
    catalogue.ARM_SHARE,
    catalogue.ARM_TAKEN_BACK,
    catalogue.LOAD,
    catalogue.BREAKER_STATE,
}
"""Gauges of which every worker tells the same, or the greatest is the answer."""


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_workers_are_merged(metric: Metric, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers count is added up; what they all know is told once."""
    for number, value in ((1, 2.0), (2, 3.0)):
        count(of_worker(folder, number), value)
    found = merged(folder, monkeypatch).registry.get_sample_value
    if metric.kind is Kind.HISTOGRAM:
        assert found(f"{metric.name}_count", labels(metric)) == 2
        assert found(f"{metric.name}_sum", labels(metric)) == 5
        assert found(f"{metric.name}_bucket", {**labels(metric), "le": "+Inf"}) == 2
    else:
        least = metric in (catalogue.SAMPLE_RATIO_P, catalogue.TLS_EXPIRES, catalogue.QUALITY)
        once, told_once = 2 if least else 3, least or metric in ONE_FOR_ALL
        assert found(metric.name, labels(metric)) == (once if told_once else 5)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_worker_that_ended(metric: Metric, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it counted stays, and the next of its number counts on; what it was doing is over."""
    for number, value in ((1, 3.0), (2, 2.0)):
        count(of_worker(folder, number), value)
    all_workers = merged(folder, monkeypatch)
    all_workers.forget(1)
    found, name = all_workers.registry.get_sample_value, metric.name
    if metric.kind is Kind.GAUGE:
        assert found(name, labels(metric)) == 2
        return
    sample = f"{name}_count" if metric.kind is Kind.HISTOGRAM else name
    before = found(sample, labels(metric))
    count(of_worker(folder, 1), 1.0)
    assert before == (2 if metric.kind is Kind.HISTOGRAM else 5)
    assert found(sample, labels(metric)) == before + 1


def test_a_shared_gauge_of_a_function(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function runs in its own process only: the others see what it told when it was last written down."""
    ages = [5.0]
    metrics = of_worker(folder, 1)
    metrics.gauge(catalogue.MODEL_AGE, mix="m").set_function(lambda: ages[0])
    found = merged(folder, monkeypatch).registry.get_sample_value
    for ages[0] in (6.0, 7.0):
        metrics.write_down(catalogue.MODEL_AGE)
        assert found("mixer_model_age_seconds", {"mix": "m"}) == ages[0]


def test_merged_metrics_exist_from_the_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor names all metrics, also before a worker has counted any; its own are beside the workers'."""
    of_worker(folder, 1)
    served = merged(folder, monkeypatch)
    text = generate_latest(served.registry).decode()
    for metric in METRICS:
        assert text.count(f"# TYPE {metric.name} {metric.kind}\n") == 1
    assert served.registry.get_sample_value("mixer_worker_restarts_total", {"reason": "exited"}) == 1


def test_a_shared_name_that_is_over_is_not_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared series cannot be dropped: a model that ranks no more in any worker is set to 0, and left out."""
    told = labels(catalogue.MODEL_INFO)
    gauges = []
    for number in (1, 2):
        gauges.append(of_worker(folder, number).gauge(catalogue.MODEL_INFO, **told))
        gauges[-1].set(1)
    found = merged(folder, monkeypatch).registry.get_sample_value
    for gauge, expected in zip(gauges, (1, None), strict=True):
        gauge.set(0)
        assert found("mixer_model_info", told) == expected
