"""A share of one processor for work that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

WINDOW_S = 10.0
PATIENCE = 3
"""Windows running in which the budget may run out before it is closed for good."""


class Budget:
    """CPU time by windows: one that is spent rests until the window ends, and a debt is carried into the next.

    Where it runs out in several windows running, it is closed: what spends it costs more than it was granted.
    """

    def __init__(self, share: float, clock: Callable[[], float] = monotonic) -> None:
        """`share` of a processor, from 0 to 1; `clock` in seconds."""
        self._granted_s = share * WINDOW_S
        self._clock = clock
        self._window = self._now()
        self._spent_s = 0.0
        self._over = False
        self._overruns = 0

    @property
    def is_closed(self) -> bool:
        """Nothing may be spent any more."""
        return self._overruns >= PATIENCE

    def allows(self) -> bool:
        """Whether there is something left now."""
        self._turn()
        return not self._over and not self.is_closed

    def spend(self, seconds: float) -> None:
        """Account for CPU time that was used."""
        self._turn()
        self._spent_s += seconds
        self._judge()

    def _now(self) -> int:
        return int(self._clock() // WINDOW_S)

    def _turn(self) -> None:
        """Begin the windows that came since the last look; more than the patience change nothing."""
        passed = self._now() - self._window
        self._window += passed
        for _ in range(min(passed, PATIENCE + 1)):
            self._begin()
        self._spent_s = max(self._spent_s - max(passed - PATIENCE - 1, 0) * self._granted_s, 0.0)

    def _begin(self) -> None:
        if not self._over and not self.is_closed:
            self._overruns = 0
        self._spent_s = max(self._spent_s - self._granted_s, 0.0)
        self._over = False
        self._judge()

    def _judge(self) -> None:
        if self._spent_s >= self._granted_s and not self._over:
            self._over = True
            self._overruns += 1
