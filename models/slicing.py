"""How good an order is for each slice of the judged queries, with the slices that the mix is watched by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from mixer.slices import LengthSlice, Slices
from models import evaluation
from models.collection import Listing
from models.evaluation import Interval, Order

Cell = tuple[str, str]
"""A slice and its value."""


BY_LENGTH = Slices([LengthSlice(name="length", by="query_length", bounds=(1, 3))], ())
"""Where a mix declares no slices."""


def cells(listing: Listing, slices: Slices) -> Iterable[Cell]:
    """The slices that a listing is in: as a server said, or by its query; judged ones are asked without a context."""
    found = slices.of(listing.judged.query, {}) if listing.slices is None else listing.slices
    return found.items()


def by_slice(listings: Sequence[Listing], slices: Slices) -> dict[Cell, list[Listing]]:
    """The listings of every slice's value that occurs."""
    parts: dict[Cell, list[Listing]] = {}
    for listing in listings:
        for cell in cells(listing, slices):
            parts.setdefault(cell, []).append(listing)
    return {cell: parts[cell] for cell in sorted(parts)}


def ndcg(listings: Sequence[Listing], order: Order, slices: Slices) -> dict[Cell, Interval]:
    """An order's NDCG in every slice."""
    return {cell: _ndcg(part, order) for cell, part in by_slice(listings, slices).items()}


def _ndcg(part: Sequence[Listing], order: Order) -> Interval:
    return evaluation.interval(evaluation.values(part, order, evaluation.ndcg))


def table(listings: Sequence[Listing], rankings: Mapping[str, Order], slices: Slices, title: str) -> Table:
    """NDCG of the rankings by slice, and what the last gains over the first, for people."""
    first, *_, last = rankings.values()
    drawn = Table(title=title, caption="mean NDCG over queries [95 % interval]")
    for heading in ("slice", "value", "queries", *rankings, "gain"):
        drawn.add_column(heading, justify="left" if heading in ("slice", "value") else "right")
    for cell, part in by_slice(listings, slices).items():
        figures = (_ndcg(part, order) for order in rankings.values())
        gain = evaluation.difference(part, last, first)
        drawn.add_row(*cell, str(len(part)), *map(str, figures), str(gain))
    return drawn
