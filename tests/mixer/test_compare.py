from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise
from math import isnan, nan, sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from mixer.compare import Ranking, kendall_tau_b, rank_biased_overlap, score_shift, top_churn

INF = float("inf")
LISTS = st.lists(st.integers(0, 30), unique=True, max_size=25)
PATIENCE = st.floats(0.05, 0.99)
FEW_VALUES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=40)


def ranking(items: list[int]) -> Ranking:
    return Ranking.of(np.array(items, np.intp))


def tied(groups: list[list[int]]) -> Ranking:
    """Items group by group, best first; those of one group tie."""
    items = [item for group in groups for item in group]
    scores = [-float(place) for place, group in enumerate(groups) for _ in group]
    return Ranking.by(np.array(items, np.intp), np.array(scores))


@st.composite
def groups(draw: st.DrawFn) -> list[list[int]]:
    """A ranking with ties."""
    items = draw(LISTS)
    cuts = sorted(draw(st.sets(st.integers(1, max(len(items) - 1, 1)))))
    ends = [0, *(cut for cut in cuts if cut < len(items)), len(items)]
    return [items[low:high] for low, high in pairwise(ends) if low < high]


def heads(found: list[list[int]], depth: int) -> set[int]:
    """All items whose tie begins within the depth."""
    seen: set[int] = set()
    for group in found:
        if len(seen) < depth:
            seen |= set(group)
    return seen


def overlap_by_hand(one: list[list[int]], other: list[list[int]], p: float, depth: int = 3000) -> float:
    """The sum over depths as it is defined, set by set, to a depth where nothing is left to add."""
    short, long = sorted((one, other), key=lambda found: sum(map(len, found)))
    s, n = sum(map(len, short)), sum(map(len, long))

    def agreement(d: int) -> float:
        mine, yours = heads(short, d), heads(long, d)
        unseen = max(d - s, 0)
        more = agreement(s) * unseen if unseen else 0.0
        return 2 * (len(mine & yours) + more) / (len(mine) + unseen + len(yours))

    known = [agreement(d) for d in range(1, n + 1)]
    return (1 - p) * sum(p ** (d - 1) * known[min(d, n) - 1] for d in range(1, depth))


