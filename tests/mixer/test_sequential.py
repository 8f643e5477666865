from __future__ import annotations

from math import comb, exp, log

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate, special, stats

from mixer.sequential import PRIOR, SequentialTest, Tally, interval, log_evidence

ALPHA = 0.05
COUNTS = st.integers(0, 300)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (7, 2), (30, 50)])
@pytest.mark.parametrize("share", [0.5, 0.3])
def test_the_evidence_is_the_mixture_s_likelihood_ratio(wins: int, losses: int, share: float) -> None:
    """The beta mixture's likelihood, integrated, over that of the share."""
    mixed, _ = integrate.quad(
        lambda x: x**wins * (1 - x) ** losses * stats.beta.pdf(x, PRIOR, PRIOR), 0, 1, epsabs=0, epsrel=1e-10
    )
    expected = log(mixed) - wins * log(share) - losses * log(1 - share)
    assert log_evidence(Tally(wins, losses), share) == pytest.approx(expected, abs=1e-7)


@given(st.integers(0, 40), st.floats(0.05, 0.95))
def test_the_evidence_is_a_martingale(n: int, share: float) -> None:
    """If the share is the true one, the mean of the evidence over all ways to go n steps is 1."""
    mean = sum(
        comb(n, wins)
        * share**wins
        * (1 - share) ** (n - wins)
        * exp(log_evidence(Tally(wins, n - wins), share))
        for wins in range(n + 1)
    )
    assert mean == pytest.approx(1.0)


def evidence(wins: NDArray[np.int64], looks: NDArray[np.int64], share: float = 0.5) -> NDArray[np.float64]:
    """The same for many tallies at once."""
    found = special.betaln(PRIOR + wins, PRIOR + looks - wins) - special.betaln(PRIOR, PRIOR)
    made: NDArray[np.float64] = found - wins * log(share) - (looks - wins) * log(1 - share)
    return made


@given(COUNTS, COUNTS, st.floats(0.05, 0.95))
def test_the_simulations_use_the_same_evidence(wins: int, losses: int, share: float) -> None:
    """What is simulated below is what the test computes."""
    many = evidence(np.array([wins]), np.array([wins + losses]), share)
    assert log_evidence(Tally(wins, losses), share) == pytest.approx(float(many[0]), abs=1e-8)


def paths(share: float, runs: int, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Wins after each step of each run, and the steps."""
    random = np.random.default_rng(2024)
    return np.cumsum(random.random((runs, steps)) < share, axis=1), np.arange(1, steps + 1)


def test_peeking_after_every_search_keeps_the_error_rate() -> None:
    """Of 4000 comparisons of equals, looked at 1000 times each, at most alpha ever find a winner.

    The usual test, looked at as often, finds one in more than every third of them.
    """
    wins, looks = paths(0.5, 4000, 1000)
    ever = (evidence(wins, looks) >= log(1 / ALPHA)).any(axis=1).mean()
    usual = (np.abs(wins - looks / 2) > 1.96 * np.sqrt(looks) / 2)[:, 9:].any(axis=1).mean()
    assert 0 < ever <= ALPHA
    assert usual > 1 / 3


def test_the_test_itself_keeps_the_error_rate_under_peeking() -> None:
    """The same through its own interface, with ties among the searches, stopped as soon as it names a winner."""
    random = np.random.default_rng(7)
    named = 0
    for _ in range(300):
        test = SequentialTest(ALPHA)
        for preferred in random.choice([-1, 0, 1], 500, p=[0.3, 0.4, 0.3]).tolist():
            test.tell(preferred)
            if test.verdict != "undecided":
                named += 1
                break
    assert named / 300 <= ALPHA


@pytest.mark.parametrize(("share", "winner"), [(0.6, "treatment"), (0.4, "control")])
def test_a_better_ranking_is_found(share: float, winner: str) -> None:
    """Of rankings that win three searches in five nearly all are found within 1000, and the right one is named."""
    random = np.random.default_rng(3)
    verdicts = []
    for _ in range(60):
        test = SequentialTest(ALPHA)
        for won in (random.random(1000) < share).tolist():
            test.tell(1 if won else -1)
        verdicts.append(test.verdict)
    assert verdicts.count(winner) >= 57  # type: ignore[arg-type]
    assert set(verdicts) <= {winner, "undecided"}


@pytest.mark.parametrize("share", [0.5, 0.55, 0.8])
def test_the_interval_holds_the_truth_at_all_times(share: float) -> None:
    """Of 2000 runs at most alpha ever refute the true share, looked at after every search."""
    wins, looks = paths(share, 2000, 1000)
    assert (evidence(wins, looks, share) >= log(1 / ALPHA)).any(axis=1).mean() <= ALPHA


@given(COUNTS, COUNTS, st.floats(0.001, 0.999))
@example(1, 300, 0.01)
@example(300, 1, 0.99)
@example(0, 10**7, 0.01)
@example(10**7, 1, 0.999)
def test_the_interval_is_what_is_not_refuted(wins: int, losses: int, share: float) -> None:
    """A share is in it exactly where the evidence against it is below 1/alpha."""
    tally = Tally(wins, losses)
    low, high = interval(tally, ALPHA)
    against = log_evidence(tally, share) - log(1 / ALPHA)
    assert 0 <= low < high <= 1
    if abs(against) > 1e-6:
        assert (low <= share <= high) is (against < 0)


def test_the_interval_closes_in() -> None:
    """Ten times the searches make it narrower; none at all leave everything open."""
    widths = [np.diff(interval(Tally(6 * n, 4 * n)))[0] for n in (0, 1, 10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == 1
    assert widths[-1] < 0.05


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=200))
def test_a_tally_counts_and_the_p_value_never_rises(told: list[int]) -> None:
    """Ties say nothing of who is better; the p-value is the least that ever was, and a verdict stays."""
    test, last, verdict = SequentialTest(0.5), 1.0, "undecided"
    for preferred in told:
        test.tell(preferred)
        assert test.p_value <= last
        assert verdict in ("undecided", test.verdict)
        last, verdict = test.p_value, test.verdict
    tally = test.tally
    assert (tally.wins, tally.losses, tally.ties) == (told.count(1), told.count(-1), told.count(0))
    assert tally.lead == pytest.approx(np.mean(told) / 2 if told else 0.0)


def test_a_verdict_stays() -> None:
    """It was justified when it was given; what comes later has no second say."""
    test = SequentialTest()
    for preferred in [1] * 30 + [-1] * 90:
        test.tell(preferred)
    assert test.tally.losses > test.tally.wins
    assert test.verdict == "treatment"


def test_it_is_blind_to_who_is_who() -> None:
    """Exchanging the two exchanges the verdict and mirrors the interval."""
    one, other = SequentialTest(), SequentialTest()
    for preferred in [1] * 60 + [-1] * 20 + [0] * 9:
        one.tell(preferred)
        other.tell(-preferred)
    assert (one.verdict, other.verdict) == ("treatment", "control")
    assert one.p_value == pytest.approx(other.p_value)
    assert one.interval == pytest.approx([1 - end for end in reversed(other.interval)])
