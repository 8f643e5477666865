from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from backends.base import FloatColumn
from mixer.features import MakeFeatures
from mixer.schema import Feature
from mixer.values import Candidates, Features, Outcome, Stored
from tests.samples import candidates, hits, merged, mix, plan, reply, request

NAN = float("nan")


def declared(*raw: Mapping[str, Any]) -> tuple[Feature, ...]:
    return TypeAdapter(tuple[Feature, ...]).validate_python(
        [{"name": f"f{place}", **feature} for place, feature in enumerate(raw)]
    )


def made(found: Candidates, *raw: Mapping[str, Any], query: str = "read csv", **asked: Any) -> Features:
    return MakeFeatures(declared(*raw))(plan(asked=request(query, **asked)), found)


def column(found: Candidates, query: str = "read csv", **raw: Any) -> list[float]:
    context = raw.pop("context", {})
    values: FloatColumn = made(found, raw, query=query, context=context).matrix[:, 0]
    return [float(value) for value in values]


def two_backends() -> Candidates:
    """x from both backends, y from `a` only, z from `b` only and without a score."""
    return merged(
        mix("a", "b", features=[{"name": "s", "source": "backend", "backend": "a", "value": "normalized"}]),
        [reply("a", hits(["y", "x"], [8, 4])), reply("b", hits(["x", "z"], [3, NAN]))],
    )


@pytest.mark.parametrize(
    ("backend", "value", "expected"),
    [
        ("a", "score", [4, 8, NAN]),
        ("a", "normalized", [0.5, 1, NAN]),
        ("a", "rank", [2, 1, NAN]),
        ("a", "present", [1, 1, 0]),
        ("b", "score", [3, NAN, NAN]),
        ("b", "rank", [1, NAN, 2]),
        ("b", "present", [1, 0, 1]),
    ],
)
def test_backend_features(backend: str, value: str, expected: Sequence[float]) -> None:
    """One backend's score, normalized score and rank are missing where it did not return the document; presence
    never is."""
    np.testing.assert_equal(column(two_backends(), source="backend", backend=backend, value=value), expected)


def test_a_backend_outside_the_mix_is_missing_everywhere() -> None:
    """A feature of a backend that these candidates do not know is NaN, not an error."""
    values = column(two_backends(), source="backend", backend="c", value="present")
    assert np.isnan(values).all()


def test_mix_features() -> None:
    """The fused score, and by how many backends the document was returned."""
    found = two_backends()
    assert column(found, source="mix", value="fused") == found.fused.tolist()
    assert column(found, source="mix", value="backends") == [2, 1, 1]


def test_number_features() -> None:
    """A numeric field as the backends sent it; NaN where none did."""
    found = candidates([1, 2], numbers={"year": [1999, NAN]})
    np.testing.assert_equal(column(found, source="number", field="year"), [1999, NAN])
    np.testing.assert_equal(column(found, source="number", field="size"), [NAN, NAN])


def test_numbers_in_the_query() -> None:
    """1 where a number of the query equals the field: whole, decimal, several; 0 where none does."""
    found = candidates([1, 2, 3, 4], numbers={"year": [1999, 2001, 3.5, NAN]})
    values = column(found, "films of 1999, 3.5 stars", source="number_in_query", field="year")
    assert values == [1, 0, 1, 0]
    assert column(found, "no number", source="number_in_query", field="year") == [0, 0, 0, 0]


@pytest.mark.parametrize(("value", "expected"), [("chars", 23), ("words", 6), ("digits", 3), ("quotes", 2)])
def test_query_features(value: str, expected: float) -> None:
    """The query's characters, words, digits and quotation marks: the same for every candidate."""
    found = candidates([1, 2])
    assert column(found, 'read "csv 3" file in 42', source="query", value=value) == [expected] * 2


TITLES = ["read csv", "read csv files", "how to read csv", "csv", "", "reading csvs"]


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("query_coverage", [1, 1, 1, 0.5, NAN, 0.5]),
        ("field_coverage", [1, 2 / 3, 0.5, 1, NAN, 0.5]),
        ("exact", [1, 0, 0, 0, NAN, 0]),
        ("starts_with_query", [1, 1, 0, 0, NAN, 0]),
        ("inside_query", [1, 0, 0, 1, NAN, 0]),
        ("phrase", [1, 1, 1, 0, NAN, 0]),
        ("pair_coverage", [1, 1, 1, 0, NAN, 0]),
        ("field_pair_coverage", [1, 1 / 2, 1 / 3, 0, NAN, 0]),
        ("last_word_prefix", [1, 1, 1, 1, NAN, 1]),
        ("words", [2, 3, 4, 1, 0, 2]),
    ],
)
def test_text_features(measure: str, expected: Sequence[float]) -> None:
    """How the title meets the query, by every measure; NaN where there is no text, but for the count of words."""
    found = candidates([1] * len(TITLES), texts={"title": TITLES})
    np.testing.assert_allclose(column(found, source="text", fields=["title"], measure=measure), expected)


