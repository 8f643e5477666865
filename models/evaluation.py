"""How good an order is: NDCG, MRR and recall of every ranking over the same candidates, with intervals.

NDCG with gains 2^grade - 1: Burges et al., "Learning to rank using gradient descent", ICML 2005. The ideal order is
of all judged documents, found or not. Intervals: percentile bootstrap over queries (Sakai, SIGIR 2006).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from rich.table import Table
from rich.text import Text

from backends.base import FloatColumn
from mixer.values import IntColumn
from models.collection import Listing

DEPTH = 10
RELEVANT = 1
RECALL_DEPTHS = (10, 100)
_RESAMPLES = 1000
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries, and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.3f}, {self.high:.3f}]"


def ndcg(grades: IntColumn, judged: Sequence[int], depth: int = DEPTH) -> float:
    """NDCG at a depth of grades in ranked order, against all judged grades; 0 where none is relevant."""
    best = dcg(np.sort(np.array(judged))[::-1], depth)
    return dcg(grades, depth) / best if best else 0.0


def dcg(grades: IntColumn, depth: int) -> float:
    """Discounted cumulated gain of grades in ranked order."""
    top = np.exp2(grades[:depth].astype(np.float64)) - 1.0
    return float(np.sum(top / np.log2(np.arange(2, len(top) + 2))))


def reciprocal_rank(grades: IntColumn, judged: Sequence[int]) -> float:
    """1 over the place of the first relevant document; 0 where there is none."""
    found = np.flatnonzero(grades >= RELEVANT)
    return 1.0 / (float(found[0]) + 1.0) if len(found) else 0.0


def recall(grades: IntColumn, judged: Sequence[int], depth: int) -> float:
    """Share of the relevant documents that stand within a depth."""
    relevant = sum(grade >= RELEVANT for grade in judged)
    return float((grades[:depth] >= RELEVANT).sum()) / relevant if relevant else 0.0


Measure = Callable[[IntColumn, Sequence[int]], float]

MEASURES: Mapping[str, Measure] = {
    f"NDCG@{DEPTH}": ndcg,
    "MRR": reciprocal_rank,
    **{f"recall@{depth}": partial(recall, depth=depth) for depth in RECALL_DEPTHS},
}

Order = Callable[[Listing], IntColumn]
"""Places of a listing's candidates in ranked order; those that a ranking does not hold are left out."""


def served(listing: Listing) -> IntColumn:
    """The order in which they were served."""
    return np.arange(len(listing))


def fused(listing: Listing) -> IntColumn:
    """The order before the model."""
    places: IntColumn = np.argsort(listing.fused_ranks, kind="stable")
    return places


def by_backend(name: str) -> Order:
    """One backend's own order."""

    def order(listing: Listing) -> IntColumn:
        ranks = listing.ranks[listing.backends.index(name)]
        places = np.argsort(ranks, kind="stable")
        held: IntColumn = places[ranks[places] > 0]
        return held

    return order


def by_scores(score: Callable[[FloatColumn], FloatColumn]) -> Order:
    """The order of a model's scores (n,) for features (n, f); ties by fused rank, which breaks them by id."""

    def order(listing: Listing) -> IntColumn:
        places: IntColumn = np.lexsort((listing.fused_ranks, -score(listing.features)))
        return places

    return order


def orders(listings: Sequence[Listing], model_name: str) -> dict[str, Order]:
    """Every backend alone, the fused order, and what was served."""
    backends = {name: by_backend(name) for name in listings[0].backends}
    return {**backends, "fused": fused, model_name: served}


def values(listings: Sequence[Listing], order: Order, measure: Measure) -> FloatColumn:
    """The measure of every query (q,)."""
    return np.array(
        [measure(ls.grades[order(ls)], tuple(ls.judged.grades.values())) for ls in listings], np.float64
    )


def interval(per_query: FloatColumn, weights: FloatColumn | None = None, seed: int = 0) -> Interval:
    """Mean and 95 % interval of a measure over queries (q,), which may count differently (q,)."""
    random, n = np.random.default_rng(seed), len(per_query)
    weighed = np.ones(n) if weights is None else weights

    def mean(drawn: IntColumn) -> float:
        return float(np.average(per_query[drawn], weights=weighed[drawn]))

    means = [mean(random.integers(0, n, n)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(mean(np.arange(n)), float(low), float(high))


def evaluate(
    listings: Sequence[Listing], rankings: Mapping[str, Order], measures: Mapping[str, Measure] = MEASURES
) -> dict[str, dict[str, Interval]]:
    """Every ranking by every measure, over the same candidates."""
    return {
        name: {title: interval(values(listings, order, measure)) for title, measure in measures.items()}
        for name, order in rankings.items()
    }


def difference(listings: Sequence[Listing], ours: Order, theirs: Order) -> Interval:
    """By how much the one order's NDCG is above the other's, query by query."""
    return interval(values(listings, ours, ndcg) - values(listings, theirs, ndcg))


def table(results: Mapping[str, Mapping[str, Interval]], title: str) -> Table:
    """The results for people, the best of each column in bold."""
    measures = list(next(iter(results.values())))
    best = {measure: max(row[measure].mean for row in results.values()) for measure in measures}
    drawn = Table(title=title, caption="mean over queries [95 % interval]")
    drawn.add_column("ranking")
    for measure in measures:
        drawn.add_column(measure, justify="right")
    for name, row in results.items():
        drawn.add_row(name, *(_cell(row[m], row[m].mean == best[m]) for m in measures))
    return drawn


def _cell(value: Interval, best: bool) -> Text:
    return Text(str(value), "bold" if best else "")
