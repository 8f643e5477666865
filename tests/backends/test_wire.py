"""Protobuf to values and back."""

import struct
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import wire
from backends.base import Equals, Filter, Hits, Index, Query, Range, Terms
from protos.backends.v1 import backend_pb2 as pb

texts = st.text(st.characters(codec="utf-8"), max_size=20)
names = texts.filter(bool)
numbers = st.floats(allow_nan=False)
values = texts | numbers
conditions = (
    values.map(Equals)
    | st.builds(Range, st.none() | numbers, st.none() | numbers)
    | st.lists(values, max_size=4).map(tuple).map(Terms)
)
filters = st.lists(st.builds(Filter, names, conditions), max_size=4).map(tuple)
queries = st.builds(Query, texts, st.integers(0, 2**31 - 1), filters, st.lists(texts, max_size=4).map(tuple))
times = st.just(0.0) | st.floats(1e9, 1e10)


@st.composite
def answers(draw: st.DrawFn) -> Hits:
    """Columns of one length under unique names, any float among them."""
    n = draw(st.integers(0, 5))
    floats = st.lists(st.floats(), min_size=n, max_size=n).map(lambda xs: np.array(xs, dtype=np.float64))
    strings = st.lists(texts, min_size=n, max_size=n)
    columns = draw(st.lists(names, unique=True, max_size=6))
    return Hits(
        ids=draw(strings),
        scores=draw(floats),
        numbers={name: draw(floats) for name in columns[::2]},
        texts={name: draw(strings) for name in columns[1::2]},
        index=Index(draw(texts), draw(times), draw(texts), draw(texts)),
    )


@given(queries)
def test_query_survives(query: Query) -> None:
    """A query is the same after the wire."""
    packed = wire.to_request(query).SerializeToString()
    assert wire.from_request(pb.RetrieveRequest.FromString(packed)) == query


@given(answers())
def test_hits_survive(hits: Hits) -> None:
    """Hits are the same after the wire, bit for bit, NaN and infinities too."""
    packed = wire.to_response(hits).SerializeToString()
    assert_same(wire.from_response(packed), hits)


def assert_same(back: Hits, hits: Hits) -> None:
    assert (back.ids, back.texts, back.index) == (hits.ids, hits.texts, hits.index)
    assert back.numbers.keys() == hits.numbers.keys()
    for ours, theirs in (
        (hits.scores, back.scores),
        *((hits.numbers[n], back.numbers[n]) for n in hits.numbers),
    ):
        assert theirs.dtype == np.float64
        assert ours.tobytes() == theirs.tobytes()


def one_by_one(column: Iterable[float], field: int) -> bytes:
    """Values as a writer may send them that does not pack."""
    return b"".join(bytes([field << 3 | 1]) + struct.pack("<d", value) for value in column)


def in_pieces(column: Iterable[float], field: int) -> bytes:
    """Values as a writer may send them that packs them one at a time."""
    return b"".join(bytes([field << 3 | 2, 8]) + struct.pack("<d", value) for value in column)


@pytest.mark.parametrize("written", [one_by_one, in_pieces])
@given(answers())
def test_every_way_to_write_numbers_is_read(
    written: Callable[[Iterable[float], int], bytes], hits: Hits
) -> None:
    """Values that are not packed, or packed in pieces, are the same hits."""
    message = wire.to_response(hits)
    del message.scores[:], message.numbers[:]
    data = written(hits.scores, 2) + message.SerializeToString()
    for name, column in hits.numbers.items():
        body = pb.NumberColumn(name=name).SerializeToString() + written(column, 2)
        data += b"\x1a" + bytes([len(body)]) + body
    assert_same(wire.from_response(data), hits)


@given(answers(), st.integers(0, 5))
def test_columns_that_do_not_fit_are_kept_for_the_check(hits: Hits, size: int) -> None:
    """A column of another length is read as it is: `fault` says so, nothing is cut or filled."""
    message = wire.to_response(hits)
    message.numbers.add(name="another column", values=[1.0] * size)
    back = wire.from_response(message.SerializeToString())
    assert back.numbers["another column"].tolist() == [1.0] * size


@pytest.mark.parametrize(("limit", "sent"), [(-5, 0), (2**40, 2**31 - 1)])
def test_limit_fits(limit: int, sent: int) -> None:
    """A limit beyond an int32 is sent as the nearest one."""
    assert wire.to_request(Query("", limit)).limit == sent


@pytest.mark.parametrize(
    ("broken", "path"),
    [
        (pb.Filter(equals=pb.Value(text="x")), "filters[1].field"),
        (pb.Filter(field="f"), "filters[1]"),
        (pb.Filter(field="f", equals=pb.Value()), "filters[1].equals"),
        (pb.Filter(field="f", equals=pb.Value(number=float("nan"))), "filters[1].equals.number"),
        (pb.Filter(field="f", range=pb.Range(min=float("nan"))), "filters[1].range.min"),
        (pb.Filter(field="f", range=pb.Range(max=float("nan"))), "filters[1].range.max"),
        (
            pb.Filter(field="f", terms=pb.Terms(values=[pb.Value(text="x"), pb.Value()])),
            "filters[1].terms.values[1]",
        ),
    ],
)
def test_malformed_filter_is_named(broken: pb.Filter, path: str) -> None:
    """A filter that means nothing is a ValueError with the path of the culprit."""
    fine = pb.Filter(field="f", equals=pb.Value(text="x"))
    with pytest.raises(wire.Malformed) as caught:
        wire.from_request(pb.RetrieveRequest(filters=[fine, broken]))
    assert isinstance(caught.value, ValueError)
    assert caught.value.field == path
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "message",
    [
        pb.RetrieveResponse(numbers=[pb.NumberColumn(name="a"), pb.NumberColumn(name="a")]),
        pb.RetrieveResponse(numbers=[pb.NumberColumn(name="a")], texts=[pb.TextColumn(name="a")]),
    ],
)
def test_columns_of_one_name(message: pb.RetrieveResponse) -> None:
    """Two columns of one name are refused: one would hide the other."""
    with pytest.raises(wire.Malformed):
        wire.from_response(message.SerializeToString())
