"""Plan to replies: all backends are asked at once, and how each one ended is a value."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from time import perf_counter
from typing import Any

from backends.base import Backend, Hits, Punctual
from mixer.errors import AllBackendsFailed, InvalidRequest, Violation
from mixer.failures import failure_of
from mixer.values import Call, Outcome, Plan, Reply

Ask = Callable[[Backend, Call], Coroutine[Any, Any, Reply]]


class FanOut:
    """The stage: the first of the two that wait."""

    def __init__(self, backends: Mapping[str, Backend], ask: Ask) -> None:
        """`ask` puts one call to one backend; it never raises but for cancellation."""
        self._backends = backends
        self._ask = ask

    async def __call__(self, plan: Plan) -> tuple[Reply, ...]:
        """Replies in the order of the plan's calls, whatever the order of arrival.

        Raises: AllBackendsFailed; InvalidRequest where every backend refused the request for good.
        """
        asked = [self._ask(self._backends[call.backend], call) for call in plan.calls]
        replies = tuple(await asyncio.gather(*asked))
        if not any(reply.outcome is Outcome.OK for reply in replies):
            raise _nothing_from(replies)
        return replies


async def ask(backend: Backend, call: Call) -> Reply:
    """Put one call to one backend: hits that make sense, or why there are none."""
    began_s = perf_counter()
    try:
        hits = await _hits(backend, call)
        fault = hits.fault()
    except BaseException as error:
        failure = failure_of(error, call.timeout_s, "backend", call.backend)
        return Reply(
            call.backend,
            failure.outcome,
            perf_counter() - began_s,
            detail=failure.detail,
            unreachable=failure.unreachable,
        )
    elapsed_s = perf_counter() - began_s
    if fault:
        return Reply(call.backend, Outcome.ERROR, elapsed_s, detail=f"garbage: {fault}")
    return Reply(call.backend, Outcome.OK, elapsed_s, hits)


def _hits(backend: Backend, call: Call) -> Awaitable[Hits]:
    asked = backend.retrieve(call.query, call.timeout_s)
    return asked if isinstance(backend, Punctual) else _in_time(asked, call.timeout_s)


async def _in_time(asked: Awaitable[Hits], timeout_s: float) -> Hits:
    async with asyncio.timeout(timeout_s):
        return await asked


def unless_skipped(ask: Ask) -> Ask:
    """Puts the calls that the plan does not leave out."""

    async def put(backend: Backend, call: Call) -> Reply:
        if call.skipped:
            return Reply(call.backend, Outcome.SKIPPED, 0.0, detail=call.skipped, attempts=0)
        return await ask(backend, call)

    return put


def _nothing_from(replies: Sequence[Reply]) -> AllBackendsFailed | InvalidRequest:
    if all(reply.outcome is Outcome.REFUSED for reply in replies):
        return InvalidRequest([Violation("filters", f"refused by {r.backend}: {r.detail}") for r in replies])
    causes = "; ".join(f"{r.backend}: {r.detail}" for r in replies)
    return AllBackendsFailed(f"no backend answered: {causes}")
