"""Rows, and values of each feature that were missing or out of range: added up as plain sums, told when read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mixer import catalogue
from mixer.metrics import Metrics
from mixer.values import Features


class FeatureCounts:
    """One mix's features."""

    def __init__(self, mix: str, metrics: Metrics, features: Sequence[str]) -> None:
        """All counts exist from the start. Takes the features in their order."""
        counter = metrics.counter
        self._incs: list[Callable[[float], None]] = [
            counter(catalogue.FEATURE_ROWS, mix=mix).inc,
            *(counter(catalogue.FEATURE_MISSING, mix=mix, feature=name).inc for name in features),
            *(counter(catalogue.FEATURE_OUT_OF_RANGE, mix=mix, feature=name).inc for name in features),
        ]
        self._sums = np.zeros(len(self._incs), np.int64)
        self._missing, self._outside = np.split(self._sums[1:], 2)
        self._shown = self._sums.copy()
        metrics.before_reading(self._settle)

    def count(self, features: Features) -> None:
        """One answer's."""
        self._sums[0] += len(features.matrix)
        self._missing += features.missing
        self._outside += features.out_of_range

    def _settle(self) -> None:
        """Add to the counters what was counted since."""
        now, before = self._sums.copy(), self._shown
        self._shown = now
        for place in np.flatnonzero(now - before).tolist():
            self._incs[place](int(now[place] - before[place]))
