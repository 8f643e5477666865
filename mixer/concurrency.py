"""How many calls at once are well: a limit that follows latency.

After the Gradient2 limit of Netflix's concurrency-limits (E. Gunn and others, "Performance under load", Netflix
Technology Blog 2018), which needs no target: what an answer usually takes is learned, and the limit falls by the
ratio of that to what it takes now. It grows again by a few calls at a time while latency stays. Here the usual time is
learned over minutes instead of calls: a busy server makes hundreds of calls a second, and would soon take an overload
for the usual.
"""

from __future__ import annotations

from math import exp, sqrt

from mixer.guard_settings import AdaptiveSettings

_STEEPEST = 0.5
"""The limit falls no faster than to this share of itself within as many calls as it has."""
_FIRST_CALLS = 50
"""Of which the usual time is the plain mean."""
_LATELY_CALLS = 10
"""Over which the time now is: one slow answer is none."""
_RECOVERING, _RECOVERY = 2.0, 0.95
"""Where the usual time is so many times that of now, an overload is over: it is forgotten faster."""


class Gradient:
    """The limit, and the times that it was learned from."""

    def __init__(self, settings: AdaptiveSettings, most: int) -> None:
        """Between `settings.least` and `most`."""
        self._tolerance, self._memory_s = settings.tolerance, settings.usual_s
        self._least, self._most = min(settings.least, most), most
        self._limit = float(max(min(settings.initial, most), self._least))
        self._usual_s = self._lately_s = 0.0
        self._calls, self._at_s = 0, 0.0

    @property
    def limit(self) -> int:
        """Calls at once."""
        return int(self._limit)

    def took(self, elapsed_s: float, at_once: int, now_s: float) -> None:
        """A call ended now and took so long, begun when there were so many. `now_s` never falls."""
        self._learn(elapsed_s, now_s)
        if at_once < self._limit / 2:
            # Latency says nothing of a limit that is not used.
            return
        ratio = self._tolerance * self._usual_s / max(self._lately_s, 1e-9)
        # Room to grow: calls that may wait at this limit.
        wanted = self._limit * min(max(ratio, _STEEPEST), 1.0) + sqrt(self._limit)
        moved = self._limit + (wanted - self._limit) / self._limit
        self._limit = min(max(moved, float(self._least)), float(self._most))

    def _learn(self, elapsed_s: float, now_s: float) -> None:
        """Means of the first calls are plain, later ones exponential."""
        self._calls += 1
        self._lately_s += (elapsed_s - self._lately_s) / min(self._calls, _LATELY_CALLS)
        passed = 1 - exp((self._at_s - now_s) / self._memory_s)
        weight = 1 / self._calls if self._calls <= _FIRST_CALLS else passed
        self._usual_s += (elapsed_s - self._usual_s) * weight
        if self._usual_s > _RECOVERING * self._lately_s:
            self._usual_s *= _RECOVERY
        self._at_s = now_s
