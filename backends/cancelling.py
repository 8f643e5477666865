"""Whether it is we who are cancelled, or only what we wait for."""

from __future__ import annotations

import asyncio


def is_cancelling() -> bool:
    """Whether somebody cancels the task that runs here."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
