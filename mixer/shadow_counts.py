"""What is told of one shadow: how far its rankings are from those served, what it costs, what it left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from math import isfinite

from mixer import catalogue
from mixer.late_histogram import LateHistogram
from mixer.metrics import Metrics

WHOLE = ("all", "all")
"""The slice that every answer is in, and its value."""
_MEASURES = (
    catalogue.SHADOW_OVERLAP,
    catalogue.SHADOW_TAU,
    catalogue.SHADOW_CHURN,
    catalogue.SHADOW_SHIFT,
)


@dataclass(frozen=True, slots=True)
class Distance:
    """Between the ranking served and a shadow's; NaN where a measure has no meaning."""

    overlap: float
    """Rank-biased overlap of the two orders."""
    tau: float
    """Kendall's tau-b of the two scores."""
    churn: float
    """Share of the shadow's first page that is not on the page served."""
    shift: float
    """Of the scores' mean, in standard deviations of those served."""


class ShadowCounts:
    """The metrics of one shadow of one mix, bound as they are needed."""

    def __init__(self, metrics: Metrics, mix: str, shadow: str) -> None:
        """Takes the names of the mix and of the shadow's model in the settings."""
        self._metrics = metrics
        self.labels = {"mix": mix, "shadow": shadow}
        self._active = metrics.gauge(catalogue.SHADOW_ACTIVE, **self.labels)
        self._cpu = metrics.counter(catalogue.SHADOW_CPU_SECONDS, **self.labels)
        self._bound: dict[tuple[str, str], list[LateHistogram]] = {}

    def active(self, is_active: bool) -> None:
        """Whether it scores."""
        self._active.set(is_active)

    def spent(self, seconds: float) -> None:
        """CPU time."""
        self._cpu.inc(seconds)

    def dropped(self, reason: str) -> None:
        """An answer that was drawn and not compared."""
        self._metrics.counter(catalogue.SHADOW_DROPPED, **self.labels, reason=reason).inc()

    def compared(self, distance: Distance, slices: Iterable[tuple[str, str]]) -> None:
        """An answer that was compared, and the slices it is in."""
        for place in (WHOLE, *slices):
            if place not in self._bound:
                self._bound[place] = self._bind(*place)
            for histogram, value in zip(self._bound[place], astuple(distance), strict=True):
                if isfinite(value):
                    histogram.observe(value)

    def _bind(self, name: str, value: str) -> list[LateHistogram]:
        labels = {**self.labels, "slice": name, "value": value}
        return [self._metrics.histogram(measure, **labels) for measure in _MEASURES]
