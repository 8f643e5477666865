from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mixer.json_rows import json_rows
from mixer.logged import Conversion, Declared, Entry
from tests.samples import answer, request


def test_a_row_becomes_an_object() -> None:
    """Maps are objects, times are RFC 3339, missing values are null, lists of lists stay so."""
    convert = Conversion({"default": Declared("s", frozenset({"title", "year"}))}, str, inputs=True)
    asked = request(query_id="q", context={"plan": "free", "age": 3.0})
    rows = convert([Entry(answer(asked), "", 1_700_000_000_000_001), Entry(answer(), "", 0)])
    first, second = map(json.loads, json_rows(rows))
    assert first["time"] == "2023-11-14T22:13:20.000001Z"
    assert (first["context"], first["context_numbers"]) == ({"plan": "free", "age": "3.0"}, {"age": 3.0})
    assert (first["ids"], first["scores"]) == (["y", "x"], [0.75, 0.5])
    assert (first["features"], first["ranks"]) == ([[2.0, 4.0], [1.0, None]], [[2], [1]])
    assert (first["numbers"], first["texts"]) == ([[None, 1999.0]], [["", "the x"]])
    assert second["context"] == {}
    assert list(first) == rows.schema.names


@given(st.lists(st.lists(st.floats(allow_infinity=False), min_size=0, max_size=3), max_size=4))
def test_doubles_are_exact(lists: list[list[float]]) -> None:
    """What is read is what was written, to the bit; NaN is null. Lists of unlike lengths too."""
    schema = pa.schema([("v", pa.list_(pa.list_(pa.float64())))])
    [text] = json_rows(pa.RecordBatch.from_pydict({"v": [lists]}, schema))
    read = [[np.nan if value is None else value for value in row] for row in json.loads(text)["v"]]
    assert len(read) == len(lists)
    for row, expected in zip(read, lists, strict=True):
        np.testing.assert_array_equal(row, expected)
