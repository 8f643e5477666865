from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mixer.worker_process import Patience


def test_pauses_grow() -> None:
    """After a good life there is none; after failures in a row each is twice the one before, up to a bound."""
    patience = Patience(pause_s=0.5, longest_pause_s=3.0)
    assert [patience.pause(failures) for failures in range(6)] == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0]


@given(failures=st.integers(0, 10**9))
def test_pauses_are_bounded(failures: int) -> None:
    """However long it goes on."""
    assert 0.0 <= Patience().pause(failures) <= Patience().longest_pause_s
