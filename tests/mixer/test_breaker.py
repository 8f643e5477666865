from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mixer.breaker import Breaker, Permit, State, breaking
from mixer.guard_settings import BreakerSettings
from mixer.values import Outcome, Reply
from tests.doubles.asks import CALL, NOBODY, Asked, Clock, said

FEW = {"minimum_calls": 4, "wait_s": 5.0, "probes": 2, "window_s": 10.0}
Changes = list[tuple[State, State, str]]


def made(**settings: Any) -> tuple[Breaker, Clock, Changes]:
    clock, changes = Clock(), Changes()

    def changed(before: State, after: State, why: str) -> None:
        changes.append((before, after, why))

    return Breaker(BreakerSettings.model_validate({**FEW, **settings}), changed, clock), clock, changes


def now(breaker: Breaker) -> State:
    """Its state, of which the last look tells nothing."""
    return breaker.state


def permitted(breaker: Breaker) -> Permit:
    permit = breaker.permit()
    assert permit
    return permit


def call(breaker: Breaker, failed: bool = False, elapsed_s: float = 0.0) -> None:
    breaker.heard(permitted(breaker), failed, elapsed_s)


def opened(**settings: Any) -> tuple[Breaker, Clock, Changes]:
    breaker, clock, changes = made(**settings)
    for _ in range(4):
        call(breaker, failed=True)
    assert now(breaker) is State.OPEN
    return breaker, clock, changes


def test_it_opens_at_the_share_of_failures() -> None:
    """At half of the calls, not below, and says how many it were."""
    breaker, _, changes = made()
    for failed in (False, False, False, True, True):
        call(breaker, failed)
    assert now(breaker) is State.CLOSED
    call(breaker, failed=True)
    assert changes == [(State.CLOSED, State.OPEN, "3 of 6 calls failed")]
    assert breaker.permit() is None
    assert breaker.why == "circuit open, tried again in 5.0 s"


def test_few_calls_judge_nothing() -> None:
    """Below the minimum it stays closed, whatever they were."""
    breaker, _, _ = made(minimum_calls=4)
    for _ in range(3):
        call(breaker, failed=True)
    assert now(breaker) is State.CLOSED


def test_it_opens_at_the_share_of_slow_calls() -> None:
    """A backend that answers, but late, is ill too; without a bound nothing is slow."""
    breaker, _, changes = made(slow_s=0.3, slow_share=0.75)
    for elapsed_s in (0.29, 0.3, 0.4, 0.5):
        call(breaker, elapsed_s=elapsed_s)
    assert changes == [(State.CLOSED, State.OPEN, "3 of 4 calls took 0.3 s or more")]
    patient, _, _ = made()
    for _ in range(10):
        call(patient, elapsed_s=99.0)
    assert patient.state is State.CLOSED


def test_what_was_long_ago_is_forgotten() -> None:
    """Failures leave with their part of the window."""
    breaker, clock, _ = made()
    for _ in range(3):
        call(breaker, failed=True)
    clock.now_s += 10.0
    for _ in range(4):
        call(breaker)
    assert now(breaker) is State.CLOSED
    clock.now_s += 5.0
    for _ in range(3):
        call(breaker, failed=True)
    assert now(breaker) is State.CLOSED
    call(breaker, failed=True)
    assert now(breaker) is State.OPEN


def test_after_the_wait_a_few_calls_try_it() -> None:
    """So many as are declared, all others are skipped until those have ended; all well closes it."""
    breaker, clock, changes = opened()
    clock.now_s += 4.9
    assert breaker.permit() is None
    clock.now_s += 0.1
    probes = [permitted(breaker), permitted(breaker)]
    assert {probe.state for probe in probes} == {State.HALF_OPEN}
    assert breaker.permit() is None
    assert breaker.why == "circuit half open, other calls try it"
    for probe in probes:
        assert now(breaker) is State.HALF_OPEN
        breaker.heard(probe, False, 0.0)
    assert [after for _, after, _ in changes] == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_a_probe_that_fails_opens_it_again() -> None:
    """For the whole wait."""
    breaker, clock, changes = opened()
    clock.now_s += 5.0
    for failed in (False, True):
        call(breaker, failed)
    assert changes[-1] == (State.HALF_OPEN, State.OPEN, "1 of 2 calls failed")
    clock.now_s += 4.9
    assert breaker.permit() is None


def test_closed_again_it_has_forgotten_why_it_opened() -> None:
    """Failures from before do not count with those after."""
    breaker, clock, _ = opened(probes=1, wait_s=0.5)
    clock.now_s += 0.5
    call(breaker)
    for _ in range(3):
        call(breaker, failed=True)
    assert now(breaker) is State.CLOSED


def test_a_probe_that_says_nothing_makes_room_for_another() -> None:
    """A caller who goes away must not leave it half open for ever."""
    breaker, clock, _ = opened(probes=1)
    clock.now_s += 5.0
    gone = permitted(breaker)
    assert breaker.permit() is None
    breaker.released(gone)
    call(breaker)
    assert now(breaker) is State.CLOSED


