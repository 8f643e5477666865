"""Backends behind cables that delay, lose, reset, drip and stall: what stands before them keeps the answers coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import CoroutineType
from typing import Any

import pytest

import mixer as mixer_package
from mixer.client import SearchResult
from mixer.results import BackendReport
from tests.doubles import engines, mixers, sockets
from tests.doubles.sockets import Cable

TRIES = 60
BREAKER = {"minimum_calls": 3, "wait_s": 1.0, "probes": 1, "window_s": 600.0}
ALL = {
    "breaker": {"minimum_calls": 1000},
    "retry": {"attempts": 3},
    "hedge": {"minimum_calls": 5, "share": 0.5, "least_delay_s": 0.02},
}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as entered:
        yield entered


async def started(
    stack: AsyncExitStack, guard: dict[str, Any], timeout_s: float = 15.0
) -> tuple[mixers.Mixer, Cable]:
    """A Mixer before a good backend, and before one at the end of a cable that is guarded so."""
    good = await stack.enter_async_context(engines.healthy())
    cable = await stack.enter_async_context(sockets.cable(await stack.enter_async_context(engines.healthy())))
    members = {"good": {"timeout_s": 15.0}, "far": {"timeout_s": timeout_s}}
    settings = mixers.settings(
        {"good": good, "far": cable.target}, {"members": members}, guards={"far": guard}
    )
    return await stack.enter_async_context(mixers.running(settings)), cable


def far(result: SearchResult) -> BackendReport:
    return next(backend for backend in result.backends if backend.backend == "far")


async def reset_within(
    mixer: mixers.Mixer, cable: Cable, found: Callable[[BackendReport], bool]
) -> SearchResult:
    """Break connections within answers until one is as wished; one that breaks between two answers is none."""
    for _ in range(TRIES):
        cable.reset_in = 25
        result = await mixer.search("csv file")
        if found(far(result)):
            return result
    raise AssertionError(f"never came about: {far(result)}")


async def searched(mixer: mixers.Mixer, found: Callable[[BackendReport], bool]) -> BackendReport:
    """Search until the far backend is as wished; every answer until then is one."""
    for _ in range(TRIES):
        result = await mixer.search("csv file")
        assert result.hits
        if found(far(result)):
            return far(result)
        await asyncio.sleep(0.05)
    raise AssertionError(f"never came about: {far(result)}")


def calls() -> set[Any]:
    """Tasks of this process that run Mixer's own code, each of which puts a call or watches something."""
    mine = str(Path(mixer_package.__file__).parent)
    running = [task.get_coro() for task in asyncio.all_tasks()]
    return {c for c in running if isinstance(c, CoroutineType) and c.cr_code.co_filename.startswith(mine)}


def state(mixer: mixers.Mixer, name: str) -> float | None:
    return mixer.value("mixer_backend_breaker_state", backend="far", state=name)


def stalled(cable: Cable) -> None:
    cable.hold()


def dripping(cable: Cable) -> None:
    cable.piece_bytes, cable.latency_s = 1, 0.05


def dead(cable: Cable) -> None:
    cable.is_down = True
    cable.cut()


def narrow(cable: Cable) -> None:
    cable.bytes_per_s = 20.0


def healed(cable: Cable) -> None:
    cable.is_down, cable.piece_bytes, cable.latency_s, cable.bytes_per_s = False, 65536, 0.0, float("inf")
    cable.flow()
    cable.cut()


@pytest.mark.parametrize("ill", [stalled, dripping, dead, narrow])
async def test_an_open_circuit_costs_no_time(stack: AsyncExitStack, ill: Callable[[Cable], None]) -> None:
    """However a backend fails: after a few calls it is not asked any more, answers say so, and it comes back by
    itself once it is well."""
    mixer, cable = await started(stack, {"breaker": BREAKER}, timeout_s=0.4)
    # A busy machine may be late itself; that is no part of this.
    await searched(mixer, lambda report: (report.outcome, report.breaker) == ("ok", "closed"))
    ill(cable)
    report = await searched(mixer, lambda report: report.outcome == "skipped")
    assert report.detail.startswith("circuit ")
    assert (report.attempts, report.elapsed_ms, report.hits) == (0, 0.0, 0)
    assert mixer.value("mixer_backend_breaker_changes_total", backend="far", state="open")
    labels = {"mix": "default", "backend": "far", "outcome": "skipped"}
    assert mixer.value("mixer_backend_duration_seconds_count", **labels)
    healed(cable)
    await searched(mixer, lambda report: (report.outcome, report.breaker) == ("ok", "closed"))
    assert (state(mixer, "closed"), state(mixer, "open"), state(mixer, "half_open")) == (1.0, 0.0, 0.0)


