from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import canary
from mixer.canary import Figures, Window, judge
from mixer.experiment_settings import CanarySettings

BOUNDS = CanarySettings()
NAN = float("nan")


def figures(requests: int = 1000, added_s: float = 0.01, **changes: Any) -> Figures:
    """Requests that all went well, with times spread a little around one."""
    spread = np.sort(np.random.default_rng(0).lognormal(np.log(added_s), 0.3, requests))
    return replace(Figures(requests, 0, 0, spread, 0.0, 0.0, requests, requests // 2), **changes)


def reason(arm: Figures, control: Figures, bounds: CanarySettings = BOUNDS) -> str:
    breach = judge(bounds, arm, control)
    return breach.reason if breach else ""


def test_two_arms_alike_pass() -> None:
    """No bound is passed."""
    assert reason(figures(), figures(9000)) == ""


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"failed": 60}, "errors"),
        ({"fell_back": 60}, "fallbacks"),
        ({"score_shift": 0.3}, "scores"),
        ({"clicked": 350}, "clicks"),
        ({"failed": 8, "fell_back": 8, "score_shift": 0.2, "clicked": 480}, ""),
    ],
)
def test_each_bound_has_its_reason(changes: dict[str, Any], expected: str) -> None:
    """Clearly past the bound, and by no more than chance or the bound allows."""
    assert reason(figures(**changes), figures(9000)) == expected


def test_latency_is_of_the_slow_ones() -> None:
    """The 95th percentile, by its ratio."""
    assert reason(figures(added_s=0.02), figures(9000)) == "latency"
    assert reason(figures(added_s=0.013), figures(9000)) == ""


def test_a_bad_control_excuses_the_arm() -> None:
    """What is wrong with both is not the arm's doing."""
    bad: dict[str, Any] = {"failed": 60, "fell_back": 60, "score_shift": 1.0, "clicked": 100}
    assert reason(figures(**bad), figures(**bad)) == ""


def test_too_few_requests_prove_nothing() -> None:
    """Below the least number of either arm there is no verdict; of clicks, of those that were seen."""
    assert reason(figures(199, failed=199), figures()) == ""
    assert reason(figures(failed=1000), figures(199)) == ""
    assert reason(figures(200, failed=200), figures()) == "errors"
    assert reason(figures(seen=199, clicked=0), figures()) == ""


def test_a_bound_may_be_left_out() -> None:
    """None is no bound."""
    none = CanarySettings(
        error_share=None, fallback_share=None, latency_ratio=None, score_shift=None, ctr_drop=None
    )
    bad = figures(added_s=1.0, failed=900, fell_back=90, score_shift=9.0, clicked=0)
    assert reason(bad, figures(), none) == ""


@given(st.integers(1, 5000), st.integers(1, 5000), st.data())
def test_limits_hold_the_figure(of: int, theirs: int, data: st.DataObject) -> None:
    """The least rise is never above the rise itself, and a share against itself never rises."""
    count, other = data.draw(st.integers(0, of)), data.draw(st.integers(0, theirs))
    rise = canary._least_rise((count, of), (other, theirs))
    assert rise <= count / of - other / theirs + 1e-12
    assert canary._least_rise((count, of), (count, of)) <= 1e-12


def test_quantile_limits_cover_the_true_quantile() -> None:
    """Of many samples hardly one has the true 95th percentile outside its limits."""
    samples = np.sort(np.random.default_rng(5).exponential(size=(2000, 400)), axis=1)
    truth, outside = -np.log(0.05), 0
    for sample in samples:
        low, high = canary._quantile_limits(sample)
        outside += not low <= truth <= high
    assert outside <= 10
    assert canary._quantile_limits(np.empty(0)) == (0, inf)


def test_chance_alone_is_seldom_a_breach() -> None:
    """Two arms drawn from one distribution, looked at two thousand times: next to none is past a bound of 0."""
    random, bounds = np.random.default_rng(11), CanarySettings(error_share=0.0, ctr_drop=0.0)
    breaches = 0
    for _ in range(2000):
        failed, clicked = random.binomial(300, 0.02, 2), random.binomial(300, 0.4, 2)
        one, other = (
            figures(300, failed=f, seen=300, clicked=c) for f, c in zip(failed, clicked, strict=True)
        )
        breaches += judge(bounds, one, other) is not None
    assert breaches <= 8


def filled() -> Window:
    window = Window((0.0, 1.0), (0.2, 0.5, 0.3))
    window.answered(1.0, "q1", 0.03, np.array([-1.0, 0.5, 0.5, 2.0, NAN]))
    window.answered(2.0, "q2", 0.01, None)
    window.failed(3.0)
    return window


def test_a_window_counts() -> None:
    """Requests, failures, fallbacks and times, of the stretch that is asked for."""
    found = filled().figures(0.0)
    assert (found.requests, found.failed, found.fell_back) == (3, 1, 1)
    assert found.added_s.tolist() == [0.01, 0.03]
    assert filled().figures(1.5).requests == 2
    assert filled().figures(3.0).requests == 0


def test_score_shift_is_the_stability_index() -> None:
    """As its formula has it; 0 where scores are as in training, or where none were counted."""
    served, trained = np.array([0.25, 0.5, 0.25]), np.array([0.2, 0.5, 0.3])
    expected = ((served - trained) * np.log(served / trained)).sum()
    assert filled().figures(0.0).score_shift == pytest.approx(expected)
    assert Window().figures(0.0).score_shift == 0
    assert filled().figures(1.5).score_shift == 0


def test_feedback_finds_its_request() -> None:
    """By query id; a click is seen too, and what is not remembered is not this window's."""
    window = filled()
    assert window.saw("q1", clicked=False)
    assert window.saw("q1", clicked=True)
    assert window.saw("q1", clicked=False)
    assert not window.saw("q9", clicked=True)
    found = window.figures(0.0)
    assert (found.seen, found.clicked) == (1, 1)


def test_a_window_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says since when it remembers; a request that was forgotten gets no feedback."""
    monkeypatch.setattr(canary, "ROWS", 4)
    window = Window()
    assert window.from_s == -inf
    for n in range(6):
        window.answered(float(n), f"q{n}", 0.01, None)
    assert window.from_s == 2.0
    assert window.figures(-inf).requests == 4
    assert not window.saw("q1", clicked=True)
    assert window.saw("q2", clicked=True)
    window.answered(9.0, "q3", 0.01, None)
    assert window.saw("q3", clicked=True)