def equation_32(one: list[int], other: list[int], p: float) -> float:
    """Webber, Moffat, Zobel 2010, as printed: S is the shorter list, L the longer one."""
    short, long = sorted((one, other), key=len)
    s, n = len(short), len(long)
    x = {d: len(set(short[:d]) & set(long[:d])) for d in range(1, n + 1)}
    seen = sum(x[d] / d * p**d for d in range(1, n + 1))
    unseen = sum(x[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return (1 - p) / p * (seen + unseen) + ((x[n] - x[s]) / n + x[s] / s) * p**n


@given(LISTS, LISTS, PATIENCE)
def test_overlap_is_equation_32(one: list[int], other: list[int], p: float) -> None:
    """Of lists without ties, of equal depth or not, it is the printed equation."""
    assume(one and other)
    assert rank_biased_overlap(ranking(one), ranking(other), p) == pytest.approx(equation_32(one, other, p))


@given(groups(), groups(), PATIENCE)
def test_overlap_with_ties_is_the_sum_over_depths(
    one: list[list[int]], other: list[list[int]], p: float
) -> None:
    """With ties it is the definition, taken set by set, and never outside of 0 to 1."""
    assume(one and other)
    found = rank_biased_overlap(tied(one), tied(other), p)
    assert found == pytest.approx(overlap_by_hand(one, other, p), abs=1e-9)
    assert -1e-9 <= found <= 1 + 1e-9


@given(groups(), groups(), PATIENCE)
def test_overlap_has_no_direction(one: list[list[int]], other: list[list[int]], p: float) -> None:
    """Which of the two comes first changes nothing."""
    there, back = (rank_biased_overlap(tied(a), tied(b), p) for a, b in ((one, other), (other, one)))
    assert there == pytest.approx(back)


@given(groups(), PATIENCE)
def test_overlap_of_the_same_and_of_strangers(found: list[list[int]], p: float) -> None:
    """A ranking is all of itself and nothing of one without its items; two empty ones are the same."""
    others = [[item + 100 for item in group] for group in found]
    assert rank_biased_overlap(tied(found), tied(found), p) == pytest.approx(1)
    assert rank_biased_overlap(tied(found), tied(others), p) == (0 if found else 1)
    assert rank_biased_overlap(tied(found), ranking([]), p) == (0 if found else 1)


@given(st.permutations(range(12)), st.integers(0, 10))
def test_overlap_weighs_the_top(found: list[int], place: int) -> None:
    """A swap of two neighbors costs the more the higher they stand."""

    def swapped(at: int) -> float:
        other = list(found)
        other[at], other[at + 1] = other[at + 1], other[at]
        return rank_biased_overlap(ranking(found), ranking(other))

    assert swapped(place) < 1
    assert place == 0 or swapped(place) > swapped(place - 1)


@given(st.lists(st.sampled_from([0.5, 1.0, 2.0, nan, INF, -INF]), max_size=12))
def test_places_by_score(scores: list[float]) -> None:
    """Ties share the first of their places; what is no finite score stands last."""

    def sinks(score: float) -> float:
        return score if abs(score) < INF else -INF

    expected = [1 + sum(sinks(b) > sinks(a) for b in scores) for a in scores]
    assert Ranking.by(np.arange(len(scores)), np.array(scores)).places.tolist() == expected


def tau_by_hand(pairs: list[tuple[int, int]]) -> float:
    """Every pair of items, one by one."""
    signs = [(np.sign(a[0] - b[0]), np.sign(a[1] - b[1])) for a, b in combinations(pairs, 2)]
    x, y = (sum(sign[axis] != 0 for sign in signs) for axis in (0, 1))
    return float(sum(a * b for a, b in signs)) / sqrt(x * y) if x and y else nan


@given(FEW_VALUES)
def test_tau_is_the_count_of_pairs_and_what_scipy_says(pairs: list[tuple[int, int]]) -> None:
    """Kendall's tau-b of scores with many ties; no number where one of them tells nothing apart."""
    xs, ys = np.array(pairs, np.float64).T
    found, by_hand, theirs = kendall_tau_b(xs, ys), tau_by_hand(pairs), stats.kendalltau(xs, ys).statistic
    assert found == pytest.approx(by_hand, abs=1e-12, nan_ok=True)
    assert found == pytest.approx(theirs, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("n", [2, 3, 127, 128, 129, 2000])
def test_tau_of_long_columns(n: int) -> None:
    """It agrees with scipy at sizes around powers of two and at that of the largest request."""
    random = np.random.default_rng(n)
    xs = random.normal(size=n)
    ys = np.array(np.round(xs + random.normal(size=n), 1), np.float64)
    assert kendall_tau_b(xs, ys) == pytest.approx(stats.kendalltau(xs, ys).statistic, abs=1e-12)


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=30, unique=True))
def test_tau_of_the_same_and_of_the_reverse(scores: list[int]) -> None:
    """The same order is 1 and its reverse -1, whatever the scale of the scores."""
    column = np.array(scores, np.float64)
    assert kendall_tau_b(column, 7 * column + 3) == pytest.approx(1)
    assert kendall_tau_b(column, -column) == pytest.approx(-1)


def test_tau_of_scores_that_are_no_number() -> None:
    """They tie, below all others."""
    whole = np.array([3.0, 2.0, 1.0, 1.0])
    assert kendall_tau_b(whole, np.array([9.0, 8.0, nan, INF])) == pytest.approx(1)


def test_nothing_to_correlate() -> None:
    """Of fewer than two items there is no correlation."""
    assert isnan(kendall_tau_b(np.empty(0), np.empty(0)))
    assert isnan(kendall_tau_b(np.ones(1), np.ones(1)))


@given(LISTS, LISTS, st.integers(1, 12))
def test_churn_is_the_share_of_newcomers(before: list[int], after: list[int], k: int) -> None:
    """Of the first k that are shown now, how many were not among the first k before."""
    newcomers = [item for item in after[:k] if item not in before[:k]]
    expected = Fraction(len(newcomers), len(after[:k])) if after else 0
    found = top_churn(np.array(before, np.intp), np.array(after, np.intp), k)
    assert found == pytest.approx(float(expected))


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20, unique=True), st.floats(-3, 3))
def test_shift_is_in_standard_deviations(scores: list[float], deviations: float) -> None:
    """Scores that all move by some standard deviations of the scores before have shifted by so many."""
    before = np.array(scores)
    assume(before.std() > 1e-3)
    after = before + deviations * before.std(ddof=1)
    assert score_shift(before, after) == pytest.approx(deviations, abs=1e-9)
    assert score_shift(np.append(before, nan), np.append(after, INF)) == pytest.approx(deviations, abs=1e-9)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        ([1.0], [2.0]),
        ([1.0, 1.0], [1.0, 2.0]),
        ([1.0, nan], [1.0, 2.0]),
        ([1.0, 2.0], [nan]),
        ([0.0, 2.7e-166], [0.0]),
    ],
)
def test_shift_without_a_scale_is_no_number(before: list[float], after: list[float]) -> None:
    """Nothing is divided by a spread that is not there."""
    assert isnan(score_shift(np.array(before), np.array(after)))
