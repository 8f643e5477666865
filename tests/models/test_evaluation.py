from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mixer.values import IntColumn
from models import evaluation
from models.collection import Listing
from models.judgements import Judged


def grades(*values: int) -> IntColumn:
    return np.array(values, np.intp)


def listing(served: list[int], unserved: list[int] | None = None) -> Listing:
    """Candidates with these grades as served, and judged documents that were not."""
    n = len(served)
    ids = tuple(f"d{place}" for place in range(n))
    judged = {**dict(zip(ids, served, strict=True)), **{f"u{i}": g for i, g in enumerate(unserved or [])}}
    return Listing(
        judged=Judged(query="q", need="n", grades=judged),
        pool="open",
        ids=ids,
        backends=("a", "b"),
        features=np.arange(n, dtype=np.float64)[:, None],
        ranks=np.array([range(n, 0, -1), [place + 1 if place < 2 else 0 for place in range(n)]], np.intp),
        fused_ranks=np.array([*range(2, n + 1), 1][:n], np.intp),
        grades=grades(*served),
        degraded=False,
    )


def test_dcg_by_hand() -> None:
    """Gains 2^grade - 1, discounted by log2(place + 1): 7/1 + 3/log2(3) + 0 + 1/log2(5)."""
    expected = 7 + 3 / np.log2(3) + 1 / np.log2(5)
    assert evaluation.dcg(grades(3, 2, 0, 1), 10) == pytest.approx(expected, rel=1e-15)
    assert evaluation.dcg(grades(3, 2, 0, 1), 1) == 7
    assert evaluation.dcg(grades(), 10) == 0


def test_ndcg_by_hand() -> None:
    """The share of the best order's gain: (1 + 3/log2(3)) / (3 + 1/log2(3))."""
    expected = (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))
    assert evaluation.ndcg(grades(1, 2), [1, 2]) == pytest.approx(expected, rel=1e-15)
    assert evaluation.ndcg(grades(2, 1, 0), [0, 1, 2]) == 1.0


def test_the_ideal_order_is_of_all_judged_documents() -> None:
    """A relevant document that was not found counts against the order."""
    assert evaluation.ndcg(grades(1), [1, 3]) == pytest.approx(1 / (7 + 1 / np.log2(3)), rel=1e-15)


def test_ndcg_looks_no_deeper_than_its_depth() -> None:
    """What stands at place 11 gains nothing at depth 10, in the order and in the ideal."""
    assert evaluation.ndcg(grades(*[0] * 10, 3), [3]) == 0
    assert evaluation.ndcg(grades(*[1] * 10), [1] * 30) == 1.0


@pytest.mark.parametrize("measure", evaluation.MEASURES.values())
def test_nothing_relevant_is_zero(measure: evaluation.Measure) -> None:
    """A query without a relevant document, or an order without a hit, scores 0 and not NaN."""
    assert measure(grades(0, 0), [0, 0]) == 0
    assert measure(grades(), [3]) == 0


def test_reciprocal_rank_by_hand() -> None:
    """1 over the place of the first document that grades at least 1."""
    assert evaluation.reciprocal_rank(grades(0, 0, 1, 3), [1, 3]) == pytest.approx(1 / 3)
    assert evaluation.reciprocal_rank(grades(2, 0), [2]) == 1
    assert evaluation.reciprocal_rank(grades(0), [3]) == 0


def test_recall_by_hand() -> None:
    """The share of all relevant judged documents within the depth."""
    assert evaluation.recall(grades(1, 0, 2, 3), [1, 2, 3, 1, 0], 3) == 0.5
    assert evaluation.recall(grades(1, 0, 2, 3), [1, 2, 3, 1, 0], 4) == 0.75
    assert evaluation.recall(grades(1), [1], 10) == 1


def test_the_measures_are_named_with_their_depth() -> None:
    """The table's columns say how deep each looks, and look so deep."""
    assert list(evaluation.MEASURES) == ["NDCG@10", "MRR", "recall@10", "recall@100"]
    late = grades(*[0] * 10, 1)
    assert evaluation.MEASURES["recall@10"](late, [1]) == 0
    assert evaluation.MEASURES["recall@100"](late, [1]) == 1


GRADES = st.lists(st.integers(0, 3), min_size=1, max_size=15)


@given(GRADES)
def test_measures_lie_between_nothing_and_all(values: list[int]) -> None:
    """Every measure of every order is within 0 and 1, and the ideal order's NDCG is the highest there is."""
    ideal = grades(*sorted(values, reverse=True))
    for measure in evaluation.MEASURES.values():
        assert 0 <= measure(grades(*values), values) <= 1 + 1e-12
    assert evaluation.ndcg(grades(*values), values) <= evaluation.ndcg(ideal, values) + 1e-12
    assert evaluation.ndcg(ideal, values) == (1 if any(values) else 0)


def test_served_is_the_order_of_the_listing() -> None:
    """What was served stands as it was served."""
    assert evaluation.served(listing([1, 2, 3])).tolist() == [0, 1, 2]


