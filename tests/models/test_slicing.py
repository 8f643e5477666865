from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from mixer.slices import Slice, Slices
from models import evaluation, slicing, work
from models.collection import Listing
from tests import forest

DECLARED = TypeAdapter(tuple[Slice, ...]).validate_python(
    [{"name": "length", "by": "query_length", "bounds": [1]}, {"name": "script", "by": "script"}]
)
SLICES = Slices(DECLARED, ["a"])


def listing(number: int, query: str) -> Listing:
    made = forest.listing(number)
    return replace(made, judged=made.judged.model_copy(update={"query": query}))


LISTED = [listing(1, "csv"), listing(2, "read csv"), listing(3, "чтение")]


def test_listings_are_parted_by_every_slice() -> None:
    """Each is in one part of every slice; only values that occur are told."""
    parts = slicing.by_slice(LISTED, SLICES)
    assert {cell: [ls.judged.query for ls in part] for cell, part in parts.items()} == {
        ("length", "0-1"): ["csv", "чтение"],
        ("length", "2+"): ["read csv"],
        ("script", "cyrillic"): ["чтение"],
        ("script", "latin"): ["csv", "read csv"],
    }


def test_a_slice_is_measured_by_its_own_queries() -> None:
    """The mean over them alone."""
    found = slicing.ndcg(LISTED, evaluation.fused, SLICES)
    alone = evaluation.values([LISTED[0], LISTED[2]], evaluation.fused, evaluation.ndcg).mean()
    assert found["length", "0-1"].mean == pytest.approx(alone)


def test_a_report_tells_of_slices_where_there_are_some() -> None:
    """One more table, with the number of queries behind each figure."""
    console = Console(width=200, record=True, file=StringIO())
    for part in work.report(LISTED, "test, open pool", SLICES):
        console.print(part)
    text = console.export_text()
    assert "cyrillic" in text
    assert len(work.report(LISTED, "test, open pool", SLICES)) == len(work.report(LISTED, "title")) + 1
