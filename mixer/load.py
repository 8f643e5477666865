"""How much is asked of this process, and how much work a search may take for it.

The load is the share of the concurrency limit in use, smoothed over time. Past declared loads one thing after the
other is left out, those first that an answer does not need; each comes back once the load is well below its step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from math import exp
from time import monotonic
from typing import Any

from mixer import catalogue
from mixer.concurrency import Gradient
from mixer.guard_settings import AdaptiveSettings
from mixer.metrics import Metrics
from mixer.values import Effort

log = logging.getLogger(__name__)


class Load:
    """Calls at once against their limit, and the effort that is left to each search."""

    def __init__(
        self,
        settings: AdaptiveSettings,
        most: int,
        metrics: Metrics,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Idle at first; `most` is the ceiling of the limit, `clock` in seconds."""
        self._load_s, self._release, self._clock = settings.load_s, settings.release, clock
        self._gradient = Gradient(settings, most)
        self._at = [load for _, load in settings.drop if load is not None]
        self.efforts = _efforts(settings)
        """By step: the first is the whole."""
        self._step = 0
        self._calls, self._smoothed, self._at_s = 0, 0.0, clock()
        limit, load, quality = (
            metrics.gauge(metric).set
            for metric in (catalogue.CONCURRENCY_LIMIT, catalogue.LOAD, catalogue.QUALITY)
        )

        def tell() -> None:
            quality(self.effort.quality)
            load(self._smoothed)
            limit(self.limit)

        metrics.before_reading(tell)

    @property
    def limit(self) -> int:
        """Calls at once, beyond which they are turned away."""
        return self._gradient.limit

    @property
    def effort(self) -> Effort:
        """What a search may take now."""
        self._settle()
        before = self._step
        while self._step < len(self._at) and self._smoothed >= self._at[self._step]:
            self._step += 1
        while self._step and self._smoothed < self._at[self._step - 1] - self._release:
            self._step -= 1
        if self._step != before:
            self._tell(before)
        return self.efforts[self._step]

    def now(self, calls: int) -> None:
        """So many calls are in work from now on."""
        self._settle()
        self._calls = calls

    def took(self, elapsed_s: float, at_once: int) -> None:
        """A search took so long, begun when so many calls were in work."""
        self._settle()
        self._gradient.took(elapsed_s, at_once, self._at_s)

    def _settle(self) -> None:
        """Bring the smoothed load to now: since the last look it was one and the same."""
        now_s = self._clock()
        kept = exp((self._at_s - now_s) / self._load_s)
        self._smoothed = kept * self._smoothed + (1 - kept) * min(self._calls / self.limit, 1.0)
        self._at_s = now_s

    def _tell(self, before: int) -> None:
        told = {"before": self.efforts[before].quality, "after": self.efforts[self._step].quality}
        level = logging.WARNING if self._step > before else logging.INFO
        log.log(
            level, "quality changed", extra={**told, "load": round(self._smoothed, 3), "limit": self.limit}
        )


def _efforts(settings: AdaptiveSettings) -> list[Effort]:
    """The whole, and what is left after each step."""
    left_out: dict[str, dict[str, Any]] = {
        "beside": {"beside": False},
        "optional_backends": {"optional": False},
        "candidates": {"limit_share": settings.limit_share},
        "model": {"model": False},
    }
    used = [left_out[name] for name, load in settings.drop if load is not None]
    efforts = [Effort()]
    for step, less in enumerate(used, 1):
        quality = round(1 - step / (len(used) + 1), 3)
        efforts.append(replace(efforts[-1], step=step, quality=quality, **less))
    return efforts
