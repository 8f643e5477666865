from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.token_bucket import Tokens


@pytest.mark.parametrize(("share", "calls"), [(0.05, 20), (0.1, 10), (0.5, 2), (1.0, 1)])
def test_so_many_calls_earn_one(share: float, calls: int) -> None:
    """A share of a token a call: the last of so many makes it whole, and none before."""
    tokens = Tokens(share, burst=10)
    for _ in range(calls - 1):
        tokens.earn()
        assert not tokens.spend()
    tokens.earn()
    assert tokens.spend()
    assert not tokens.spend()


def test_no_more_is_saved_than_the_burst() -> None:
    """However long nothing was spent."""
    tokens = Tokens(0.5, burst=2)
    for _ in range(1000):
        tokens.earn()
    assert [tokens.spend() for _ in range(3)] == [True, True, False]


@given(st.floats(0.01, 1.0), st.floats(1.0, 5.0), st.booleans(), st.lists(st.sampled_from(("earn", "spend"))))
def test_never_beyond_the_share(share: float, burst: float, full: bool, acts: list[str]) -> None:
    """Whatever happens in whatever order, no more is spent than was held at the start and the share of all calls."""
    held = burst if full else 0.0
    tokens, spent, calls = Tokens(share, burst, held), 0, 0
    for act in acts:
        if act == "earn":
            tokens.earn()
            calls += 1
        else:
            spent += tokens.spend()
        assert spent <= held + share * calls + 1e-6
