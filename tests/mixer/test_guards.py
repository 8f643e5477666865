from __future__ import annotations

import logging
from typing import Any

import pytest

from mixer import fanout
from mixer.guard_settings import GuardSettings
from mixer.guards import Guards
from mixer.metrics import Metrics
from mixer.values import Outcome
from tests.doubles.asks import CALL, NOBODY, UNREACHABLE, Asked, said

ONE = {"breaker": {"minimum_calls": 2, "probes": 1}}


def guards(asked: Asked, metrics: Metrics | None = None, **declared: Any) -> Guards:
    read = {name: GuardSettings.model_validate(guard) for name, guard in declared.items()}
    return Guards(read, asked, metrics or Metrics())


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"backend": "a", **labels})


def test_who_has_no_guard_pays_nothing() -> None:
    """A mix whose backends have none is asked as if there were no guards at all."""
    declared = {"b": GuardSettings.model_validate(ONE)}
    assert Guards(declared, fanout.ask, Metrics()).ask(["a", "c"]) is fanout.ask


async def test_every_mix_shares_the_state_of_a_backend() -> None:
    """What one mix learned of it, the other one knows; backends beside it are asked as ever."""
    guarded = guards(Asked(said(Outcome.ERROR)), a=ONE)
    one, other = guarded.ask(["a"]), guarded.ask(["a", "b"])
    for _ in range(2):
        await one(NOBODY, CALL)
    assert (await other(NOBODY, CALL)).outcome is Outcome.SKIPPED


async def test_a_backend_beside_it_is_asked_as_ever() -> None:
    """Even in the same mix."""
    asked = Asked(said(Outcome.ERROR))
    put = guards(asked, b=ONE).ask(["a", "b"])
    for _ in range(4):
        assert (await put(NOBODY, CALL)).outcome is Outcome.ERROR


async def test_changes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """The state is a gauge of three series from the start, each change a count and a log event with its reason."""
    metrics = Metrics()
    put = guards(Asked(said(Outcome.ERROR)), metrics, a=ONE).ask(["a"])
    states = ("closed", "open", "half_open")
    assert [value(metrics, "mixer_backend_breaker_state", state=state) for state in states] == [1, 0, 0]
    with caplog.at_level(logging.INFO, "mixer.guards"):
        for _ in range(2):
            await put(NOBODY, CALL)
    assert [value(metrics, "mixer_backend_breaker_state", state=state) for state in states] == [0, 1, 0]
    assert value(metrics, "mixer_backend_breaker_changes_total", state="open") == 1
    (record,) = caplog.records
    told = {"backend": "a", "before": "closed", "after": "open", "why": "2 of 2 calls failed"}
    assert vars(record).items() >= {"levelno": logging.WARNING, "message": "breaker changed", **told}.items()


async def test_the_breaker_judges_what_retries_could_not_mend() -> None:
    """Callers got their answers: nothing is to be taken from them."""
    metrics = Metrics()
    asked = Asked(*[UNREACHABLE, said()] * 4)
    put = guards(asked, metrics, a={**ONE, "retry": {"pause_s": 0.001}}).ask(["a"])
    replies = [await put(NOBODY, CALL) for _ in range(4)]
    assert {(reply.outcome, reply.attempts, reply.breaker) for reply in replies} == {
        (Outcome.OK, 2, "closed")
    }
    assert value(metrics, "mixer_backend_retries_total", outcome="ok") == 4


async def test_spent_budgets_are_counted() -> None:
    """By what they were for."""
    metrics = Metrics()
    retry = {"pause_s": 0.001, "burst": 1, "share": 0.01}
    put = guards(Asked(UNREACHABLE), metrics, a={"retry": retry}).ask(["a"])
    for _ in range(3):
        await put(NOBODY, CALL)
    assert value(metrics, "mixer_backend_budget_exhausted_total", what="retry") == 2
    assert value(metrics, "mixer_backend_retries_total", outcome="error") == 1
