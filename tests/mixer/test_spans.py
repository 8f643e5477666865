"""The spans of served calls, held against the SDK's own."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from mixer.spans import CallSpan, CallTracer

STATE = TraceState([("vendor", "1")])


class Marks(Sampler):
    """Records without sampling, and leaves a mark."""

    def should_sample(self, *_: object, **__: object) -> SamplingResult:
        return SamplingResult(Decision.RECORD_ONLY, {"mark": 1}, STATE)

    def get_description(self) -> str:
        return "marks"


def below(trace_id: int, sampled: bool) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    parent = SpanContext(trace_id, 7, is_remote=True, trace_flags=flags, trace_state=STATE)
    return trace.set_span_in_context(NonRecordingSpan(parent))


@pytest.mark.parametrize(
    "sampler",
    [ALWAYS_ON, ALWAYS_OFF, DEFAULT_ON, TraceIdRatioBased(0.5), ParentBased(TraceIdRatioBased(0.1)), Marks()],
    ids=lambda sampler: sampler.get_description(),
)
@pytest.mark.parametrize("parent", [None, below(1, True), below(1, False), below(2**128 - 1, True)])
def test_a_call_is_sampled_as_by_the_sdk(sampler: Sampler, parent: Context | None) -> None:
    """Flags, trace state, recording, the sampler's attributes and the parent are those of the SDK's span."""
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    ours = CallTracer(provider, lambda _: None).start_span("a", parent, SpanKind.SERVER)
    theirs = provider.get_tracer("other").start_span("a", parent, SpanKind.SERVER)
    mine, other = ours.get_span_context(), theirs.get_span_context()
    if parent is not None:
        assert mine.trace_id == other.trace_id
        assert (mine.trace_flags, mine.trace_state) == (other.trace_flags, other.trace_state)
    assert mine.is_valid
    assert mine.span_id != other.span_id
    assert ours.is_recording() == theirs.is_recording() or isinstance(
        sampler, ParentBased | TraceIdRatioBased
    )
    if isinstance(ours, CallSpan) and isinstance(theirs, ReadableSpan):
        assert (ours.parent, ours.kind, dict(ours.attributes or {})) == (
            theirs.parent,
            theirs.kind,
            dict(theirs.attributes or {}),
        )


def test_a_call_is_told_when_it_ends() -> None:
    """Once, with what was set on it; an exception by its class, not its words."""
    ended: list[ReadableSpan] = []
    provider = TracerProvider(shutdown_on_exit=False)
    span = CallTracer(provider, ended.append).start_span("a", attributes={"one": 1})
    assert isinstance(span, CallSpan)
    span.set_attribute("two", 2)
    span.set_attributes({"three": 3})
    span.set_status(StatusCode.ERROR, "why")
    span.update_name("b")
    span.add_event("happened", {"at": 1})
    span.record_exception(ValueError("secret"))
    assert span.is_recording()
    span.end()
    span.end()
    assert not span.is_recording()
    assert ended == [span]
    assert (span.name, span.attributes) == ("b", {"one": 1, "two": 2, "three": 3})
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "why")
    events: Sequence[object] = [(event.name, dict(event.attributes or {})) for event in span.events]
    assert events == [("happened", {"at": 1}), ("exception", {"exception.type": "ValueError"})]
    assert (span.end_time or 0) >= (span.start_time or 0) > 0


def test_a_call_s_span_can_be_current() -> None:
    """As any span of the API can, and ends with its block."""
    ended: list[ReadableSpan] = []
    tracer = CallTracer(TracerProvider(shutdown_on_exit=False), ended.append)
    with tracer.start_as_current_span("a") as span:
        assert trace.get_current_span() is span
    assert [ended_span.name for ended_span in ended] == ["a"]
