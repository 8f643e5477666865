"""A circuit breaker: a backend that mostly fails, or is mostly slow, is left alone for a while and then tried.

M. Nygard, "Release It!", 2007; states and rates as in resilience4j, the window in time: a burst of a busy server does
not outvote the seconds before it, and what a quiet one saw an hour ago is forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from time import monotonic

from backends.base import Backend
from mixer.fanout import Ask
from mixer.guard_settings import BreakerSettings
from mixer.values import Call, Outcome, Reply

_BUCKETS = 10
_FAIR = 0.5
"""Of the time that the mix gives: a timeout after less than that is the caller's haste, not the backend's fault."""


class State(StrEnum):
    """Whether the backend is asked."""

    CLOSED = "closed"
    """It is."""
    OPEN = "open"
    """It is not."""
    HALF_OPEN = "half_open"
    """A few calls try it."""


@dataclass(slots=True)
class Counts:
    """Calls that ended, and how many of them failed or were slow."""

    calls: int = 0
    failed: int = 0
    slow: int = 0

    def add(self, failed: bool, slow: bool) -> None:
        """One more."""
        self.calls += 1
        self.failed += failed
        self.slow += slow


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave for one call, and the stretch of the breaker's life in which it was given."""

    state: State
    stretch: int


class Breaker:
    """The state machine of one backend. Each permit is given back by `heard` or by `released`."""

    def __init__(
        self,
        settings: BreakerSettings,
        changed: Callable[[State, State, str], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Closed at first; `changed` hears of every change: before, after, and why. `clock` in seconds."""
        self._settings, self._changed, self._clock = settings, changed, clock
        self.state, self._stretch = State.CLOSED, 0
        self._window = _Window(settings.window_s)
        self._opened_s = 0.0
        self._out, self._tried = 0, Counts()

    @property
    def why(self) -> str:
        """Why a call gets no permit now."""
        if self.state is State.HALF_OPEN:
            return "circuit half open, other calls try it"
        left_s = max(self._opened_s + self._settings.wait_s - self._clock(), 0.0)
        return f"circuit open, tried again in {left_s:.1f} s"

    def permit(self) -> Permit | None:
        """Leave for a call now, or none."""
        if self.state is State.OPEN and self._clock() - self._opened_s >= self._settings.wait_s:
            self._out, self._tried = 0, Counts()
            self._become(State.HALF_OPEN, f"{self._settings.wait_s:g} s have passed")
        if self.state is State.OPEN:
            return None
        if self.state is State.HALF_OPEN:
            if self._out == self._settings.probes:
                return None
            self._out += 1
        return Permit(self.state, self._stretch)

    def heard(self, permit: Permit, failed: bool, elapsed_s: float) -> None:
        """A call ended so; one that began before the last change says nothing of what is now."""
        if permit.stretch != self._stretch:
            return
        slow = self._settings.slow_s is not None and elapsed_s >= self._settings.slow_s
        if self.state is State.HALF_OPEN:
            self._tried.add(failed, slow)
            if self._tried.calls == self._settings.probes:
                self._decide()
            return
        counts = self._window.add(self._clock(), failed, slow)
        if counts.calls >= self._settings.minimum_calls and (fault := self._fault(counts)):
            self._open(fault)

    def released(self, permit: Permit) -> None:
        """A call ended in a way that says nothing of the backend: another may try it."""
        if permit.stretch == self._stretch and self.state is State.HALF_OPEN:
            self._out -= 1

    def _decide(self) -> None:
        if fault := self._fault(self._tried):
            self._open(fault)
        else:
            self._window = _Window(self._settings.window_s)
            self._become(State.CLOSED, f"{self._tried.calls} calls tried it")

    def _fault(self, counts: Counts) -> str:
        """Which bound these counts are past; empty for none."""
        if counts.failed >= self._settings.failure_share * counts.calls:
            return f"{counts.failed} of {counts.calls} calls failed"
        if counts.slow >= self._settings.slow_share * counts.calls:
            return f"{counts.slow} of {counts.calls} calls took {self._settings.slow_s:g} s or more"
        return ""

    def _open(self, why: str) -> None:
        self._opened_s = self._clock()
        self._become(State.OPEN, why)

    def _become(self, state: State, why: str) -> None:
        before, self.state = self.state, state
        self._stretch += 1
        self._changed(before, state, why)


class _Window:
    """Counts of the last seconds, kept by tenths of the window."""

    def __init__(self, window_s: float) -> None:
        self._bucket_s = window_s / _BUCKETS
        self._buckets: deque[tuple[int, Counts]] = deque()
        self._total = Counts()

    def add(self, now_s: float, failed: bool, slow: bool) -> Counts:
        """One more call; returns all that are within the window."""
        slot = int(now_s // self._bucket_s)
        while self._buckets and self._buckets[0][0] <= slot - _BUCKETS:
            self._forget(self._buckets.popleft()[1])
        if not self._buckets or self._buckets[-1][0] != slot:
            self._buckets.append((slot, Counts()))
        for counts in (self._buckets[-1][1], self._total):
            counts.add(failed, slow)
        return self._total

    def _forget(self, gone: Counts) -> None:
        self._total.calls -= gone.calls
        self._total.failed -= gone.failed
        self._total.slow -= gone.slow


def breaking(breaker: Breaker, ask: Ask) -> Ask:
    """Asks while the breaker permits; what it does not permit is skipped, and says why.

    It stands outside of retries and hedges: what those mend is no failure of the backend, as callers got an answer.
    """

    async def guarded(backend: Backend, call: Call) -> Reply:
        permit = breaker.permit()
        if permit is None:
            said, state = breaker.why, breaker.state.value
            return Reply(call.backend, Outcome.SKIPPED, 0.0, detail=said, attempts=0, breaker=state)
        told = False
        try:
            reply = await ask(backend, call)
            told = _tells(call, reply)
        finally:
            if not told:
                breaker.released(permit)
        if told:
            breaker.heard(permit, reply.outcome is not Outcome.OK, reply.elapsed_s)
        return replace(reply, breaker=permit.state.value)

    return guarded


def _tells(call: Call, reply: Reply) -> bool:
    """Whether this says how the backend is: it answered, failed, or had a fair time and did not."""
    if reply.outcome is Outcome.TIMEOUT:
        return call.timeout_s >= _FAIR * call.most_s
    return reply.outcome in (Outcome.OK, Outcome.ERROR)
