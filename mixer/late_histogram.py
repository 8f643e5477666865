"""A histogram that sorts what it observed into its buckets when it is read: on the way of a request, it only notes."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from time import time

import numpy as np
from prometheus_client import Histogram
from prometheus_client.samples import Exemplar

_MOST_NOTED = 4096


class LateHistogram(Histogram):
    """As its base, but what was observed is told only after `settle`."""

    def _metric_init(self) -> None:
        super()._metric_init()
        self._noted: deque[float] = deque()
        self._exemplars: dict[int, tuple[Mapping[str, str], float, float]] = {}
        self._settling = threading.Lock()

    def observe(self, amount: float, exemplar: Mapping[str, str] | None = None) -> None:
        """Note the amount; of those that fall into one bucket the last exemplar is told."""
        self._noted.append(amount)
        if exemplar:
            self._exemplars[bisect_left(self._upper_bounds, amount)] = exemplar, amount, time()
        if len(self._noted) >= _MOST_NOTED:
            self.settle()

    def settle(self) -> None:
        """Sort in what was noted. Safe on any thread: each amount is counted once."""
        if not self._noted:
            return
        with self._settling:
            amounts = np.array([self._noted.popleft() for _ in range(len(self._noted))])
        self._sum.inc(float(amounts.sum()))
        counts = np.bincount(np.searchsorted(self._upper_bounds, amounts), minlength=len(self._buckets))
        for number, (bucket, count) in enumerate(zip(self._buckets, counts.tolist(), strict=False)):
            if count:  # a NaN is in none
                bucket.inc(count)
            if exemplar := self._exemplars.pop(number, None):
                bucket.set_exemplar(Exemplar(dict(exemplar[0]), *exemplar[1:]))
