from __future__ import annotations

import logging
from typing import Any

import pytest

from mixer.guard_settings import AdaptiveSettings
from mixer.load import Load
from mixer.metrics import Metrics
from mixer.values import Effort
from tests.doubles.asks import Clock


def made(**settings: Any) -> tuple[Load, Clock, Metrics]:
    clock, metrics = Clock(), Metrics()
    declared = AdaptiveSettings.model_validate({"initial": 100, "load_s": 1.0, **settings})
    return Load(declared, 100, metrics, clock), clock, metrics


def rested(load: Load, clock: Clock, calls: int, seconds: float = 30.0) -> Effort:
    """The effort after so many calls were in work for a while."""
    load.now(calls)
    clock.now_s += seconds
    return load.effort


def test_an_idle_server_leaves_nothing_out() -> None:
    """The whole, at quality 1."""
    load, clock, _ = made()
    assert rested(load, clock, 0) == Effort()
    assert rested(load, clock, 59) == Effort()


def test_work_is_left_out_in_the_declared_order() -> None:
    """What no answer shows, then optional backends, then candidates, then the model; each keeps what was before."""
    load, clock, _ = made()
    efforts = [rested(load, clock, calls) for calls in (61, 71, 81, 100)]
    assert efforts == [
        Effort(1, 0.8, beside=False),
        Effort(2, 0.6, beside=False, optional=False),
        Effort(3, 0.4, beside=False, optional=False, limit_share=0.5),
        Effort(4, 0.2, beside=False, optional=False, limit_share=0.5, model=False),
    ]


def test_what_is_not_to_be_left_out_is_not() -> None:
    """A step that is null is none; the others keep their order."""
    load, clock, _ = made(drop={"beside": None, "candidates": None})
    assert rested(load, clock, 100) == Effort(2, 0.333, optional=False, model=False)


def test_a_moment_changes_nothing() -> None:
    """The load is smoothed: only what lasts counts, in both directions."""
    load, clock, _ = made()
    assert rested(load, clock, 100, seconds=0.05) == Effort()
    low = rested(load, clock, 100)
    assert low.step == 4
    assert rested(load, clock, 0, seconds=0.05) == low


def test_what_was_left_out_comes_back_well_below_its_step() -> None:
    """Between a step and its release nothing changes, so that answers do not alternate."""
    load, clock, _ = made(release=0.15)
    assert rested(load, clock, 71).step == 2
    assert rested(load, clock, 56).step == 2
    assert rested(load, clock, 54).step == 1
    assert rested(load, clock, 69).step == 1
    assert rested(load, clock, 46).step == 1
    assert rested(load, clock, 44).step == 0


def test_the_load_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Limit, load and quality are gauges, settled when they are read; a change of quality is logged."""
    load, clock, metrics = made()
    load.now(100)
    clock.now_s += 30.0
    with caplog.at_level(logging.INFO, "mixer.load"):
        samples = {
            sample.name: sample.value
            for family in metrics.registry.collect()
            for sample in family.samples
            if sample.name in ("mixer_load_ratio", "mixer_quality_ratio", "mixer_concurrency_limit")
        }
    assert samples == {
        "mixer_load_ratio": pytest.approx(1.0),
        "mixer_quality_ratio": 0.2,
        "mixer_concurrency_limit": 100,
    }
    (record,) = caplog.records
    assert (record.message, record.levelno, vars(record)["after"]) == (
        "quality changed",
        logging.WARNING,
        0.2,
    )


def test_latency_moves_the_limit() -> None:
    """The load is of the limit as it is now."""
    load, clock, _ = made()
    for _ in range(100):
        load.took(0.01, 100)
    for _ in range(400):
        load.took(1.0, 100)
    assert load.limit == 4
    assert rested(load, clock, 4).step == 4
