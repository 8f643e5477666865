"""The catalogue's metrics as Prometheus objects, each made once in a registry of Mixer's own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, values
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from mixer.catalogue import METRICS, MODEL_INFO, MODEL_SCORER, Kind, Metric
from mixer.late_histogram import LateHistogram

disable_created_metrics()

_NAMES = {MODEL_INFO.name, MODEL_SCORER.name}
"""Gauges that say by their labels which it is, and are 1."""

T = TypeVar("T", Counter, Gauge, LateHistogram)


class Metrics:
    """One registry with every metric of the catalogue."""

    def __init__(self) -> None:
        """All metrics exist from the start, without samples until something happens."""
        self.registry = CollectorRegistry(auto_describe=True)
        self._settlers: list[Callable[[], None]] = []
        self._histograms: set[LateHistogram] = set()
        self._settling = threading.Lock()
        self.registry.register(_First(self.settle))
        self._made = {metric.name: self._make(metric) for metric in METRICS}

    def counter(self, metric: Metric, **labels: str) -> Counter:
        """A counter, bound to these labels."""
        return self._bound(metric, Counter, labels)

    def by_outcome(self, metric: Metric, outcomes: Iterable[str], **labels: str) -> dict[str, Counter]:
        """A counter for each of these outcomes, from the start: the first one is a rise."""
        return {outcome: self.counter(metric, outcome=outcome, **labels) for outcome in outcomes}

    def gauge(self, metric: Metric, **labels: str) -> Gauge:
        """A gauge, bound to these labels."""
        return self._bound(metric, Gauge, labels)

    def histogram(self, metric: Metric, **labels: str) -> LateHistogram:
        """A histogram, bound to these labels."""
        histogram = self._bound(metric, LateHistogram, labels)
        self._histograms.add(histogram)
        return histogram

    def before_reading(self, settle: Callable[[], None]) -> None:
        """Call this before the metrics are read: what is counted elsewhere, at less cost, is added to them then."""
        self._settlers.append(settle)

    def settle(self) -> None:
        """Add what is counted elsewhere; of shared metrics, which others read, as often as it shall be seen."""
        with self._settling:
            for settle in list(self._settlers):
                settle()
            for histogram in list(self._histograms):
                histogram.settle()

    def forget(self, metric: Metric, **labels: str) -> None:
        """Tell no more of these labels; what is shared stays in its file."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            self._made[metric.name].remove(*(labels[name] for name in metric.labels))

    def write_down(self, metric: Metric) -> None:
        """Keep what a gauge's function tells now; of shared metrics only what is kept is seen from outside."""
        for family in self._made[metric.name].collect():
            for sample in family.samples:
                self.gauge(metric, **sample.labels).set(sample.value)

    def _make(self, metric: Metric) -> Counter | Gauge | LateHistogram:
        if metric.kind is Kind.HISTOGRAM:
            return LateHistogram(
                metric.name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets
            )
        if metric.kind is Kind.COUNTER:
            return Counter(metric.name, metric.help, metric.labels, registry=self.registry)
        return Gauge(
            metric.name, metric.help, metric.labels, registry=self.registry, multiprocess_mode=metric.merged
        )

    def _bound(self, metric: Metric, kind: type[T], labels: Mapping[str, str]) -> T:
        made = self._made[metric.name]
        if not isinstance(made, kind):
            raise TypeError(f"{metric.name} is a {metric.kind}")
        return made.labels(**labels) if labels else made


class _First(Collector):
    """Has no metrics of its own: it is asked before all others."""

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle

    def collect(self) -> Iterable[Family]:
        self._settle()
        return ()


def share(folder: Path, worker: int) -> None:
    """Keep the metrics that this process makes from now on in files of a folder, where `Merged` finds them.

    The files are named after the worker, not the process: the next one of that number counts on from them.
    Exemplars are not kept.
    """
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: worker)


class Merged(Collector):
    """The shared metrics of all workers as one, beside the supervisor's own."""

    def __init__(self, own: Metrics, folder: Path) -> None:
        """`own` also names the metrics that no worker has counted yet."""
        self._own, self._folder = own.registry, folder
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterable[Family]:
        """Every metric of the catalogue."""
        shared = {family.name: family for family in MultiProcessCollector(None, str(self._folder)).collect()}
        for family in self._own.collect():
            found = shared.get(family.name, family)
            if family.name in _NAMES:
                # A shared series cannot be dropped: a model that ranks no more is told by 0.
                found.samples = [sample for sample in found.samples if sample.value]
            yield found

    def forget(self, worker: int) -> None:
        """This worker ended: its gauges count no more, its counters stay."""
        mark_process_dead(worker, str(self._folder))
