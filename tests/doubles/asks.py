"""Calls to backends without backends: an `ask` that does what a test says, and the call that is put to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from backends.base import Backend, Query
from mixer.values import Call, Outcome, Reply

NOBODY = cast(Backend, None)
"""For an `ask` that asks none."""
CALL = Call("a", Query("csv", 10), 30.0, 30.0)
UNREACHABLE = Reply("a", Outcome.ERROR, 0.0, detail="no connection", unreachable=True)


class Clock:
    """Stands still until moved."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def said(outcome: Outcome = Outcome.OK, elapsed_s: float = 0.01) -> Reply:
    """A reply without hits."""
    return Reply("a", outcome, elapsed_s)


class Asked:
    """Gives the replies that it was made with, one after the other and the last again; None never replies.

    `held` are the calls that wait for their reply until `gate` opens.
    """

    def __init__(self, *replies: Reply | None, held: Sequence[int] = ()) -> None:
        self._replies, self._held = replies, held
        self.gate = asyncio.Event()
        self.calls: list[Call] = []
        self.cancelled = 0

    async def __call__(self, backend: Backend, call: Call) -> Reply:
        number = len(self.calls)
        self.calls.append(call)
        reply = self._replies[min(number, len(self._replies) - 1)]
        try:
            if reply is None:
                await asyncio.Event().wait()
            if number in self._held:
                await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        assert reply is not None
        return replace(reply, backend=call.backend)
