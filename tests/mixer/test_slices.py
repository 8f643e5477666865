from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mixer.settings import SettingsError, parse
from mixer.slices import Slice, Slices

ADAPTER: TypeAdapter[Slice] = TypeAdapter(Slice)
DECLARED: list[dict[str, Any]] = [
    {"name": "length", "by": "query_length", "bounds": [1, 3]},
    {"name": "tier", "by": "context", "key": "tier", "values": ["free", "paid", "3"]},
    {"name": "script", "by": "script"},
    {"name": "answered", "by": "backends"},
]


def slices(*declared: Mapping[str, Any]) -> Slices:
    return Slices([ADAPTER.validate_python(each) for each in declared or DECLARED], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("query", "part"), [("", "0-1"), ("csv", "0-1"), ("read csv", "2-3"), ("a b c", "2-3"), ("a b c d", "4+")]
)
def test_by_the_query_s_words(query: str, part: str) -> None:
    """A bound is the most words of its part."""
    assert slices().of(query, {})["length"] == part


def test_one_number_is_a_part_too() -> None:
    """A part of one length is called by it."""
    made = slices({"name": "length", "by": "query_length", "bounds": [1, 2]})
    assert made.of("a b", {}) == {"length": "2"}
    assert made.values == {"length": ("0-1", "2", "3+")}


@pytest.mark.parametrize(
    ("context", "value"),
    [({}, "none"), ({"tier": "paid"}, "paid"), ({"tier": "gold"}, "other"), ({"tier": 3.0}, "3")],
)
def test_by_what_the_caller_sent(context: dict[str, str | float], value: str) -> None:
    """Only declared values are told apart, whatever callers write."""
    assert slices().of("q", context)["tier"] == value


@pytest.mark.parametrize(
    ("query", "script"),
    [
        ("read csv", "latin"),
        ("чтение csv файла", "cyrillic"),
        ("東京タワー観光案内所", "cjk"),
        ("قراءة", "arabic"),
        ("42 !?", "none"),
        ("ᚠᚢᚦ", "other"),
    ],
)
def test_by_the_query_s_script(query: str, script: str) -> None:
    """The script of most letters; of a query without any, none."""
    assert slices().of(query, {})["script"] == script


@pytest.mark.parametrize(
    ("missing", "value"), [([], "all"), (["b"], "without_b"), (["a", "b"], "without_several")]
)
def test_by_who_answered(missing: list[str], value: str) -> None:
    """All backends, all but one, or fewer."""
    assert slices().of("q", {}, missing)["answered"] == value


@given(
    st.text(),
    st.dictionaries(st.just("tier"), st.text() | st.floats()),
    st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3),
)
def test_values_are_bounded(query: str, context: dict[str, str | float], missing: list[str]) -> None:
    """Whatever callers and backends do, a slice has one of the values that were known from the start."""
    made = slices()
    found = made.of(query, context, missing)
    assert found.keys() == made.values.keys()
    assert all(value in made.values[name] for name, value in found.items())


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "l", "by": "query_length", "bounds": [3, 1]},
        {"name": "l", "by": "query_length", "bounds": [0]},
        {"name": "l", "by": "query_length", "bounds": []},
        {"name": "Not a name", "by": "script"},
        {"name": "t", "by": "context", "key": "t", "values": []},
        {"name": "t", "by": "context", "key": "t", "values": [str(n) for n in range(33)]},
        {"name": "t", "by": "user"},
    ],
)
def test_what_is_not_bounded_is_a_fault(wrong: dict[str, Any]) -> None:
    """Bounds that do not rise, too many values, names that are no label, slices of no known kind."""
    with pytest.raises(ValidationError):
        ADAPTER.validate_python(wrong)


def test_two_slices_of_one_name_are_a_fault() -> None:
    """The file's line is named, as for every fault."""
    text = "\n".join(
        [
            "backends: {a: {kind: remote, target: x}}",
            "mixes:",
            "  default:",
            "    backends: {a: {}}",
            "    slices: [{name: s, by: script}, {name: s, by: backends}]",
        ]
    )
    with pytest.raises(SettingsError, match=r"settings:5: mixes.default.slices: 's' is declared twice"):
        parse(text)
