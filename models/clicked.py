"""Listings to learn from, one a click, out of what was served: each as heavy as its place is seldom looked at.

A click on a document at a place that one in five looks at stands for five people who would have clicked: its listing,
the clicked document against all else that was ranked, weighs 1 / examination, clipped. So weighed the sum over clicks
is what it were if people looked at everything (Joachims et al., WSDM 2017: the loss of a click is the place of its
document among all candidates, shown or not; a model that saw only what was shown would not know what to do with the
rest). What else was clicked stays in: each of two clicked documents has a listing, and they cancel in the right
proportion.

Where the log tells of chance, nothing need be known of people: a document that could come to stand at any place of K,
and weighs 1 / propensity where it does, is clicked as often as it is liked, times the examination of all of K, which is
the same for all such documents. That sum, by the examination given, puts its clicks on one scale with all others.
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
    *("slices", "ids", "fused_ranks", "propensities", "ranks", "features"),
)


@dataclass(frozen=True, slots=True)
class Weighing:
    """How heavy a click is: the examination of places (depth,), and the most that one click may weigh."""

    examination: FloatColumn = field(default_factory=lambda: by_power(1.0))
    clip: float = 20.0

    def weights(self, places: IntColumn, positions: IntColumn, propensities: FloatColumn) -> FloatColumn:
        """Of what was shown (s,) of one list: its places there from 0, where it was shown from 1; the list's (n,)."""
        chances, drawn = at(self.examination, positions), propensities < 1
        if drawn.any():
            whole = at(self.examination, np.flatnonzero(drawn) + 1).sum()
            chances = np.where(drawn[places], propensities[places] * whole, chances)
        weights: FloatColumn = (1.0 / chances).clip(max=self.clip)
        return weights


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
    """The clicks on one mix; of searches that made other features, or showed one hit only, there are none."""
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
    return "" if len(served.row["ids"]) > 1 else "with a single hit"


def _listings(served: Served, weighing: Weighing) -> Iterator[Listing]:
    places, positions = shown(served)
    weights = weighing.weights(places, positions, served.row["propensities"])
    for place, weight in zip(places.tolist(), weights.tolist(), strict=True):
        if place in served.clicked:
            grade = CONVERSION_GRADE if place in served.converted else CLICK_GRADE
            yield _listing(served, place, grade, weight)


def _listing(served: Served, clicked: int, grade: int, weight: float) -> Listing:
    row = served.row
    query = row["query"] or row["query_id"]
    return Listing(
        judged=Judged(
            query=query, need=query, grades={row["ids"][clicked]: grade}, day=row["time"].date().isoformat()
        ),
        pool="open",
        ids=tuple(row["ids"]),
        backends=row["backends"],
        features=row["features"],
        ranks=row["ranks"].T.astype(np.intp),
        fused_ranks=row["fused_ranks"].astype(np.intp),
        grades=np.where(np.arange(len(row["ids"])) == clicked, grade, 0),
        degraded=row["degraded"],
        weight=weight,
        slices=row["slices"] or None,
    )
