from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer import stability

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda shares: sum(shares) > 0.01)


def test_psi_by_hand() -> None:
    """(0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5); counts are as good as shares."""
    expected = 0.1 * math.log(1.2) - 0.1 * math.log(0.8)
    assert stability.psi([0.5, 0.5], [0.6, 0.4]) == pytest.approx(expected)
    assert stability.psi([0.5, 0.5], [60, 40]) == pytest.approx(expected)


@given(st.tuples(SHARES, SHARES).filter(lambda both: len(both[0]) == len(both[1])))
def test_psi_is_symmetric_and_never_negative(both: tuple[list[float], list[float]]) -> None:
    """The same either way, and 0 where nothing moved; an empty bin makes it large, not infinite."""
    old, new = both
    assert stability.psi(old, new) == pytest.approx(stability.psi(new, old))
    assert stability.psi(old, new) >= 0
    assert stability.psi(old, old) == 0
    assert math.isfinite(stability.psi(old, new))


@pytest.mark.parametrize(("old", "new"), [([1.0], [1.0, 2.0]), ([0.0, 0.0], [1.0, 1.0]), ([], [])])
def test_what_cannot_be_compared_is_an_error(old: list[float], new: list[float]) -> None:
    """Other bins, or nothing in them."""
    with pytest.raises(ValueError, match="bin"):
        stability.psi(old, new)
