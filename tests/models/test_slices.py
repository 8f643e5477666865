from __future__ import annotations

from dataclasses import replace

import pytest

from models.slices import slices
from tests import forest


@pytest.mark.parametrize(
    ("query", "length"),
    [
        ("csv", "1 word"),
        ("read csv", "2 or 3 words"),
        ("read a csv", "2 or 3 words"),
        ("read a csv file", "4 words or more"),
    ],
)
def test_a_listing_is_of_its_pool_and_of_its_query_s_length(query: str, length: str) -> None:
    """Two slices a listing, few in all."""
    made = forest.listing(0, pool="judged")
    made = replace(made, judged=made.judged.model_copy(update={"query": query}))
    assert slices(made) == ("judged pool", length)
