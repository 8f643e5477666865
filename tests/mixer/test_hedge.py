from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.guard_settings import HedgeSettings
from mixer.hedge import Hedge, Latencies
from mixer.values import Outcome
from tests.doubles.asks import CALL, NOBODY, UNREACHABLE, Asked, said
from tests.doubles.mixers import until

SOON = {"minimum_calls": 4, "window_calls": 20, "least_delay_s": 0.001, "share": 1.0}


class Told:
    """What it heard."""

    def __init__(self) -> None:
        self.hedged: list[tuple[str, Outcome]] = []
        self.exhausted = 0

    def won(self, leg: str, other: Outcome) -> None:
        self.hedged.append((leg, other))

    def spent(self) -> None:
        self.exhausted += 1


async def warm(asked: Asked, told: Told, **settings: Any) -> Hedge:
    """One that knows the backend as quick."""
    hedge = Hedge(HedgeSettings.model_validate({**SOON, **settings}), asked, told.won, told.spent)
    for _ in range(4):
        await hedge(NOBODY, CALL)
    return hedge


QUICK = [said(elapsed_s=0.001)] * 4


@pytest.fixture(autouse=True)
async def no_task_is_left() -> AsyncIterator[None]:
    """Whatever happens, every call that was begun is over when the reply is there."""
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60), st.integers(1, 20), st.floats(0.5, 0.99))
def test_quantiles_are_those_of_the_latest(seconds: list[float], most: int, share: float) -> None:
    """Of the last so many, as if they were sorted anew."""
    kept = Latencies(most)
    for one in seconds:
        kept.add(one)
    latest = sorted(seconds[-most:])
    assert len(kept) == len(latest)
    assert kept.quantile(share) == latest[min(int(share * len(latest)), len(latest) - 1)]


async def test_the_second_call_wins_where_the_first_hangs() -> None:
    """Its answer counts, the first call is cancelled and over."""
    asked, told = Asked(*QUICK, None, said()), Told()
    reply = await (await warm(asked, told))(NOBODY, CALL)
    assert (reply.outcome, reply.attempts, reply.hedged) == (Outcome.OK, 2, True)
    assert (told.hedged, asked.cancelled) == ([("second", Outcome.CANCELLED)], 1)
    assert asked.calls[-1].timeout_s < CALL.timeout_s


async def test_the_first_call_may_still_win() -> None:
    """The second one is cancelled then."""
    asked, told = Asked(*QUICK, said(), None, held=[4]), Told()
    hedge = await warm(asked, told)
    task = asyncio.create_task(hedge(NOBODY, CALL))
    await until(lambda: len(asked.calls) == 6)
    asked.gate.set()
    reply = await task
    assert (reply.outcome, reply.hedged) == (Outcome.OK, True)
    assert (told.hedged, asked.cancelled) == ([("first", Outcome.CANCELLED)], 1)


async def test_a_bad_answer_does_not_win() -> None:
    """The one that failed waits for the other; where both fail, the first one's failure stands."""
    asked, told = Asked(*QUICK, said(), UNREACHABLE, held=[4]), Told()
    task = asyncio.create_task((await warm(asked, told))(NOBODY, CALL))
    await until(lambda: len(asked.calls) == 6)
    asked.gate.set()
    assert (await task).outcome is Outcome.OK
    assert told.hedged == [("first", Outcome.ERROR)]
    asked, told = Asked(*QUICK, said(Outcome.TIMEOUT), UNREACHABLE, held=[4]), Told()
    task = asyncio.create_task((await warm(asked, told))(NOBODY, CALL))
    await until(lambda: len(asked.calls) == 6)
    asked.gate.set()
    assert (await task).outcome is Outcome.TIMEOUT
    assert told.hedged == [("neither", Outcome.ERROR)]


async def test_a_quick_call_is_put_once() -> None:
    """So is one that fails quickly: that is for the retry."""
    asked, told = Asked(*QUICK, said(), UNREACHABLE), Told()
    hedge = await warm(asked, told, least_delay_s=5.0, most_delay_s=5.0)
    for outcome in (Outcome.OK, Outcome.ERROR):
        reply = await hedge(NOBODY, CALL)
        assert (reply.outcome, reply.attempts, reply.hedged) == (outcome, 1, False)
    assert not told.hedged


async def test_nothing_is_put_twice_before_latencies_are_known() -> None:
    """Nor where the usual time is more than the call has."""
    told = Told()
    held = Asked(said(), held=[0])
    task = asyncio.create_task(
        Hedge(HedgeSettings.model_validate(SOON), held, told.won, told.spent)(NOBODY, CALL)
    )
    await asyncio.sleep(0.01)
    assert len(held.calls) == 1
    held.gate.set()
    await task
    slow = Asked(*[said(elapsed_s=40.0)] * 5)
    await (await warm(slow, told, most_delay_s=50.0))(NOBODY, CALL)
    assert (len(slow.calls), told.hedged) == (5, [])


async def test_no_more_than_the_share_is_put_twice() -> None:
    """However slow all become: 5 % of the calls, and the rest is counted."""
    asked, told = Asked(*QUICK, said(elapsed_s=0.001)), Told()
    hedge = await warm(asked, told, share=0.05)
    inner = asked.__call__

    async def slowly(backend: Any, call: Any) -> Any:
        await asyncio.sleep(0.004)
        return await inner(backend, call)

    hedge._ask = slowly
    for _ in range(100):
        await hedge(NOBODY, CALL)
    assert 0 < len(told.hedged) <= 0.05 * 104
    assert told.exhausted > 0


async def test_a_caller_who_goes_away_cancels_both() -> None:
    """Nothing is left behind."""
    asked, told = Asked(*QUICK, None, None), Told()
    task = asyncio.create_task((await warm(asked, told))(NOBODY, CALL))
    await until(lambda: len(asked.calls) == 6)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (asked.cancelled, told.hedged) == (2, [])


async def test_the_time_of_a_cancelled_call_is_remembered() -> None:
    """At least so long it took: a slow backend does not look quick because its slow calls are cut short."""
    asked, told = Asked(*QUICK, None, said()), Told()
    hedge = await warm(asked, told, least_delay_s=0.02, most_delay_s=0.02)
    await hedge(NOBODY, CALL)
    assert len(hedge._latencies) == 6
    assert hedge._latencies.quantile(0.999) >= 0.02