def test_similar_letters() -> None:
    """1 for the query's words in any order with others around them, less for a misspelling, little for another
    word; NaN where there is no text."""
    texts = {"title": ["csv, read it", "raed cvs", "", "zoom"]}
    values = column(candidates([1] * 4, texts=texts), source="text", fields=["title"], measure="similarity")
    assert values[0] == 1
    assert 1 > values[1] > 0.5 > values[3] >= 0
    assert np.isnan(values[2])


def test_letters_without_blanks() -> None:
    """1 where the query's letters stand in a row, however they are parted into words."""
    texts = {"title": ["how to readcsv", "re-ad c.s.v", "", "zoom"]}
    values = column(candidates([1] * 4, texts=texts), source="text", fields=["title"], measure="letters")
    assert values[:2] == [1, 1]
    assert np.isnan(values[2])
    assert 0 <= values[3] < 0.5


def test_the_best_of_the_fields_is_the_likest() -> None:
    """Of two fields, the one more like the query counts; an empty one does not pull it down."""
    texts = {"title": ["zoom", ""], "body": ["read csv", "read csv"]}
    raw: dict[str, Any] = {"source": "text", "fields": ["title", "body"], "measure": "similarity"}
    assert column(candidates([1, 2], texts=texts), **raw) == [1, 1]


def test_likeness_to_the_first() -> None:
    """The share of the words of the document that leads the fused order; NaN where there is no text."""
    texts = {"title": ["csv reader", "read csv files", "", "files of csv to read"]}
    found = candidates([1, 4, 3, 2], texts=texts)
    values = column(found, source="first", field="title")
    np.testing.assert_allclose(values, [1 / 3, 1, NAN, 1])


def test_relative_values_are_shares_of_the_greatest() -> None:
    """Each is divided by the greatest of these candidates; where nothing is above 0 there is no share."""
    numbers = {"size": [2, 4, NAN, -1], "loss": [-1, 0, NAN, -3], "debt": [-1, -2, NAN, -3]}
    found = candidates([1] * 4, numbers=numbers)
    raw: dict[str, Any] = {"source": "number", "relative": True}
    np.testing.assert_equal(column(found, **raw, field="size"), [0.5, 1, NAN, -0.25])
    np.testing.assert_equal(column(found, **raw, field="loss"), [NAN] * 4)
    np.testing.assert_equal(column(found, **raw, field="debt"), [NAN] * 4)
    np.testing.assert_equal(column(found, **raw, field="no"), [NAN] * 4)


def test_relative_comes_before_the_range() -> None:
    """The range is that of the share, and a share out of it counts as such."""
    raw = {"source": "number", "field": "size", "relative": True, "low": 0, "high": 1, "default": 0.0}
    features = made(candidates([1] * 3, numbers={"size": [5, 50, -5]}), raw)
    assert features.matrix[:, 0].tolist() == [0.1, 1, 0]
    assert features.out_of_range.tolist() == [1]


def test_relative_values_of_a_query_are_one() -> None:
    """A value that is the same for all is the greatest for all."""
    raw: dict[str, Any] = {"source": "query", "value": "words", "relative": True}
    assert column(candidates([1, 2]), **raw) == [1, 1]


def test_text_features_take_fields_together() -> None:
    """Two fields are one text for coverage, and a field that nobody sent is empty."""
    texts = {"title": ["read", ""], "body": ["csv", ""]}
    values = column(
        candidates([1, 2], texts=texts),
        source="text",
        fields=["title", "body", "no"],
        measure="query_coverage",
    )
    np.testing.assert_equal(values, [1, NAN])


def test_weighted_coverage_is_of_these_candidates() -> None:
    """The word that fewer of the candidates have weighs more."""
    found = candidates([1, 2, 3], texts={"title": ["read", "csv", "read"]})
    values = column(found, source="text", fields=["title"], measure="weighted_coverage")
    assert values[1] > 0.5 > values[0] == values[2]


@pytest.mark.parametrize(
    ("context", "expected"),
    [({}, NAN), ({"age": 31.0}, 31), ({"age": 0.0}, 0), ({"age": "thirty"}, NAN), ({"other": 1.0}, NAN)],
)
def test_context_numbers(context: Mapping[str, str | float], expected: float) -> None:
    """A number that the caller sent; NaN where it sent none, or a text."""
    np.testing.assert_equal(
        column(candidates([1, 2]), source="context", key="age", context=context), [expected, expected]
    )