def test_fused_is_the_order_before_the_model() -> None:
    """By fused rank."""
    assert evaluation.fused(listing([1, 2, 3])).tolist() == [2, 0, 1]


def test_a_backend_s_order_holds_only_its_own_documents() -> None:
    """By the backend's ranks; what it did not return is left out."""
    assert evaluation.by_backend("a")(listing([1, 2, 3])).tolist() == [2, 1, 0]
    assert evaluation.by_backend("b")(listing([1, 2, 3])).tolist() == [0, 1]


def test_scores_order_and_ties_fall_back() -> None:
    """Higher scores first; equal ones by fused rank."""
    by_feature = evaluation.by_scores(lambda matrix: matrix[:, 0])
    assert by_feature(listing([1, 2, 3])).tolist() == [2, 1, 0]
    flat = evaluation.by_scores(lambda matrix: np.zeros(len(matrix)))
    assert flat(listing([1, 2, 3])).tolist() == evaluation.fused(listing([1, 2, 3])).tolist()


def test_every_ranking_is_there() -> None:
    """Each backend alone, the fused order and what was served, by the name that it is given."""
    listed = listing([0, 1, 3])
    rankings = evaluation.orders([listed], "model")
    assert list(rankings) == ["a", "b", "fused", "model"]
    ordered = {name: listed.grades[order(listed)].tolist() for name, order in rankings.items()}
    assert ordered == {"a": [3, 1, 0], "b": [0, 1], "fused": [3, 0, 1], "model": [0, 1, 3]}


def test_values_are_a_query_s_own() -> None:
    """One value a query, of its own grades in the order asked for, against all that was judged for it."""
    listings = [listing([3, 0]), listing([0, 3]), listing([0, 0], unserved=[3])]
    measured = evaluation.values(listings, evaluation.served, evaluation.ndcg)
    np.testing.assert_allclose(measured, [1, 1 / np.log2(3), 0])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_is_within_the_values(values: list[float]) -> None:
    """The mean is the mean, and the bounds are in order and within the values."""
    made = evaluation.interval(np.array(values))
    assert made.mean == pytest.approx(np.mean(values))
    assert min(values) - 1e-12 <= made.low <= made.high <= max(values) + 1e-12


def test_an_interval_is_about_its_mean() -> None:
    """Of many queries: around the mean, narrower with more queries, about as wide as theory says."""
    random = np.random.default_rng(1)
    few, many = random.random(100), random.random(2500)
    for sample in (few, many):
        made = evaluation.interval(sample)
        assert made.low < made.mean < made.high
        expected = 2 * 1.96 * sample.std() / np.sqrt(len(sample))
        assert made.high - made.low == pytest.approx(expected, rel=0.15)


def test_an_interval_is_the_same_every_time() -> None:
    """Resampling starts from a seed: the same figures give the same interval, another seed another."""
    sample = np.random.default_rng(1).random(50)
    assert evaluation.interval(sample) == evaluation.interval(sample)
    assert evaluation.interval(sample) != evaluation.interval(sample, seed=1)


def test_a_query_counts_as_it_weighs() -> None:
    """One of weight 3 is as three; one of hardly any is as none."""
    sample = np.array([0.0, 0.5, 1.0])
    assert evaluation.interval(sample, np.array([1.0, 1e-9, 3.0])).mean == pytest.approx(0.75)
    spread = evaluation.interval(np.repeat(sample, 50), np.repeat([1.0, 1e-9, 1e-9], 50))
    assert spread.high < 0.01


def test_equal_values_have_no_spread() -> None:
    """Where every query scores alike, the interval is its mean."""
    made = evaluation.interval(np.full(20, 0.25))
    assert (made.mean, made.low, made.high) == (0.25, 0.25, 0.25)
    assert str(made) == "0.2500 [0.250, 0.250]"


def test_a_difference_is_query_by_query() -> None:
    """An order that is better on every query is better by an interval above 0; against itself it is 0."""
    listings = [listing([0, 1, 3]) for _ in range(20)]
    made = evaluation.difference(listings, evaluation.by_backend("a"), evaluation.served)
    assert made.low > 0
    same = evaluation.difference(listings, evaluation.served, evaluation.served)
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def test_evaluating_is_every_ranking_by_every_measure() -> None:
    """The table of results has a row a ranking and a column a measure, and each is that measure's interval."""
    listings = [listing([3, 0, 1]), replace(listing([0, 2, 1]), degraded=True)]
    rankings = evaluation.orders(listings, "model")
    results = evaluation.evaluate(listings, rankings)
    assert {name: list(row) for name, row in results.items()} == {
        name: list(evaluation.MEASURES) for name in rankings
    }
    expected = evaluation.values(listings, evaluation.served, evaluation.ndcg).mean()
    assert results["model"]["NDCG@10"].mean == pytest.approx(expected)
    console = Console(width=200, record=True, file=StringIO())
    console.print(evaluation.table(results, "test"))
    drawn = console.export_text()
    assert all(name in drawn for name in (*rankings, *evaluation.MEASURES, str(results["model"]["MRR"])))
