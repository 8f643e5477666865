"""What tenants may ask: rates and quotas by a clock of the test's, and what callers are told."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from itertools import pairwise
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mixer.access_settings import TenantSettings
from mixer.client import MixerError
from mixer.errors import TenantLimited
from mixer.metrics import Metrics
from mixer.tenants import Allowance, LimitTenants
from tests.doubles import engines, mixers

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
DAY_S = 86_400
NOON_S = 1_700_000_000.0 // DAY_S * DAY_S + DAY_S / 2

Gaps = st.lists(st.floats(0, 5), min_size=1, max_size=120)


class Clock:
    def __init__(self, now_s: float = NOON_S) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def admitted(rules: TenantSettings, gaps: Sequence[float]) -> list[float]:
    """When calls with these pauses before them were let through."""
    now_s, allowance, times = NOON_S, Allowance(rules, NOON_S), []
    for gap in gaps:
        now_s += gap
        if allowance.take(now_s)[0] == "admitted":
            times.append(now_s)
    return times


@given(Gaps, st.floats(0.1, 20), st.integers(1, 20))
def test_no_window_holds_more_than_its_rate(gaps: list[float], per_second: float, burst: int) -> None:
    """Whatever the pattern: over any time, at most the burst and the rate times that time is let through."""
    times = admitted(TenantSettings(per_second=per_second, burst=burst), gaps)
    for first in range(len(times)):
        for last in range(first, len(times)):
            passed_s = times[last] - times[first]
            assert last - first + 1 <= burst + per_second * passed_s + 1e-6


@given(Gaps, st.floats(0.1, 20), st.integers(1, 20))
def test_who_waits_as_told_is_let_through(gaps: list[float], per_second: float, burst: int) -> None:
    """The time that a refusal names is enough, and hardly more than needed."""
    now_s = NOON_S
    allowance = Allowance(TenantSettings(per_second=per_second, burst=burst), NOON_S)
    for gap in gaps:
        now_s += gap
        outcome, retry_s = allowance.take(now_s)
        if outcome == "rate_limited":
            assert retry_s > 0
            assert allowance.take(now_s + 0.9 * retry_s)[0] == "rate_limited" or retry_s < 1e-4
            now_s += retry_s + 1e-6
            assert allowance.take(now_s)[0] == "admitted"


@given(st.floats(1, 20), st.integers(1, 20))
def test_who_keeps_to_the_rate_is_never_refused(per_second: float, burst: int) -> None:
    """However small the burst."""
    gaps = [1 / per_second + 1e-6] * 60
    assert len(admitted(TenantSettings(per_second=per_second, burst=burst), gaps)) == len(gaps)


@given(st.lists(st.floats(0, DAY_S / 3), min_size=1, max_size=60), st.integers(1, 10))
def test_no_day_holds_more_than_its_quota(gaps: list[float], per_day: int) -> None:
    """Days are those of UTC, and each begins anew."""
    times = admitted(TenantSettings(per_day=per_day), gaps)
    days = [int(time_s // DAY_S) for time_s in times]
    assert max(map(days.count, days)) <= per_day
    asked = [int((NOON_S + sum(gaps[: n + 1])) // DAY_S) for n in range(len(gaps))]
    for day in set(asked):
        assert days.count(day) == min(asked.count(day), per_day)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60))
def test_a_clock_that_is_set_back_gives_nothing(gaps: list[float]) -> None:
    """It neither fills the bucket nor opens a new day; nor does it shut anybody out for good."""
    rules = TenantSettings(per_second=1, burst=2)
    rises = sum(max(0.0, gap) for gap in gaps)
    assert len(admitted(rules, gaps)) <= 2 + rises + 1e-6
    assert admitted(rules, [*gaps, 200.0])[-1:] != []


def test_a_refused_call_costs_nothing() -> None:
    """A call beyond the rate leaves the quota, a call beyond the quota leaves the rate as it was."""
    allowance = Allowance(TenantSettings(per_second=1, burst=1, per_day=2), NOON_S)
    outcomes = [allowance.take(NOON_S + s)[0] for s in (0, 0, 0, 1, 2, 2)]
    assert outcomes == ["admitted", "rate_limited", "rate_limited", "admitted", "over_quota", "over_quota"]
    assert allowance.take(NOON_S + DAY_S)[0] == "admitted"


def limits(clock: Clock, metrics: Metrics, processes: int = 1, **tenants: Any) -> LimitTenants:
    made = {name: TenantSettings.model_validate(rules) for name, rules in tenants.items()}
    return LimitTenants(made, metrics, processes, clock)


def tried(limited: LimitTenants, tenant: str, times: int) -> int:
    """How many of so many calls were let through."""
    taken = 0
    for _ in range(times):
        try:
            limited.admit(tenant)
            taken += 1
        except TenantLimited:
            pass
    return taken


def test_each_tenant_has_its_own() -> None:
    """Named or not; metrics name those of the settings alone."""
    metrics = Metrics()
    limited = limits(Clock(), metrics, default={"per_second": 2}, acme={"per_second": 5}, free={})
    assert [tried(limited, name, 10) for name in ("acme", "one", "two", "one", "free")] == [5, 2, 2, 0, 10]

    def counted(tenant: str, outcome: str) -> float | None:
        labels = {"tenant": tenant, "outcome": outcome}
        return metrics.registry.get_sample_value("mixer_tenant_requests_total", labels)

    assert (counted("acme", "admitted"), counted("acme", "rate_limited")) == (5.0, 5.0)
    assert (counted("other", "admitted"), counted("other", "rate_limited")) == (4.0, 26.0)
    assert (counted("free", "admitted"), counted("one", "admitted")) == (10.0, None)


def test_without_a_default_others_are_not_limited() -> None:
    """Only what is written is."""
    assert tried(limits(Clock(), Metrics(), acme={"per_day": 1}), "other", 50) == 50


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_processes_share_the_limits(processes: int) -> None:
    """Together they let through what is allowed, and none is left with nothing."""
    rules = {"per_second": 20, "burst": 40, "per_day": 1000}
    each = tried(limits(Clock(), Metrics(), processes, default=rules), "a", 100)
    assert 40 <= each * processes < 40 + processes


def test_refusals_say_which_limit_and_when() -> None:
    """For people and for programs."""
    clock = Clock()
    limited = limits(clock, Metrics(), acme={"per_second": 2, "burst": 1, "per_day": 2})
    limited.admit("acme")
    with pytest.raises(TenantLimited, match=r"2 calls a second, 1 at once; try again in 0\.5 s") as rate:
        limited.admit("acme")
    clock.now_s += 1
    limited.admit("acme")
    with pytest.raises(TenantLimited, match="2 calls a day; the next day begins at") as quota:
        limited.admit("acme")
    assert rate.value.retry_s == pytest.approx(0.5)
    assert quota.value.retry_s == pytest.approx(DAY_S / 2 - 1)


async def test_callers_are_told_when_to_try_again(logged: StringIO) -> None:
    """RESOURCE_EXHAUSTED with the reason, the limit and the pause; health goes on; a pause lets calls through again."""
    made = mixers.settings({"a": MEMORY}, tenants={"default": {"per_second": 4, "burst": 2}})
    async with mixers.running(made) as mixer:
        answers = []
        for _ in range(3):
            try:
                answers.append(await mixer.search("csv file"))
            except MixerError as error:
                refused = error
        assert len(answers) == 2
        assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (refused.reason, refused.can_retry) == ("RATE_LIMITED", True)
        assert refused.retry_s is not None
        assert 0 < refused.retry_s <= 0.25
        labels = {"tenant": "other", "outcome": "rate_limited"}
        assert mixer.value("mixer_tenant_requests_total", **labels) == 1.0
    assert [line.get("mixer.refused") for line in mixers.call_lines(logged.getvalue())] == [
        None,
        None,
        "rate_limited",
    ]


def test_a_burst_needs_a_rate() -> None:
    """What would never apply is a fault."""
    with pytest.raises(ValidationError, match="of no use without per_second"):
        TenantSettings(burst=3)


def test_rates_rise() -> None:
    """The burst that is not given is that of a second, and one at least."""
    bursts = [TenantSettings(per_second=rate).at_once for rate in (0.1, 1, 1.5, 50)]
    assert bursts == [1, 1, 2, 50]
    assert all(low <= high for low, high in pairwise(bursts))
