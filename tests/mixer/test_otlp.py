"""Spans as bytes, held against the standard encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from mixer import otlp
from mixer.record import Record, Step

WHOLE = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
SCALARS: list[st.SearchStrategy[Any]] = [TEXT, st.booleans(), WHOLE, st.floats(allow_nan=False)]
VALUES: st.SearchStrategy[Any] = st.one_of(*SCALARS, *(st.lists(kind, max_size=20) for kind in SCALARS)).map(
    lambda value: tuple(value) if isinstance(value, list) and len(value) % 2 else value
)


STATES = st.sampled_from([TraceState(), TraceState([("vendor", "1"), ("other", "x")])])
CONTEXTS = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.just(TraceFlags(TraceFlags.SAMPLED)),
    STATES,
)
STATUSES = st.one_of(
    st.just(Status()), st.just(Status(StatusCode.OK)), TEXT.map(lambda said: Status(StatusCode.ERROR, said))
)
SPANS: st.SearchStrategy[ReadableSpan] = st.builds(
    ReadableSpan,
    name=TEXT,
    context=CONTEXTS,
    parent=st.none() | CONTEXTS,
    attributes=st.dictionaries(TEXT, VALUES, max_size=8),
    kind=st.sampled_from(SpanKind),
    status=STATUSES,
    start_time=st.integers(0, 2**64 - 1),
    end_time=st.integers(0, 2**64 - 1),
)
CONTEXT = SpanContext(1, 2, is_remote=False)


def by_the_standard(span: ReadableSpan) -> Span:
    sent: Span = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0]
    return sent


def by_us(span: ReadableSpan) -> Span:
    field = otlp.span_field(span)
    assert field is not None
    (sent,) = ScopeSpans.FromString(field).spans
    return sent


@given(SPANS)
def test_bytes_are_what_the_standard_encoder_writes(span: ReadableSpan) -> None:
    """Ids, times, kind, status, flags; every attribute of every kind, arrays among them, in order."""
    assert by_us(span) == by_the_standard(span)


def test_not_a_number_is_written_too() -> None:
    """NaN, alone and in an array, keeps its bits."""
    attributes: dict[str, Any] = {"one": float("nan"), "many": (float("nan"), float("inf"), -0.0)}
    span = ReadableSpan("a", CONTEXT, attributes=attributes)
    assert by_us(span).SerializeToString() == by_the_standard(span).SerializeToString()


def test_a_column_is_written_like_a_tuple() -> None:
    """An array of numpy's floats, a view of others among them, is what its values are."""
    column = np.arange(12.0).reshape(4, 3)[:, 1]
    values: Any = column
    as_array = ReadableSpan("a", CONTEXT, attributes={"column": values})
    as_tuple = ReadableSpan("a", CONTEXT, attributes={"column": tuple(column.tolist())})
    assert otlp.span_field(as_array) == otlp.span_field(as_tuple)


@given(st.lists(st.floats(), max_size=20))
def test_a_gap_in_a_column_has_no_value(values: list[float]) -> None:
    """NaN in a column is a missing value: JSON, as which stores keep arrays, would lose the whole array by it."""
    column: Any = np.array(values)
    gaps: Any = tuple(None if value != value else value for value in values)
    as_array = ReadableSpan("a", CONTEXT, attributes={"column": column})
    assert by_us(as_array) == by_the_standard(ReadableSpan("a", CONTEXT, attributes={"column": gaps}))


@given(SPANS.filter(lambda span: span.status.status_code is not StatusCode.OK))
def test_a_step_is_written_like_its_span(span: ReadableSpan) -> None:
    """The same bytes for a step as for the span that it becomes elsewhere."""
    assert span.context
    record = Record(NonRecordingSpan(span.context))
    step = Step(
        span.name, span.kind, 7, 8, span.start_time or 0, span.end_time or 0, dict(span.attributes or {})
    )
    step.error = span.status.description or ""
    telling = {"error.type": step.error} if step.error else {}
    same = ReadableSpan(
        span.name,
        record.context_of(7),
        record.context_of(8),
        attributes={**(span.attributes or {}), **telling},
        kind=span.kind,
        status=Status(StatusCode.ERROR, step.error) if step.error else Status(),
        start_time=step.began_ns,
        end_time=step.ended_ns,
    )
    assert otlp.step_field(record, step) == otlp.span_field(same)


@pytest.mark.parametrize("value", [b"bytes", None, {"a": 1}, 2**63, "\ud800", [1, None], ["\ud800"]])
def test_a_span_with_other_values_is_left_to_others(value: Any) -> None:
    """A value of a kind that no attribute of ours has."""
    assert otlp.span_field(ReadableSpan("a", CONTEXT, attributes={"odd": value, "plain": 1})) is None


def test_a_span_with_more_is_left_to_others() -> None:
    """Events, links, attributes dropped at the limit; or no context at all."""
    full = BoundedAttributes(maxlen=1, attributes={"a": 1, "b": 2})
    for span in (
        ReadableSpan("a", CONTEXT, events=[Event("happened")]),
        ReadableSpan("a", CONTEXT, links=[Link(CONTEXT)]),
        ReadableSpan("a", CONTEXT, attributes=full),
        ReadableSpan("a"),
    ):
        assert otlp.span_field(span) is None
