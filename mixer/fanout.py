"""Plan to replies: all backends are asked at once, and how each one ended is a value."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from time import perf_counter
from typing import Any

from backends.base import (
    Backend,
    BackendError,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    Hits,
    Punctual,
)
from mixer.errors import AllBackendsFailed, InvalidRequest, Violation
from mixer.mask import masked
from mixer.values import Call, Outcome, Plan, Reply

log = logging.getLogger(__name__)

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
    hits: Hits | None = None
    outcome, detail, unreachable = Outcome.OK, "", False
    try:
        hits = await _hits(backend, call)
        detail = hits.fault() or ""
    except (TimeoutError, BackendTimeout):
        outcome, detail = Outcome.TIMEOUT, f"no answer within {call.timeout_s * 1000:.0f} ms"
    except BackendRefused as refusal:
        outcome, detail = Outcome.REFUSED, masked(str(refusal))
    except BackendError as error:
        outcome, detail = Outcome.ERROR, masked(str(error))
        unreachable = isinstance(error, BackendUnreachable)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        outcome, detail = Outcome.CANCELLED, "it cancelled the call by itself"
    except Exception as mistake:  # a plugged-in engine's bug costs its own answer only, and is loud
        log.exception("backend crashed", extra={"backend": call.backend})
        outcome, hits, detail = Outcome.ERROR, None, f"crashed with {type(mistake).__name__}"
    if outcome is Outcome.OK and detail:
        outcome, hits, detail = Outcome.ERROR, None, f"garbage: {detail}"
    return Reply(call.backend, outcome, perf_counter() - began_s, hits, detail, unreachable)


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