def test_calls_from_before_say_nothing_of_now() -> None:
    """A late failure of the time before it opened is no probe, and takes no probe's place."""
    breaker, clock, _ = made(probes=1)
    late = [permitted(breaker) for _ in range(3)]
    for _ in range(4):
        call(breaker, failed=True)
    clock.now_s += 5.0
    probe = permitted(breaker)
    breaker.heard(late[0], True, 0.0)
    breaker.released(late[1])
    assert now(breaker) is State.HALF_OPEN
    assert breaker.permit() is None
    breaker.heard(probe, False, 0.0)
    breaker.heard(late[2], True, 0.0)
    assert now(breaker) is State.CLOSED


class Life(RuleBasedStateMachine):
    """Any order of calls, ends and waits."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.clock, self.changes = made()
        self.out: list[Permit] = []
        self.opened_s = 0.0

    @rule()
    def begin(self) -> None:
        before, permit = self.breaker.state, self.breaker.permit()
        if permit:
            self.out.append(permit)
        if before is State.OPEN and permit:
            assert self.clock.now_s - self.opened_s >= 5.0

    @precondition(lambda self: self.out)
    @rule(failed=st.booleans(), data=st.data())
    def end(self, failed: bool, data: st.DataObject) -> None:
        permit = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        before = self.breaker.state
        self.breaker.heard(permit, failed, 0.0)
        if self.breaker.state is State.OPEN and before is not State.OPEN:
            self.opened_s = self.clock.now_s

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.breaker.released(self.out.pop(data.draw(st.integers(0, len(self.out) - 1))))

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 60.0)))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @invariant()
    def few_probes(self) -> None:
        """Never more than the probes are out while half open."""
        if self.breaker.state is State.HALF_OPEN:
            probes = [p for p in self.out if p.state is State.HALF_OPEN and p.stretch == len(self.changes)]
            assert len(probes) <= 2

    @invariant()
    def known_ways(self) -> None:
        """Closed opens, open is tried, what is tried closes or opens."""
        ways = {
            (State.CLOSED, State.OPEN),
            (State.OPEN, State.HALF_OPEN),
            (State.HALF_OPEN, State.CLOSED),
            (State.HALF_OPEN, State.OPEN),
        }
        assert {(before, after) for before, after, _ in self.changes} <= ways

    def teardown(self) -> None:
        """It can always be mended: let all end, wait, and answer well."""
        for permit in self.out:
            self.breaker.released(permit)
        self.clock.now_s += 60.0
        for _ in range(2 if self.breaker.state is not State.CLOSED else 0):
            call(self.breaker)
        assert self.breaker.state is State.CLOSED or not self.changes


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)


async def ask_through(breaker: Breaker, reply: Reply, timeout_s: float = 30.0) -> Reply:
    return await breaking(breaker, Asked(reply))(NOBODY, replace(CALL, timeout_s=timeout_s))


async def test_an_open_circuit_skips_the_call() -> None:
    """The backend is not asked; the reply says when it is again."""
    breaker, _, _ = opened()
    asked = Asked(said())
    reply = await breaking(breaker, asked)(NOBODY, CALL)
    assert (reply.outcome, reply.attempts, reply.breaker) == (Outcome.SKIPPED, 0, "open")
    assert reply.detail == "circuit open, tried again in 5.0 s"
    assert not asked.calls


@pytest.mark.parametrize(
    ("outcome", "opens"),
    [
        (Outcome.ERROR, True),
        (Outcome.TIMEOUT, True),
        (Outcome.OK, False),
        (Outcome.REFUSED, False),
        (Outcome.CANCELLED, False),
    ],
)
async def test_which_outcomes_are_failures(outcome: Outcome, opens: bool) -> None:
    """Errors and timeouts; a request that it refuses is the request's fault."""
    breaker, _, _ = made()
    replies = [await ask_through(breaker, said(outcome)) for _ in range(4)]
    assert (now(breaker) is State.OPEN) is opens
    assert {reply.breaker for reply in replies} == {"closed"}


async def test_a_hasty_caller_opens_nothing() -> None:
    """A timeout after less than half of what the mix gives says nothing of the backend: one caller with deadlines
    that nobody can keep must not take the backend from all others."""
    breaker, _, _ = made()
    for _ in range(10):
        await ask_through(breaker, said(Outcome.TIMEOUT), timeout_s=14.9)
    assert now(breaker) is State.CLOSED
    for _ in range(4):
        await ask_through(breaker, said(Outcome.TIMEOUT), timeout_s=15.0)
    assert now(breaker) is State.OPEN


async def test_a_caller_who_goes_away_gives_the_permit_back() -> None:
    """Cancelled while it tries the backend: the next call may."""
    breaker, clock, _ = opened(probes=1)
    clock.now_s += 5.0
    never = Asked(None)
    task = asyncio.create_task(breaking(breaker, never)(NOBODY, CALL))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    reply = await ask_through(breaker, said())
    assert (reply.breaker, now(breaker)) == ("half_open", State.CLOSED)
