"""A backend that could not be reached is tried again, within the call's time and a budget.

Pauses are drawn evenly from nothing to a bound that doubles: M. Brooker, "Exponential backoff and jitter", AWS
Architecture Blog 2015. Searches change nothing: asking twice does no harm but load, which the budget bounds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from backends.base import Backend
from mixer.fanout import Ask
from mixer.guard_settings import RetrySettings
from mixer.token_bucket import Tokens
from mixer.values import Call, Outcome, Reply


class Retry:
    """Asks, and asks again where there was no connection."""

    def __init__(
        self,
        settings: RetrySettings,
        ask: Ask,
        retried: Callable[[Outcome], None],
        exhausted: Callable[[], None],
        drawn: Callable[[], float] = random.random,
    ) -> None:
        """`retried` hears how each new try ended, `exhausted` that there was no budget for one."""
        self._settings, self._ask, self._drawn = settings, ask, drawn
        self._retried, self._exhausted = retried, exhausted
        self._tokens = Tokens(settings.share, settings.burst, held=settings.burst)

    async def __call__(self, backend: Backend, call: Call) -> Reply:
        """See `Ask`; the reply is that of the last try, with the time of all."""
        self._tokens.earn()
        began_s = perf_counter()
        reply = await self._ask(backend, call)
        attempts, hedged = reply.attempts, reply.hedged
        for number in range(self._settings.attempts - 1):
            pause_s = self._drawn() * self._settings.pause_s * 2**number
            until_s = began_s + call.timeout_s - pause_s
            if not reply.unreachable or perf_counter() >= until_s or not self._may():
                break
            await asyncio.sleep(pause_s)
            left_s = began_s + call.timeout_s - perf_counter()
            reply = await self._ask(backend, replace(call, timeout_s=left_s))
            self._retried(reply.outcome)
            attempts, hedged = attempts + reply.attempts, hedged or reply.hedged
        return replace(reply, attempts=attempts, hedged=hedged, elapsed_s=perf_counter() - began_s)

    def _may(self) -> bool:
        if self._tokens.spend():
            return True
        self._exhausted()
        return False
