"""How asking a backend or a store failed, as a value: an outcome and a sentence, the same words for both."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

from backends.base import BackendError, BackendRefused, BackendTimeout, BackendUnreachable
from mixer.mask import masked
from mixer.values import Outcome

log = logging.getLogger(__name__)


class Failure(NamedTuple):
    """Why there is no answer."""

    outcome: Outcome
    detail: str
    unreachable: bool = False
    """There was no connection, or the other side was down: another try may find it up."""


def failure_of(error: BaseException, timeout_s: float, kind: str, name: str) -> Failure:
    """What was raised by a `kind` (backend, store) of this name, of whoever awaited it within an `except` of its own.

    Raises: the error itself where it is the caller who was cancelled, or the process that ends.
    """
    if isinstance(error, TimeoutError | BackendTimeout):
        return Failure(Outcome.TIMEOUT, f"no answer within {timeout_s * 1000:.0f} ms")
    if isinstance(error, BackendRefused):
        return Failure(Outcome.REFUSED, masked(str(error)))
    if isinstance(error, BackendError):
        return Failure(Outcome.ERROR, masked(str(error)), isinstance(error, BackendUnreachable))
    if isinstance(error, asyncio.CancelledError):
        return _cancelled(error)
    if not isinstance(error, Exception):
        raise error
    # A plugged-in engine's bug costs its own answer only, and is loud.
    log.error("%s crashed", kind, exc_info=error, extra={kind: name})
    return Failure(Outcome.ERROR, f"crashed with {type(error).__name__}")


def _cancelled(error: asyncio.CancelledError) -> Failure:
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    return Failure(Outcome.CANCELLED, "it cancelled the call by itself")