@pytest.mark.parametrize(
    ("plan_", "expected"), [("free", 0), ("paid", 1), ("other", NAN), ("FREE", NAN), (1.0, NAN)]
)
def test_context_levels(plan_: str | float, expected: float) -> None:
    """A text is its place among the declared levels; an unknown one, or a number, is missing."""
    raw: dict[str, Any] = {
        "source": "context",
        "key": "plan",
        "levels": ["free", "paid"],
        "dtype": "category",
    }
    np.testing.assert_equal(column(candidates([1]), **raw, context={"plan": plan_}), [expected])


def test_store_features() -> None:
    """A number of a feature store; missing everywhere where that store, or that field, was not asked."""
    clicks = Stored("clicks", Outcome.OK, 0.0, {"ctr": np.array([0.5, NAN])})
    found = replace(candidates([1, 2]), stores=(Stored("users", Outcome.TIMEOUT, 0.0, {}), clicks))
    np.testing.assert_equal(column(found, source="store", store="clicks", field="ctr"), [0.5, NAN])
    np.testing.assert_equal(column(found, source="store", store="clicks", field="no"), [NAN, NAN])
    np.testing.assert_equal(column(found, source="store", store="users", field="ctr"), [NAN, NAN])
    features = made(found, {"source": "store", "store": "clicks", "field": "ctr", "default": 0.0})
    assert (features.matrix[:, 0].tolist(), features.missing.tolist()) == ([0.5, 0], [1])


def test_columns_stand_in_the_declared_order() -> None:
    """Names and columns come out as declared, whatever their sources."""
    found = candidates([3, 1], numbers={"year": [1999, 2000]})
    fused, year = {"source": "mix", "value": "fused"}, {"source": "number", "field": "year"}
    first, second = made(found, fused, year), made(found, year, fused)
    assert first.names == second.names == ("f0", "f1")
    assert first.matrix.tolist() == [[3, 1999], [1, 2000]]
    assert second.matrix.tolist() == [[1999, 3], [2000, 1]]


def test_missing_becomes_the_default_and_is_counted() -> None:
    """Missing stays NaN without a default, becomes the default with one, and counts as missing either way."""
    found = candidates([1, 2, 3], numbers={"year": [1999, NAN, NAN]})
    year = {"source": "number", "field": "year"}
    features = made(found, year, {**year, "default": -1.0})
    np.testing.assert_equal(features.matrix, [[1999, 1999], [NAN, -1], [NAN, -1]])
    assert features.missing.tolist() == [2, 2]
    assert features.out_of_range.tolist() == [0, 0]


def test_out_of_range_is_counted_and_treated_as_missing() -> None:
    """Values outside the declared range become the default, or NaN; the ends of the range are inside."""
    found = candidates([1] * 5, numbers={"year": [1899, 1900, 2100, 2101, NAN]})
    year = {"source": "number", "field": "year", "low": 1900, "high": 2100}
    features = made(found, year, {**year, "default": 0.0})
    np.testing.assert_equal(features.matrix[:, 0], [NAN, 1900, 2100, NAN, NAN])
    np.testing.assert_equal(features.matrix[:, 1], [0, 1900, 2100, 0, 0])
    assert features.out_of_range.tolist() == [2, 2]
    assert features.missing.tolist() == [1, 1]


def test_no_candidates_make_no_rows() -> None:
    """An empty list has a matrix of no rows and all columns, from every source."""
    features = made(
        candidates([]),
        {"source": "mix", "value": "backends"},
        {"source": "text", "fields": ["title"], "measure": "weighted_coverage"},
        {"source": "number_in_query", "field": "year"},
        {"source": "query", "value": "words"},
        {"source": "backend", "backend": "a", "value": "rank"},
        {"source": "first", "field": "title"},
        {"source": "number", "field": "year", "relative": True},
        {"source": "query", "value": "chars", "relative": True},
        {"source": "text", "fields": ["title"], "measure": "letters"},
    )
    assert features.matrix.shape == (0, 9)
    assert features.missing.tolist() == [0] * 9


def test_a_mix_without_features_makes_none() -> None:
    """No declared feature: one row a candidate, no column."""
    assert made(candidates([1, 2])).matrix.shape == (2, 0)


def test_defaults_do_not_reach_the_candidates() -> None:
    """The stage is pure: filling in a default changes no column that came in."""
    found = candidates([1], numbers={"year": [NAN]})
    made(found, {"source": "number", "field": "year", "default": 0.0})
    assert np.isnan(found.numbers["year"]).all()


def test_float32_truth_is_not_lost() -> None:
    """Columns are float64: a number that float32 cannot hold goes through unchanged."""
    found = candidates([1], numbers={"n": [16_777_217.0]})
    assert made(found, {"source": "number", "field": "n"}).matrix.dtype == np.float64
    assert column(found, source="number", field="n") == [16_777_217]
