"""Listings to learn from, one a click, out of what was served: each as heavy as its place is seldom looked at.

A click on a document at a place that one in five looks at stands for five people who would have clicked: its listing,
the clicked document against all that was shown and not clicked, weighs 1 / examination, clipped. So weighed the sum
over clicks is what it were if people looked at everything (Joachims et al., WSDM 2017). Where documents were put at
random, the weight is also by 1 / propensity, relative to the search's others (self-normalized: Swaminathan and
Joachims, "The self-normalized estimator for counterfactual learning", NIPS 2015).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from backends.base import FloatColumn
from mixer.schema import Feature, schema_hash
from mixer.values import IntColumn
from models.clicks import at, by_power, shown
from models.collection import Listing
from models.feedback import Joined, Served
from models.judgements import Judged, Judgements, Split
from models.online import CLICK_GRADE, CONVERSION_GRADE

COLUMNS = (
    *(
        "query_id",
        "time",
        "mix",
        "query",
        "degraded",
        "schema_sha256",
        "backends",
        "page_offset",
        "page_size",
    ),
    *("ids", "fused_ranks", "propensities", "ranks", "features"),
)


@dataclass(frozen=True, slots=True)
class Weighing:
    """How heavy a click is: the examination of places (depth,), and the most that one click may weigh."""

    examination: FloatColumn = field(default_factory=lambda: by_power(1.0))
    clip: float = 20.0

    def weights(self, positions: IntColumn, propensities: FloatColumn) -> FloatColumn:
        """Of what one search showed at these positions (n,) from 1, with these propensities (n,)."""
        odds = 1.0 / propensities
        weights: FloatColumn = odds / odds.mean() / at(self.examination, positions)
        return weights.clip(max=self.clip)


@dataclass(frozen=True, slots=True)
class Clicked:
    """Listings of clicks, and why searches gave none."""

    listings: tuple[Listing, ...]
    left_out: dict[str, int]

    def of(self, split: Split) -> tuple[Listing, ...]:
        """Those of one split; one query never parts."""
        return tuple(listing for listing in self.listings if listing.judged.assigned == split)

    def judgements(self, source: str) -> Judgements:
        """The clicks as judgements, for the record: their hash is of all that was learned from."""
        digest = hashlib.sha256()
        for listing in self.listings:
            digest.update(listing.judged.model_dump_json().encode())
            digest.update(np.ascontiguousarray(listing.features).tobytes())
            digest.update(np.float64(listing.weight).tobytes())
        return Judgements(source, digest.hexdigest(), tuple(listing.judged for listing in self.listings))


def listings_of(
    joined: Joined,
    mix: str,
    features: Sequence[Feature],
    weighing: Weighing,
    progress: Callable[[], None] = lambda: None,
) -> Clicked:
    """The clicks on one mix; of searches that made other features, or showed nothing unclicked, there are none."""
    schema, left_out = schema_hash(features), Counter[str]()
    made: list[Listing] = []
    for served in joined.searches(COLUMNS):
        progress()
        if why := _useless(served, mix, schema):
            left_out[why] += 1
        else:
            made.extend(_listings(served, weighing))
    return Clicked(tuple(made), dict(left_out))


def _useless(served: Served, mix: str, schema: str) -> str:
    if served.row["mix"] != mix:
        return "of another mix"
    if served.row["schema_sha256"] != schema:
        return "with other features"
    if not served.clicked.size:
        return "without a click"
    return "" if np.setdiff1d(shown(served)[0], served.clicked).size else "with every hit clicked"


def _listings(served: Served, weighing: Weighing) -> Iterator[Listing]:
    places, positions = shown(served)
    weights = weighing.weights(positions, served.row["propensities"][places])
    others = np.isin(places, served.clicked, invert=True)
    for clicked in np.flatnonzero(~others).tolist():
        kept = others.copy()
        kept[clicked] = True
        place = int(places[clicked])
        grade = CONVERSION_GRADE if place in served.converted else CLICK_GRADE
        yield _listing(served, places[kept], place, grade, float(weights[clicked]))


def _listing(served: Served, places: IntColumn, clicked: int, grade: int, weight: float) -> Listing:
    row = served.row
    query = row["query"] or row["query_id"]
    return Listing(
        judged=Judged(
            query=query, need=query, grades={row["ids"][clicked]: grade}, day=row["time"].date().isoformat()
        ),
        pool="open",
        ids=tuple(row["ids"][place] for place in places.tolist()),
        backends=row["backends"],
        features=row["features"][places],
        ranks=row["ranks"][places].T.astype(np.intp),
        fused_ranks=row["fused_ranks"][places].astype(np.intp),
        grades=np.where(places == clicked, grade, 0),
        degraded=row["degraded"],
        weight=weight,
    )
