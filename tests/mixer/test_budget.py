from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.budget import PATIENCE, WINDOW_S, Budget


class Clock:
    """Stands still until moved."""

    now_s = 1000.0 * WINDOW_S

    def __call__(self) -> float:
        return self.now_s


def budget(share: float = 0.1) -> tuple[Budget, Clock]:
    clock = Clock()
    return Budget(share, clock), clock


def test_what_is_left_may_be_spent() -> None:
    """Until the window's share is used up, and again in the next window."""
    spent, clock = budget(0.1)
    spent.spend(0.09 * WINDOW_S)
    assert spent.allows()
    spent.spend(0.02 * WINDOW_S)
    assert not spent.allows()
    clock.now_s += WINDOW_S
    assert spent.allows()


def test_a_debt_is_carried_into_the_next_window() -> None:
    """One that took two windows' share at once rests for both."""
    spent, clock = budget(0.1)
    spent.spend(0.2 * WINDOW_S)
    clock.now_s += WINDOW_S
    assert not spent.allows()
    clock.now_s += WINDOW_S
    assert spent.allows()


def test_it_is_closed_after_windows_running() -> None:
    """Where it runs out again and again nothing may be spent any more, however long one waits."""
    spent, clock = budget(0.1)
    for _ in range(PATIENCE):
        assert not spent.is_closed
        spent.spend(0.1 * WINDOW_S)
        clock.now_s += WINDOW_S
    clock.now_s += 1000 * WINDOW_S
    assert not spent.allows()
    assert spent.is_closed


def test_a_window_within_the_share_is_a_new_start() -> None:
    """Windows that run out count only where they follow each other."""
    spent, clock = budget(0.1)
    for _ in range(10):
        for _ in range(PATIENCE - 1):
            spent.spend(0.1 * WINDOW_S)
            clock.now_s += WINDOW_S
        spent.spend(0.01 * WINDOW_S)
        clock.now_s += WINDOW_S
    assert spent.allows()


def test_a_long_sleep_forgives() -> None:
    """Windows in which nobody asked count like those in which somebody did."""
    spent, clock = budget(0.1)
    spent.spend(0.25 * WINDOW_S)
    clock.now_s += 100 * WINDOW_S
    assert spent.allows()


def test_one_run_beyond_all_patience_closes_it() -> None:
    """A single piece of work that costs more than the share of so many windows is the last one."""
    spent, clock = budget(0.1)
    spent.spend(0.1 * WINDOW_S * (PATIENCE + 1))
    clock.now_s += 100 * WINDOW_S
    assert not spent.allows()


@given(
    st.floats(0.01, 1.0),
    st.lists(st.tuples(st.floats(0, 3 * WINDOW_S), st.floats(0, WINDOW_S)), max_size=60),
)
def test_the_share_holds_on_the_average(share: float, work: list[tuple[float, float]]) -> None:
    """Whoever asks before each piece of work spends, over all windows, the share and one piece at most."""
    spent, clock = budget(share)
    began_s, total_s, largest_s = clock.now_s, 0.0, 0.0
    for pause_s, cost_s in work:
        clock.now_s += pause_s
        if spent.allows():
            spent.spend(cost_s)
            total_s, largest_s = total_s + cost_s, max(largest_s, cost_s)
    windows = (clock.now_s - began_s) // WINDOW_S + 1
    assert total_s <= share * WINDOW_S * windows + largest_s + 1e-6


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_nothing_spent_is_nothing_owed(share: float) -> None:
    """A budget that nobody uses is open for good."""
    spent, clock = budget(share)
    clock.now_s += 1e6 * WINDOW_S
    assert spent.allows()
