"""Spans as OTLP bytes, many times faster than one message object a value.

OpenTelemetry protocol 1.x. common.proto: KeyValue {key = 1, value = 2}, AnyValue {string = 1, bool = 2, int = 3,
double = 4, array = 5}, ArrayValue {values = 1}. trace.proto: ScopeSpans {spans = 2}, Span {trace_id = 1, span_id = 2,
trace_state = 3, parent_span_id = 4, name = 5, kind = 6, start and end in ns = 7, 8, attributes = 9, status = 15,
flags = 16}, Status {message = 2, code = 3}.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from opentelemetry.trace import SpanContext, SpanKind, Status

from backends.base import FloatColumn
from mixer.record import Record, Step

_SPAN, _STATE, _NAME, _STATUS, _MESSAGE = b"\x12", b"\x1a", b"\x2a", b"\x7a", b"\x12"
_IDS, _PARENT = struct.Struct(">2s16s2sQ"), struct.Struct(">2sQ")
_KIND_AND_TIMES = struct.Struct("<cBcQcQ")
_FLAGS = {False: b"\x85\x01\x00\x01\x00\x00", True: b"\x85\x01\x00\x03\x00\x00"}
"""By whether the parent is in another process."""
_ATTRIBUTE, _KEY, _VALUE, _ELEMENT = b"\x4a", b"\x0a", b"\x12", b"\x0a"
_STRING, _BOOL, _INT, _DOUBLE, _ARRAY = b"\x0a", b"\x10", b"\x18", b"\x21", b"\x2a"
_DOUBLE_BYTES = struct.Struct("<d")
_DOUBLE_ELEMENT = np.dtype([("head", "S3"), ("value", "<f8")])
_SHORT = 64
"""Characters of a text that may be one of a few that come again and again."""


class Ended(Protocol):
    """What is read of a span."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def context(self) -> SpanContext | None: ...  # noqa: D102
    @property
    def parent(self) -> SpanContext | None: ...  # noqa: D102
    @property
    def kind(self) -> SpanKind: ...  # noqa: D102
    @property
    def status(self) -> Status: ...  # noqa: D102
    @property
    def start_time(self) -> int | None: ...  # noqa: D102
    @property
    def end_time(self) -> int | None: ...  # noqa: D102
    @property
    def attributes(self) -> Mapping[str, Any] | None: ...  # noqa: D102
    @property
    def events(self) -> Sequence[Any]: ...  # noqa: D102
    @property
    def links(self) -> Sequence[Any]: ...  # noqa: D102
    @property
    def dropped_attributes(self) -> int: ...  # noqa: D102


def span_field(span: Ended, facts: Mapping[str, Any] = MappingProxyType({})) -> bytes | None:
    """The span with more facts as a field of ScopeSpans; None where it holds what is not written, such as events."""
    context = span.context
    if context is None or span.events or span.links or span.dropped_attributes:
        return None
    parent_id, remote = (span.parent.span_id, span.parent.is_remote) if span.parent else (0, False)
    return _field(
        (context, context.span_id, parent_id),
        (span.name, span.kind, span.start_time or 0, span.end_time or 0),
        itertools.chain((span.attributes or {}).items(), facts.items()),
        (span.status.status_code.value, span.status.description),
        remote,
    )


def step_field(record: Record, step: Step) -> bytes | None:
    """The same of a step of a call."""
    error = (("error.type", step.error),) if step.error else ()
    return _field(
        (record.context, step.id, step.parent_id),
        (step.name, step.kind, step.began_ns, step.ended_ns),
        itertools.chain(step.attributes.items(), error),
        (2 if step.error else 0, step.error),
        False,
    )


def _field(
    ids: tuple[SpanContext, int, int],
    head: tuple[str, SpanKind, int, int],
    attributes: Iterable[tuple[str, Any]],
    status: tuple[int, str | None],
    remote: bool,
) -> bytes | None:
    """What `_ids`, `_head`, `_attribute` and `_status` write, and whether the parent is in another process."""
    try:
        written = [_attribute(key, value) for key, value in attributes]
        parts = [_ids(*ids), _head(*head), *written, _status(*status), _FLAGS[remote]]
    except (KeyError, UnicodeEncodeError, OverflowError):
        return None
    return _sized(_SPAN, b"".join(parts))


def _ids(context: SpanContext, own_id: int, parent_id: int) -> bytes:
    ids = _IDS.pack(b"\x0a\x10", context.trace_id.to_bytes(16, "big"), b"\x12\x08", own_id)
    if context.trace_state:
        ids += _sized(_STATE, ",".join(f"{k}={v}" for k, v in context.trace_state.items()).encode())
    return ids + _PARENT.pack(b"\x22\x08", parent_id) if parent_id else ids