async def test_a_late_backend_opens_the_circuit_too(stack: AsyncExitStack) -> None:
    """It answers within its time, but so late that answers are better without it."""
    slow = {**BREAKER, "slow_s": 0.2, "slow_share": 0.9}
    mixer, cable = await started(stack, {"breaker": slow})
    cable.latency_s = 0.25
    await searched(mixer, lambda report: report.outcome == "skipped")
    assert not mixer.value(
        "mixer_backend_duration_seconds_count", mix="default", backend="far", outcome="timeout"
    )


async def test_a_retry_mends_a_reset(stack: AsyncExitStack) -> None:
    """A connection that breaks within an answer costs a moment, not the answer."""
    mixer, cable = await started(stack, {"retry": {}})
    await searched(mixer, lambda report: report.outcome == "ok")
    result = await reset_within(mixer, cable, lambda report: report.attempts == 2)
    assert (far(result).outcome, result.degraded) == ("ok", False)
    assert mixer.value("mixer_backend_retries_total", backend="far", outcome="ok") == 1


async def test_without_a_guard_a_reset_costs_the_answer(stack: AsyncExitStack) -> None:
    """What the test before rests on: it is the retry that mends it."""
    mixer, cable = await started(stack, {})
    await searched(mixer, lambda report: report.outcome == "ok")
    result = await reset_within(mixer, cable, lambda report: report.outcome == "error")
    assert (far(result).attempts, far(result).breaker, result.degraded) == (1, "", True)


async def test_a_hedge_wins_against_a_hung_replica(stack: AsyncExitStack) -> None:
    """Of two replicas one hangs: every answer is whole, from the other one, and no call is left behind."""
    well = await stack.enter_async_context(engines.healthy())
    cable = await stack.enter_async_context(sockets.cable(await stack.enter_async_context(engines.healthy())))
    hedge = {"minimum_calls": 20, "share": 1.0, "least_delay_s": 0.05, "most_delay_s": 0.3}
    settings = mixers.settings({"far": f"ipv4:{well},{cable.target}"}, guards={"far": {"hedge": hedge}})
    mixer = await stack.enter_async_context(mixers.running(settings))
    for _ in range(24):
        assert not (await mixer.search("csv file")).degraded
    cable.hold()
    before = calls()
    results = [await mixer.search("csv file") for _ in range(8)]
    assert not any(result.degraded for result in results)
    hedged = [far(result) for result in results if far(result).hedged]
    assert hedged
    assert {report.attempts for report in hedged} == {2}
    labels = {"backend": "far", "won": "second", "outcome": "cancelled"}
    assert mixer.value("mixer_backend_hedges_total", **labels)
    await mixers.until(lambda: calls() == before)


async def test_a_bad_line_leaves_nothing_behind(stack: AsyncExitStack) -> None:
    """Latency, jitter, loss and resets at once, under many searches at once and callers who hang up: every search
    ends, and when all have, no task is left."""
    mixer, cable = await started(stack, ALL, timeout_s=1.0)
    for _ in range(6):
        await mixer.search("csv file")
    cable.latency_s, cable.jitter_s, cable.loss = 0.005, 0.03, 0.2
    before = calls()
    searches = [asyncio.create_task(mixer.search("csv file")) for _ in range(40)]
    for number, search in enumerate(searches):
        await asyncio.sleep(0.01)
        if number % 10 == 5:
            cable.reset_in = 40
        if number % 8 == 7:
            search.cancel()
    ended = await asyncio.gather(*searches, return_exceptions=True)
    assert {type(end) for end in ended} <= {SearchResult, asyncio.CancelledError}
    assert all(end.hits for end in ended if isinstance(end, SearchResult))
    await mixers.until(lambda: mixer.value("mixer_calls_in_flight") == 0)
    await mixers.until(lambda: calls() == before)
