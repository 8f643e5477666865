"""The slices of queries that are looked at by themselves, so that a good mean hides no bad part."""

from __future__ import annotations

from models.collection import Listing


def slices(listing: Listing) -> tuple[str, ...]:
    """The slices that a listing belongs to: its pool, and how many words its query has."""
    words = len(listing.judged.query.split())
    length = "1 word" if words <= 1 else "2 or 3 words" if words <= 3 else "4 words or more"
    return f"{listing.pool} pool", length
