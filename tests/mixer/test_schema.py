from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from mixer.schema import Feature, fields_read, schema_hash

DECLARED: list[dict[str, Any]] = [
    {"name": "bm25", "source": "backend", "backend": "lexical", "value": "score", "low": 0},
    {"name": "cover", "source": "text", "fields": ["title", "body"], "measure": "query_coverage"},
    {"name": "year", "source": "number", "field": "year"},
    {"name": "named_year", "source": "number_in_query", "field": "released"},
    {"name": "like_first", "source": "first", "field": "summary"},
    {"name": "plan", "source": "context", "key": "plan", "levels": ["free", "paid"], "dtype": "category"},
]


def declared(raw: Sequence[dict[str, Any]]) -> tuple[Feature, ...]:
    return TypeAdapter(tuple[Feature, ...]).validate_python(raw)


def changed(place: int, **values: Any) -> list[dict[str, Any]]:
    return [{**raw, **values} if i == place else raw for i, raw in enumerate(DECLARED)]


def test_the_hash_is_of_what_is_declared() -> None:
    """The same declaration has the same hash, in whatever order its keys are written, defaults spelled out or not."""
    turned = [dict(reversed(list(raw.items()))) for raw in DECLARED]
    spelled = changed(2, default=None, dtype="float", low=None, high=None)
    assert schema_hash(declared(DECLARED)) == schema_hash(declared(turned)) == schema_hash(declared(spelled))


@pytest.mark.parametrize(
    "other",
    [
        DECLARED[::-1],
        DECLARED[:-1],
        [*DECLARED, {"name": "words", "source": "query", "value": "words"}],
        changed(2, name="years"),
        changed(2, default=0.0),
        changed(2, relative=True),
        changed(2, low=1900),
        changed(2, high=2100),
        changed(2, field="released"),
        changed(4, field="title"),
        changed(2, dtype="category"),
        changed(0, value="rank"),
        changed(0, backend="semantic"),
        changed(1, measure="phrase"),
        changed(1, fields=["body", "title"]),
        changed(5, levels=["paid", "free"]),
        changed(5, key="tariff"),
    ],
)
def test_whatever_changes_a_column_changes_the_hash(other: list[dict[str, Any]]) -> None:
    """Order, number, name, default, bounds, type, source: none may differ between training and serving."""
    assert schema_hash(declared(other)) != schema_hash(declared(DECLARED))


def test_the_fields_that_features_read() -> None:
    """Every document field that a number or text feature is made from, and no other."""
    assert fields_read(declared(DECLARED)) == {"title", "body", "year", "released", "summary"}


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (changed(0, name="1st"), "name"),
        (changed(0, name="a" * 65), "name"),
        (changed(0, value="best"), "value"),
        (changed(1, fields=[]), "fields"),
        (changed(2, source="numbers"), "2"),
        (changed(2, unit="years"), "unit"),
        (changed(2, low=3, high=2), "low 3 is above high 2"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: list[dict[str, Any]], path: str) -> None:
    """A feature that cannot be made is a fault that names its place."""
    with pytest.raises(ValidationError, match=path):
        declared(wrong)


def test_bounds_are_open_where_not_given() -> None:
    """Without `low` or `high` that side of the range is infinite."""
    first, second = declared([DECLARED[0], {**DECLARED[2], "high": 2100}])
    assert first.bounds == (0, math.inf)
    assert second.bounds == (-math.inf, 2100)
