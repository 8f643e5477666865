"""Metrics of the declared slices of one mix: how long answers take, and what they lack."""

from __future__ import annotations

from collections.abc import Sequence

from mixer import catalogue
from mixer.metrics import Metrics
from mixer.slices import Slice, Slices
from mixer.values import Answer


class SliceCounts:
    """Counts answers by slice; every label is bound once."""

    def __init__(
        self, mix: str, metrics: Metrics, declared: Sequence[Slice], backends: Sequence[str]
    ) -> None:
        """Takes the mix's slices and backends."""
        self._slices = Slices(declared, backends)
        self.values = self._slices.values
        """All values that each slice can have."""
        labels = {
            (name, value): {"mix": mix, "slice": name, "value": value}
            for name, values in self._slices.values.items()
            for value in values
        }
        self._seconds = {
            key: metrics.histogram(catalogue.SLICE_SECONDS, **each) for key, each in labels.items()
        }
        self._degraded = {
            key: metrics.counter(catalogue.SLICE_DEGRADED, **each) for key, each in labels.items()
        }
        self._fallbacks = {
            key: metrics.counter(catalogue.SLICE_FALLBACKS, **each) for key, each in labels.items()
        }

    def count(self, answer: Answer, elapsed_s: float) -> dict[str, str]:
        """Count one answer; returns the slices that it is in."""
        found = self._slices.of_answer(answer)
        for key in found.items():
            self._seconds[key].observe(elapsed_s)
            if answer.degraded_reasons:
                self._degraded[key].inc()
            if answer.scores.fallback_reason:
                self._fallbacks[key].inc()
        return found
