"""What stands before the backends, one set a backend in each process, whatever mix asks it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from backends.base import Backend
from mixer import catalogue
from mixer.breaker import Breaker, State, breaking
from mixer.fanout import Ask
from mixer.guard_settings import GuardSettings
from mixer.hedge import Hedge
from mixer.metrics import Metrics
from mixer.retry import Retry
from mixer.values import Call, Outcome, Reply

log = logging.getLogger(__name__)


class Guards:
    """Breakers around retries around hedges. Each set has the state of its backend."""

    def __init__(self, declared: Mapping[str, GuardSettings], ask: Ask, metrics: Metrics) -> None:
        """`ask` puts one call to one backend."""
        self._ask = ask
        self._guarded = {name: _guarded(name, guard, ask, metrics) for name, guard in declared.items()}

    def ask(self, backends: Iterable[str]) -> Ask:
        """Asks any of these backends, through what stands before it."""
        guarded, plain = {name: self._guarded[name] for name in backends if name in self._guarded}, self._ask
        if not guarded:
            return plain

        async def routed(backend: Backend, call: Call) -> Reply:
            return await guarded.get(call.backend, plain)(backend, call)

        return routed


def _guarded(name: str, guard: GuardSettings, ask: Ask, metrics: Metrics) -> Ask:
    """The innermost first: a breaker judges what the others could not mend."""
    if guard.hedge:
        ask = Hedge(guard.hedge, ask, _hedged(name, metrics), _exhausted(name, "hedge", metrics))
    if guard.retry:
        ask = Retry(guard.retry, ask, _retried(name, metrics), _exhausted(name, "retry", metrics))
    if guard.breaker:
        ask = breaking(Breaker(guard.breaker, _changed(name, metrics)), ask)
    return ask


def _changed(name: str, metrics: Metrics) -> Callable[[State, State, str], None]:
    def gauge(state: State, value: float) -> None:
        metrics.gauge(catalogue.BREAKER_STATE, backend=name, state=state.value).set(value)

    changes = {
        state: metrics.counter(catalogue.BREAKER_CHANGES, backend=name, state=state.value).inc
        for state in State
    }
    for state in State:
        gauge(state, float(state is State.CLOSED))

    def changed(before: State, after: State, why: str) -> None:
        gauge(before, 0.0)
        gauge(after, 1.0)
        changes[after]()
        told = {"backend": name, "before": before.value, "after": after.value, "why": why}
        log.log(logging.WARNING if after is State.OPEN else logging.INFO, "breaker changed", extra=told)

    return changed


def _hedged(name: str, metrics: Metrics) -> Callable[[str, Outcome], None]:
    counters = {
        won: metrics.by_outcome(catalogue.HEDGES, Outcome, backend=name, won=won)
        for won in ("first", "second", "neither")
    }

    def hedged(won: str, other: Outcome) -> None:
        counters[won][other].inc()

    return hedged


def _retried(name: str, metrics: Metrics) -> Callable[[Outcome], None]:
    counters = metrics.by_outcome(catalogue.RETRIES, Outcome, backend=name)

    def retried(outcome: Outcome) -> None:
        counters[outcome].inc()

    return retried


def _exhausted(name: str, what: str, metrics: Metrics) -> Callable[[], None]:
    inc: Callable[[], None] = metrics.counter(catalogue.BUDGET_EXHAUSTED, backend=name, what=what).inc
    return inc
