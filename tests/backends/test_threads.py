"""Blocking work beside the event loop."""

import asyncio
import contextvars
import threading

import pytest

from backends.base import BackendTimeout, BackendUnreachable
from backends.threads import Threads

here: contextvars.ContextVar[str] = contextvars.ContextVar("here", default="nowhere")


async def test_context_is_kept() -> None:
    """Work sees the context variables of the task that asked, the current span among them."""
    threads = Threads(1, "test")
    here.set("task")
    assert await threads.run(here.get, timeout_s=10.0) == "task"
    await threads.close()


async def test_waiting_in_line_is_left_in_time() -> None:
    """Work that is still in line when its time is up is never begun."""
    threads, release, begun = Threads(1, "test"), threading.Event(), threading.Event()
    blocker = asyncio.create_task(threads.run(lambda: release.wait(30.0), timeout_s=30.0))
    await asyncio.sleep(0.01)
    with pytest.raises(BackendTimeout):
        await threads.run(begun.set, timeout_s=0.02)
    release.set()
    assert await blocker
    await threads.close()
    assert not begun.is_set()


async def test_errors_come_through() -> None:
    """What the work raises is raised to who asked."""
    threads = Threads(1, "test")
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0, timeout_s=10.0)
    await threads.close()


async def test_closed() -> None:
    """After closing there is no more work."""
    threads = Threads(1, "test")
    await threads.close()
    with pytest.raises(BackendUnreachable):
        await threads.run(here.get, timeout_s=10.0)
