"""A call that takes longer than most is put once more beside it; the first good answer wins, the other is cancelled.

J. Dean and L. A. Barroso, "The tail at scale", Communications of the ACM 56(2), 2013. Here, since gRPC's Python
ignores `hedgingPolicy`, and since an engine in this process may be asked twice as well.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from time import perf_counter

from backends.base import Backend
from mixer.fanout import Ask
from mixer.guard_settings import HedgeSettings
from mixer.token_bucket import Tokens
from mixer.values import Call, Outcome, Reply

_FINAL = (Outcome.OK, Outcome.REFUSED)
"""Who refuses a request for good refuses it the second time too."""
_TIMED = (Outcome.OK, Outcome.TIMEOUT)
Leg = asyncio.Task[Reply]


class Latencies:
    """The latest latencies, by age and by size."""

    def __init__(self, most: int) -> None:
        """Keeps `most` of them."""
        self._most = most
        self._by_age: deque[float] = deque()
        self._by_size: list[float] = []

    def __len__(self) -> int:
        return len(self._by_age)

    def add(self, seconds: float) -> None:
        """One more; the oldest is forgotten where there are too many."""
        if len(self._by_age) == self._most:
            del self._by_size[bisect_left(self._by_size, self._by_age.popleft())]
        self._by_age.append(seconds)
        insort(self._by_size, seconds)

    def quantile(self, share: float) -> float:
        """The least of them that `share` of them do not exceed, or nearly; there must be one."""
        return self._by_size[min(int(share * len(self._by_size)), len(self._by_size) - 1)]


class Hedge:
    """Asks, and asks once more where the answer takes long."""

    def __init__(
        self,
        settings: HedgeSettings,
        ask: Ask,
        hedged: Callable[[str, Outcome], None],
        exhausted: Callable[[], None],
    ) -> None:
        """`hedged` hears which call won (first, second, neither) and how the other one ended; `exhausted` that
        there was no budget for a second one."""
        self._settings, self._ask = settings, ask
        self._hedged, self._exhausted = hedged, exhausted
        self._tokens = Tokens(settings.share, settings.burst)
        self._latencies = Latencies(settings.window_calls)

    async def __call__(self, backend: Backend, call: Call) -> Reply:
        """See `Ask`; both calls end within the time of the one."""
        self._tokens.earn()
        delay_s = self._delay_s()
        if delay_s is None or delay_s >= call.timeout_s:
            return self._timed(await self._ask(backend, call))
        began_s = perf_counter()
        first = asyncio.create_task(self._ask(backend, call))
        try:
            await asyncio.wait({first}, timeout=delay_s)
            if first.done() or not self._may():
                return self._timed(await first)
            left_s = began_s + call.timeout_s - perf_counter()
            second = asyncio.create_task(self._ask(backend, replace(call, timeout_s=left_s)))
            reply = await self._race(first, second)
        finally:
            await _end((first,))
        elapsed_s = perf_counter() - began_s
        if first.cancelled():
            # It took at least so long: left out, the quantile would fall with every call that is put once more.
            self._latencies.add(elapsed_s)
        return replace(reply, attempts=2, hedged=True, elapsed_s=elapsed_s)

    async def _race(self, first: Leg, second: Leg) -> Reply:
        """The first good answer, or that of the first call where there is none; the other call is over then."""
        try:
            won = await _first_good(first, second)
        finally:
            await _end((first, second))
        lost = first if won is second else second
        for leg in (first, second):
            if not leg.cancelled():
                self._timed(leg.result())
        good = won.result().outcome in _FINAL
        named = ("second" if won is second else "first") if good else "neither"
        self._hedged(named, Outcome.CANCELLED if lost.cancelled() else lost.result().outcome)
        return won.result()

    def _delay_s(self) -> float | None:
        """How long to wait for the first call; None where that is not known yet."""
        if len(self._latencies) < self._settings.minimum_calls:
            return None
        usual_s = self._latencies.quantile(self._settings.quantile)
        return min(max(usual_s, self._settings.least_delay_s), self._settings.most_delay_s)

    def _may(self) -> bool:
        if self._tokens.spend():
            return True
        self._exhausted()
        return False

    def _timed(self, reply: Reply) -> Reply:
        if reply.outcome in _TIMED:
            self._latencies.add(reply.elapsed_s)
        return reply


async def _first_good(first: Leg, second: Leg) -> Leg:
    waiting = {first, second}
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for leg in (first, second):
            if leg in done and leg.result().outcome in _FINAL:
                return leg
    return first


async def _end(legs: Iterable[Leg]) -> None:
    """Cancel what still runs, and wait until it is over: nothing is left behind."""
    for leg in legs:
        leg.cancel()
    await asyncio.gather(*legs, return_exceptions=True)
