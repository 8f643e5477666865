from __future__ import annotations

import asyncio
import logging

import pytest

from backends.base import BackendError, BackendGarbage, BackendRefused, BackendTimeout, BackendUnreachable
from mixer.failures import Failure, failure_of
from mixer.values import Outcome


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (TimeoutError(), Failure(Outcome.TIMEOUT, "no answer within 250 ms")),
        (BackendTimeout("late"), Failure(Outcome.TIMEOUT, "no answer within 250 ms")),
        (BackendRefused("no such field"), Failure(Outcome.REFUSED, "no such field")),
        (BackendUnreachable("down"), Failure(Outcome.ERROR, "down", unreachable=True)),
        (BackendGarbage("odd"), Failure(Outcome.ERROR, "odd")),
        (BackendError("password=hunter2 is wrong"), Failure(Outcome.ERROR, "password=*** is wrong")),
        (KeyError("a bug"), Failure(Outcome.ERROR, "crashed with KeyError")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_it_failed(error: Exception, failure: Failure) -> None:
    """Each kind of error has its outcome; secrets are masked, and a bug's own words are not told."""
    assert failure_of(error, 0.25, "backend", "a") == failure


def test_a_bug_is_loud(caplog: pytest.LogCaptureFixture) -> None:
    """The log names whose it is, with the traceback."""
    with caplog.at_level(logging.ERROR):
        failure_of(KeyError("a bug"), 0.25, "store", "clicks")
    (record,) = caplog.records
    assert (record.getMessage(), record.__dict__["store"]) == ("store crashed", "clicks")
    assert record.exc_info is not None


async def test_who_cancelled() -> None:
    """A call that cancels itself is a value; the caller's own cancellation goes on."""

    async def asker(started: asyncio.Event) -> Failure:
        started.set()
        try:
            await asyncio.sleep(60)
        except BaseException as error:
            return failure_of(error, 0.25, "backend", "a")
        raise AssertionError("it was cancelled")

    assert failure_of(asyncio.CancelledError(), 0.25, "backend", "a").outcome is Outcome.CANCELLED
    started = asyncio.Event()
    task = asyncio.create_task(asker(started))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_is_no_failure(error: type[BaseException]) -> None:
    """What ends the process goes on."""
    with pytest.raises(error):
        failure_of(error(), 0.25, "backend", "a")
