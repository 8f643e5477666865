from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mixer.guard_settings import RetrySettings
from mixer.retry import Retry
from mixer.values import Outcome, Reply
from tests.doubles.asks import CALL, NOBODY, UNREACHABLE, Asked, said


class Told:
    """What it heard."""

    def __init__(self) -> None:
        self.retried: list[Outcome] = []
        self.exhausted = 0

    def spent(self) -> None:
        self.exhausted += 1


def retry(asked: Asked, told: Told | None = None, **settings: Any) -> Retry:
    told = told or Told()
    declared = RetrySettings.model_validate({"pause_s": 0.001, **settings})
    return Retry(declared, asked, told.retried.append, told.spent)


async def test_a_reset_is_mended() -> None:
    """Where there was no connection, it is asked once more; the reply says how often it was."""
    asked, told = Asked(UNREACHABLE, said()), Told()
    reply = await retry(asked, told)(NOBODY, CALL)
    assert (reply.outcome, reply.attempts, told.retried) == (Outcome.OK, 2, [Outcome.OK])


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.TIMEOUT, Outcome.ERROR, Outcome.REFUSED])
async def test_what_another_try_does_not_mend_is_left(outcome: Outcome) -> None:
    """Answers, late ones, nonsense and refusals are as they are."""
    asked = Asked(said(outcome))
    reply = await retry(asked)(NOBODY, CALL)
    assert (reply.outcome, reply.attempts, len(asked.calls)) == (outcome, 1, 1)


async def test_it_gives_up_after_so_many_attempts() -> None:
    """The last failure stands."""
    asked, told = Asked(UNREACHABLE), Told()
    reply = await retry(asked, told, attempts=4)(NOBODY, CALL)
    assert (reply.detail, reply.attempts) == ("no connection", 4)
    assert told.retried == [Outcome.ERROR] * 3


async def test_all_tries_share_the_time() -> None:
    """A new try has what is left; where nothing is, there is none."""
    asked = Asked(UNREACHABLE, said())
    await retry(asked)(NOBODY, CALL)
    first, second = asked.calls
    assert second.timeout_s < first.timeout_s == CALL.timeout_s
    late = Asked(UNREACHABLE, said())
    declared = RetrySettings(pause_s=60.0)
    reply = await Retry(declared, late, lambda _: None, lambda: None, drawn=lambda: 1.0)(NOBODY, CALL)
    assert (reply.attempts, len(late.calls)) == (1, 1)


async def test_a_dead_backend_spends_no_more_than_the_budget() -> None:
    """The burst, and a share of the calls: what fails for all is not asked twice by all; that is counted."""
    asked, told = Asked(UNREACHABLE), Told()
    guarded = retry(asked, told, share=0.1, burst=3)
    for _ in range(100):
        await guarded(NOBODY, CALL)
    assert len(asked.calls) == 100 + len(told.retried)
    assert 3 <= len(told.retried) <= 3 + 10
    assert told.exhausted == 100 - len(told.retried)


async def test_the_inner_attempts_add_up() -> None:
    """What was hedged below counts as often as it was asked."""
    hedged: Reply = replace(UNREACHABLE, attempts=2, hedged=True)
    reply = await retry(Asked(hedged, said()))(NOBODY, CALL)
    assert (reply.attempts, reply.hedged) == (3, True)