def _head(name: str, kind: SpanKind, began_ns: int, ended_ns: int) -> bytes:
    # The protocol counts kinds from 1, the API from 0.
    times = _KIND_AND_TIMES.pack(b"\x30", kind.value + 1, b"\x39", began_ns, b"\x41", ended_ns)
    return _name(name) + times


@lru_cache(4096)
def _name(name: str) -> bytes:
    return _sized(_NAME, name.encode())


@lru_cache(1024)
def _status(code: int, description: str | None) -> bytes:
    said = _sized(_MESSAGE, description.encode()) if description else b""
    return _sized(_STATUS, said + (b"\x18" + _ONE_BYTE[code] if code else b""))


def _attribute(key: str, value: Any) -> bytes:
    """Raises: KeyError for a value of a kind that is not written here; UnicodeEncodeError; OverflowError."""
    kind = type(value)
    if kind is float:
        return _double_head(key) + _DOUBLE_BYTES.pack(value)
    if kind is np.ndarray:
        return _column_attribute(key, value)
    if kind is int or kind is bool or (kind is str and len(value) <= _SHORT):
        return _frequent_attribute(key, value)
    return _whole_attribute(key, _WRITERS[kind](value))


def _whole_attribute(key: str, any_value: bytes) -> bytes:
    return _sized(_ATTRIBUTE, _key(key) + _sized(_VALUE, any_value))


@lru_cache(8192, typed=True)
def _frequent_attribute(key: str, value: str | int) -> bytes:
    return _whole_attribute(key, _WRITERS[type(value)](value))


@lru_cache(4096)
def _double_head(key: str) -> bytes:
    """All of an attribute but its value, which has one length."""
    return _whole_attribute(key, _double(0.0))[: -_DOUBLE_BYTES.size]


def _column_attribute(key: str, values: FloatColumn) -> bytes:
    if math.isnan(np.minimum.reduce(values, initial=math.inf)):  # the cheapest way to ask whether any is
        return _whole_attribute(key, _sized(_ARRAY, _elements_with_gaps(values)))
    return _column_head(key, len(values)) + _elements(values)


def _elements_with_gaps(values: FloatColumn) -> bytes:
    """NaN, which is how a missing value is kept, has no value: stores keep arrays as JSON, which has no NaN."""
    elements = np.frombuffer(bytearray(_elements(values)), np.uint8).reshape(len(values), -1)
    missing, kept = np.isnan(values), np.ones(elements.shape, np.bool_)
    elements[missing, 1] = 0  # its length
    kept[missing, 2:] = False
    return elements[kept].tobytes()


def _double(value: float) -> bytes:
    return _DOUBLE + _DOUBLE_BYTES.pack(value)


@lru_cache(4096)
def _column_head(key: str, size: int) -> bytes:
    """All of an attribute but the elements of its column, which have one length."""
    elements = _elements(np.zeros(size))
    whole = _whole_attribute(key, _sized(_ARRAY, elements))
    return whole[: len(whole) - len(elements)]


@lru_cache(4096)
def _key(key: str) -> bytes:
    return _sized(_KEY, key.encode())


def _text(value: str) -> bytes:
    return _sized(_STRING, value.encode())


def _int(value: int) -> bytes:
    if not -(2**63) <= value < 2**63:
        raise OverflowError("beyond 64 bits")
    return _INT + _varint(value % 2**64)


def _array(values: Sequence[Any]) -> bytes:
    kinds = set(map(type, values))
    if kinds == {float}:
        return _column(np.array(values))
    element = _frequent_element if kinds in _FREQUENT else _any_element
    return _sized(_ARRAY, b"".join(map(element, values)))


def _column(values: FloatColumn) -> bytes:
    return _sized(_ARRAY, _elements(values))


def _elements(values: FloatColumn) -> bytes:
    elements = _empty_column(len(values)).copy()
    elements["value"] = values
    return elements.tobytes()


@lru_cache(256)
def _empty_column(size: int) -> NDArray[np.void]:
    elements = np.zeros(size, _DOUBLE_ELEMENT)
    elements["head"] = _ELEMENT + b"\x09" + _DOUBLE
    return elements


def _any_element(value: Any) -> bytes:
    return _sized(_ELEMENT, _WRITERS[type(value)](value))


@lru_cache(8192)
def _frequent_element(value: Any) -> bytes:
    return _any_element(value)


_FREQUENT = ({str}, {int})
"""Kinds of arrays whose elements come again: names, ids and ranks. In no other kind are two of them equal."""


def _sized(tag: bytes, body: bytes) -> bytes:
    return tag + _varint(len(body)) + body


@lru_cache(4096)
def _varint(value: int) -> bytes:
    digits = bytearray()
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


_ONE_BYTE = [bytes([value]) for value in range(128)]
_WRITERS: Mapping[type, Callable[[Any], bytes]] = {
    str: _text,
    bool: lambda value: _BOOL + _ONE_BYTE[value],
    int: _int,
    float: _double,
    list: _array,
    tuple: _array,
    np.ndarray: _column,
}
