"""How far two rankings of one question are apart: pure measures on columns, for shadows, canaries and gates."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn

Items = NDArray[Any]
"""What is ranked, each once: row numbers or ids (n,), of any type that numpy sorts."""

_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Ranking:
    """Items and the place of each (n,), from 1; items that tie share the first of their places."""

    items: Items
    places: NDArray[np.intp]

    @classmethod
    def of(cls, best_first: Items) -> Ranking:
        """A list without ties."""
        return cls(np.asarray(best_first), np.arange(1, len(best_first) + 1))

    @classmethod
    def by(cls, items: Items, scores: FloatColumn) -> Ranking:
        """Items by score, higher being better; equal scores tie, and those that are no number are last."""
        values = sunk(scores)
        return cls(np.asarray(items), len(values) - np.searchsorted(np.sort(values), values, "right") + 1)

    def __len__(self) -> int:
        return len(self.items)


def sunk(scores: FloatColumn) -> FloatColumn:
    """The scores with minus infinity for what is not finite: where the order of a page puts it, too."""
    return np.where(np.isfinite(scores), scores, -np.inf)


def rank_biased_overlap(one: Ranking, other: Ranking, p: float = 0.9) -> float:
    """Extrapolated rank-biased overlap, from 0 (disjoint) to 1 (the same); `p` is the patience of the reader.

    Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", TOIS 2010: equation 32 for lists of
    unequal depth, and the agreement of their section on ties, 2 X / (|S| + |L|), where all of a tie stand at its
    first place. Two empty lists are the same; an empty one has nothing in common with another.
    """
    short, long = sorted((one, other), key=len)
    if not len(short):
        return float(len(long) == 0)
    agreement = _agreement(short, long)
    depths = np.arange(1, len(long) + 1)
    weights = (1 - p) * p ** (depths - 1)
    # From the last depth on, agreement stays what it is there.
    return min(float(weights @ agreement + agreement[-1] * p ** len(long)), 1.0)


def _agreement(short: Ranking, long: Ranking) -> FloatColumn:
    """At each depth of the longer list; beyond the shorter one's end, its unseen items agree as the seen ones do."""
    s, depths = len(short), np.arange(1, len(long) + 1)
    _, mine, yours = np.intersect1d(short.items, long.items, assume_unique=True, return_indices=True)
    shared = _within(np.maximum(short.places[mine], long.places[yours]), len(long))
    sizes = _within(short.places, len(long)) + _within(long.places, len(long))
    unseen = np.maximum(depths - s, 0)
    at_the_end = 2 * shared[s - 1] / sizes[s - 1]
    agreement: FloatColumn = 2 * (shared + at_the_end * unseen) / (sizes + unseen)
    return agreement


def _within(places: NDArray[np.intp], depth: int) -> NDArray[np.intp]:
    """How many of the places are within each depth from 1 on."""
    return np.cumsum(np.bincount(places, minlength=depth + 1)[1 : depth + 1])


def kendall_tau_b(one: FloatColumn, other: FloatColumn) -> float:
    """Kendall's rank correlation of two scores (n,) of the same items, corrected for ties; -1 to 1.

    Kendall, "The treatment of ties in ranking problems", Biometrika 1945. NaN where one of them tells no two items
    apart. Scores that are no number tie at the end.
    """
    xs, ys = sunk(one), sunk(other)
    apart_x = apart_y = agreed = opposed = 0
    # Every pair is asked for, in blocks: up to a few thousand items that beats sorting, and most of it holds no GIL.
    for first in range(0, len(xs), _BLOCK):
        x, y = xs[first : first + _BLOCK, None], ys[first : first + _BLOCK, None]
        above_x, above_y = x > xs, y > ys
        apart_x += int(np.count_nonzero(above_x))
        apart_y += int(np.count_nonzero(above_y))
        agreed += int(np.count_nonzero(above_x & above_y))
        opposed += int(np.count_nonzero(above_x & (y < ys)))
    if not apart_x or not apart_y:
        return np.nan
    return min(max((agreed - opposed) / sqrt(apart_x) / sqrt(apart_y), -1.0), 1.0)


def top_churn(before: Items, after: Items, k: int) -> float:
    """Share of the first `k` of one list that are not among the first `k` of the list before; 0 where it is empty."""
    head = after[:k]
    if not len(head):
        return 0.0
    return float(1 - np.isin(head, before[:k]).mean())


def score_shift(before: FloatColumn, after: FloatColumn) -> float:
    """How far the mean of one score (n,) is from the mean before it, in standard deviations of that.

    Glass's delta (Glass, "Primary, secondary, and meta-analysis of research", Educational Researcher 1976). NaN where
    there is no scale: fewer than two finite scores, or all of them equal.
    """
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if not len(after) or len(before) < 2:
        return np.nan
    deviation = before.std(ddof=1)  # of scores that hardly differ it may be too small for a number
    if not deviation or before.min() == before.max():
        return np.nan
    return float((after.mean() - before.mean()) / deviation)
