"""A model over judged listings: its scores as serving would make them, and how good the orders are that they give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from backends.base import FloatColumn
from mixer.decision import Check, CheckName
from mixer.model import LightGbmModel
from mixer.slices import Slices
from models import evaluation
from models.collection import Listing
from models.listings import Held
from models.slicing import BY_LENGTH, Cell, cells

Key = tuple[str, str, str]
"""Pool, need and query."""


def key_of(listing: Listing) -> Key:
    """What makes a listing of one version that of another one too."""
    return listing.pool, listing.judged.need, listing.judged.query


@dataclass(frozen=True)
class Measured:
    """A model over judged listings: its scores (n,) a listing, and NDCG by query."""

    model: LightGbmModel
    held: Held
    slices: Slices = BY_LENGTH

    @cached_property
    def scores(self) -> list[FloatColumn]:
        """As serving would make them."""
        return [self.model.score(listing.features) for listing in self.listings]

    @cached_property
    def listings(self) -> list[Listing]:
        """Those with something to order."""
        return [ls for ls in self.held.listings if len(ls) > 1 and np.ptp(ls.grades)]

    @cached_property
    def ndcg(self) -> dict[Key, float]:
        """By query, ordered by score; a score that is not finite sinks, as in serving."""
        return self._by_query(
            _ndcg(ls, np.where(np.isfinite(scores), scores, -np.inf))
            for ls, scores in zip(self.listings, self.scores, strict=True)
        )

    @cached_property
    def fused(self) -> dict[Key, float]:
        """By query, in the fused order."""
        return self._by_query(_ndcg(ls, -ls.fused_ranks.astype(np.float64)) for ls in self.listings)

    @cached_property
    def weights(self) -> dict[Key, float]:
        """How much each query counts: as its listings do together."""
        summed: dict[Key, float] = defaultdict(float)
        for ls in self.listings:
            summed[key_of(ls)] += ls.weight
        return dict(summed)

    def mean(self, figures: Mapping[Key, float]) -> float:
        """The mean of a figure over all queries."""
        return float(np.average([*figures.values()], weights=[self.weights[key] for key in figures]))

    @cached_property
    def parts(self) -> dict[Cell, set[Key]]:
        """The queries of each pool, and of each slice's values."""
        found: dict[Cell, set[Key]] = defaultdict(set)
        for ls in self.listings:
            for cell in (("pool", ls.pool), *cells(ls, self.slices)):
                found[cell].add(key_of(ls))
        return dict(found)

    def _by_query(self, per_listing: Iterable[float]) -> dict[Key, float]:
        """The mean over the listings of each query."""
        summed: dict[Key, float] = defaultdict(float)
        for ls, figure in zip(self.listings, per_listing, strict=True):
            summed[key_of(ls)] += ls.weight * figure
        return {key: total / self.weights[key] for key, total in summed.items()}


def _ndcg(listing: Listing, scores: FloatColumn) -> float:
    places = np.lexsort((listing.fused_ranks, -scores))
    return evaluation.ndcg(listing.grades[places], tuple(listing.judged.grades.values()))


@dataclass(frozen=True, slots=True)
class Peer:
    """The current version over listings of its own features; without it, why there is nothing to compare with."""

    measured: Measured | None = None
    why_not: str = "nothing is current yet"
    refuses: bool = False
    """Whether a version must not pass for want of the comparison."""

    def missing(self, name: CheckName) -> Check:
        """The check that cannot be made."""
        return Check(name=name, outcome="failed" if self.refuses else "off", told=self.why_not)
