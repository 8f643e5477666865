"""Protobuf to values and back, pure: no sockets, no clock."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from backends.base import Equals, Filter, FloatColumn, Hits, Index, Query, Range, Terms
from protos.backends.v1 import backend_pb2 as pb
from protos.backends.v1.packed_pb2 import PackedResponse

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class _Decoded(Hits):
    """Hits that protobuf decoded: what it calls a string is one."""

    joined: FloatColumn | None = None
    """Where `scores` and `numbers` are views of one array: that."""

    def columns(self) -> FloatColumn:
        """See `Hits`."""
        return Hits.columns(self) if self.joined is None else self.joined

    def _are_texts(self) -> bool:
        return True


class Malformed(ValueError):
    """A message that means nothing; `field` is the path of the culprit, such as `filters[2].range`."""

    def __init__(self, field: str, reason: str) -> None:
        """The message is `field: reason`."""
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


def to_request(query: Query) -> pb.RetrieveRequest:
    """A query as a message; a limit that fits no int32 becomes the nearest that does.

    Raises: UnicodeEncodeError where a text holds half a surrogate pair.
    """
    return pb.RetrieveRequest(
        query=query.text,
        limit=max(0, min(query.limit, _INT32_MAX)),
        filters=[_to_filter(condition) for condition in query.filters],
        fields=query.fields,
    )


def from_request(message: pb.RetrieveRequest) -> Query:
    """A message as a query. Raises: Malformed, a ValueError naming the field."""
    return Query(
        text=message.query,
        limit=message.limit,
        filters=tuple(_from_filter(item, f"filters[{i}]") for i, item in enumerate(message.filters)),
        fields=tuple(message.fields),
    )


def to_response(hits: Hits) -> pb.RetrieveResponse:
    """Hits as a message."""
    index = hits.index
    return pb.RetrieveResponse(
        ids=hits.ids,
        scores=hits.scores.tolist(),
        numbers=[pb.NumberColumn(name=name, values=column.tolist()) for name, column in hits.numbers.items()],
        texts=[pb.TextColumn(name=name, values=column) for name, column in hits.texts.items()],
        index=pb.Index(version=index.version, fresh_at=_to_timestamp(index.fresh_at_s), schema=index.schema),
        server_version=index.server_version,
    )


def from_response(data: bytes) -> Hits:
    """A RetrieveResponse as hits, unchecked but for what columns by name cannot hold.

    Raises: DecodeError; Malformed.
    """
    message = PackedResponse.FromString(data)
    named = [(column.name, column.values) for column in message.numbers]
    columns = [message.scores, *[values for _, values in named]]
    if {len(column) for column in columns} != {8 * len(message.ids)}:
        return _from_unpacked(pb.RetrieveResponse.FromString(data))
    names = [name for name, _ in named]
    texts = {column.name: list(column.values) for column in message.texts}
    if len({*names, *texts}) != len(names) + len(message.texts):
        raise _TWICE
    ids = list(message.ids)
    joined = np.frombuffer(b"".join(columns), "<f8")
    numbers = joined.reshape(len(columns), len(ids))
    index = _index(message.index, message.server_version)
    return _Decoded(ids, numbers[0], dict(zip(names, numbers[1:], strict=True)), texts, index, joined)


def _from_unpacked(message: pb.RetrieveResponse) -> Hits:
    """What another writer may send: values one by one or in pieces, and columns that do not fit."""
    numbers = {column.name: np.array(column.values, dtype=np.float64) for column in message.numbers}
    texts = {column.name: list(column.values) for column in message.texts}
    if len({*numbers, *texts}) != len(message.numbers) + len(message.texts):
        raise _TWICE
    index = _index(message.index.SerializeToString(), message.server_version)
    return _Decoded(list(message.ids), np.array(message.scores, dtype=np.float64), numbers, texts, index)


_TWICE = Malformed("numbers, texts", "two columns have one name")


def _to_filter(item: Filter) -> pb.Filter:
    match item.condition:
        case Equals(value):
            return pb.Filter(field=item.field, equals=_to_value(value))
        case Range(low, high):
            return pb.Filter(field=item.field, range=pb.Range(min=low, max=high))
        case Terms(values):
            return pb.Filter(field=item.field, terms=pb.Terms(values=[_to_value(value) for value in values]))


def _to_value(value: str | float) -> pb.Value:
    return pb.Value(text=value) if isinstance(value, str) else pb.Value(number=value)


def _from_filter(message: pb.Filter, path: str) -> Filter:
    if not message.field:
        raise Malformed(f"{path}.field", "is empty")
    match message.WhichOneof("condition"):
        case "equals":
            return Filter(message.field, Equals(_from_value(message.equals, f"{path}.equals")))
        case "range":
            return Filter(message.field, _from_range(message.range, f"{path}.range"))
        case "terms":
            values = enumerate(message.terms.values)
            terms = tuple(_from_value(value, f"{path}.terms.values[{i}]") for i, value in values)
            return Filter(message.field, Terms(terms))
        case _:
            raise Malformed(path, "has no condition")


def _from_value(message: pb.Value, path: str) -> str | float:
    match message.WhichOneof("kind"):
        case "text":
            return message.text
        case "number" if not math.isnan(message.number):
            return message.number
        case "number":
            raise Malformed(f"{path}.number", "is not a number")
        case _:
            raise Malformed(path, "is neither text nor number")


def _from_range(message: pb.Range, path: str) -> Range:
    low = message.min if message.HasField("min") else None
    high = message.max if message.HasField("max") else None
    for name, end in (("min", low), ("max", high)):
        if end is not None and math.isnan(end):
            raise Malformed(f"{path}.{name}", "is not a number")
    return Range(low, high)


def _to_timestamp(time_s: float) -> Timestamp | None:
    if not time_s > 0:
        return None
    whole_s = math.floor(time_s)
    carried_s, nanos = divmod(round((time_s - whole_s) * 1e9), 1_000_000_000)
    return Timestamp(seconds=whole_s + carried_s, nanos=nanos)


@lru_cache(256)
def _index(data: bytes, server_version: str) -> Index:
    """Raises: DecodeError."""
    message = pb.Index.FromString(data)
    fresh_at = message.fresh_at
    return Index(message.version, fresh_at.seconds + fresh_at.nanos / 1e9, server_version, message.schema)
