"""Blocking engines asked from the event loop: a bounded pool that keeps time and context."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from backends.base import BackendTimeout, BackendUnreachable

Answer = TypeVar("Answer")


class Threads:
    """At most so many blocking calls at once; the rest wait in line and leave it when their time is up."""

    def __init__(self, count: int, name: str) -> None:
        """Threads start as they are needed."""
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[[], Answer], timeout_s: float) -> Answer:
        """Do the work in a thread that sees this task's context variables.

        A thread cannot be stopped from outside: work that may be long has to watch its own clock.
        Raises: BackendTimeout; BackendUnreachable after `close`.
        """
        try:
            waiting = self._pool.submit(contextvars.copy_context().run, work)
        except RuntimeError as error:
            raise BackendUnreachable("the backend is closed") from error
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(waiting)
        except TimeoutError as error:
            raise BackendTimeout(f"no answer within {timeout_s:g} s") from error

    async def close(self) -> None:
        """Take no more work and wait for what has begun or waits in line."""
        await asyncio.to_thread(self._pool.shutdown)
