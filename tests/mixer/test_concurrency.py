from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.concurrency import Gradient
from mixer.guard_settings import AdaptiveSettings


def gradient(most: int = 64, **settings: Any) -> Gradient:
    return Gradient(AdaptiveSettings.model_validate(settings), most)


def served(limit: Gradient, calls: int, workers: float, now_s: float = 0.0) -> float:
    """A server that does so many calls of 10 ms at once at full speed, asked for as many as the limit has; when the
    last of them ended."""
    for _ in range(calls):
        elapsed_s = 0.01 * max(limit.limit / workers, 1.0)
        now_s += elapsed_s / limit.limit
        limit.took(elapsed_s, limit.limit, now_s)
    return now_s


def test_it_grows_while_latency_stays() -> None:
    """To the ceiling, where nothing is ever slow."""
    limit = gradient(most=50)
    served(limit, 500, workers=1000)
    assert limit.limit == 50


def test_it_settles_where_latency_begins_to_rise() -> None:
    """Not far above what the server does at once, though callers would take far more."""
    limit = gradient(most=1000)
    ended_s = served(limit, 100_000, workers=20)
    assert ended_s > 40
    assert 20 <= limit.limit <= 60


def test_it_falls_when_answers_take_longer() -> None:
    """What was well for one speed is too much for another, and is well again afterwards."""
    limit = gradient(most=64)
    now_s = served(limit, 400, workers=64)
    before = limit.limit
    for _ in range(400):
        limit.took(0.1, limit.limit, now_s)
    assert limit.limit == 4
    served(limit, 2000, workers=64, now_s=now_s)
    assert limit.limit == before


def test_a_limit_that_is_not_used_stays() -> None:
    """A few slow calls at night say nothing of how many would be well."""
    limit = gradient(initial=20)
    for seconds in (0.01, 0.01, 5.0, 5.0, 5.0):
        limit.took(seconds, at_once=2, now_s=1.0)
    assert limit.limit == 20


@pytest.mark.parametrize(("most", "initial", "first"), [(8, 20, 8), (64, 20, 20), (2, 20, 2), (64, 1, 4)])
def test_it_begins_within_its_bounds(most: int, initial: int, first: int) -> None:
    """Never above the ceiling, whatever the settings say, nor below the least where the ceiling lets it."""
    assert gradient(most, initial=initial).limit == first


@given(st.integers(1, 100), st.lists(st.tuples(st.floats(0, 100), st.integers(0, 200)), max_size=80))
def test_it_stays_within_its_bounds(most: int, calls: list[tuple[float, int]]) -> None:
    """Whatever was measured."""
    limit = gradient(most)
    for now_s, (elapsed_s, at_once) in enumerate(calls):
        limit.took(elapsed_s, at_once, now_s)
        assert min(4, most) <= limit.limit <= most
