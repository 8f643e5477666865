"""What is noted of a call while it runs."""

from __future__ import annotations

import asyncio

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from mixer.record import Record, close_record, current, open_record


def traced() -> Record:
    return Record(TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("root"))


def test_a_call_that_is_not_traced_notes_no_steps() -> None:
    """Neither without a provider nor where the sampler says no; nobody hears its facts unless they are logged."""
    unsampled = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).get_tracer("test").start_span("root")
    for record in (Record(), Record(unsampled)):
        assert record.begin("plan") is None
        assert (record.steps, record.heard, record.exemplar, record.trace_id) == (None, False, None, "")
    assert Record(logged=True).heard


def test_steps_are_noted_when_they_end() -> None:
    """With their times, their parent, and what went wrong."""
    record = traced()
    step = record.begin("plan")
    assert step is not None
    assert record.steps == []
    record.end(step, "timeout")
    assert record.steps == [step]
    assert (step.parent_id, step.error) == (record.context.span_id, "timeout")
    assert step.ended_ns >= step.began_ns > 0


def test_a_step_within_a_step_hangs_below_it() -> None:
    """And other processes learn the step's own id, in the call's trace."""
    record = traced()
    outer = record.begin("fan_out")
    assert outer is not None
    record.inside_id = outer.id
    inner = record.begin("retrieve a")
    assert inner is not None
    assert inner.parent_id == outer.id != inner.id
    context = record.context_of(inner.id)
    assert (context.trace_id, context.span_id) == (record.context.trace_id, inner.id)
    assert context.trace_flags.sampled


def test_an_exemplar_is_of_a_sampled_trace() -> None:
    """In a trace that is not sampled there is none: it would lead nowhere."""
    for sampled in (False, True):
        flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
        record = Record(NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=flags)))
        assert record.exemplar == ({"trace_id": f"{0xABC:032x}"} if sampled else None)


async def test_every_call_has_its_own_record() -> None:
    """Calls that run at once do not see each other's; outside of any there is one that nobody reads."""

    async def call() -> bool:
        record = Record()
        token = open_record(record)
        await asyncio.sleep(0)
        own = current() is record
        close_record(token)
        return own and current() is not record

    assert await asyncio.gather(*(call() for _ in range(3))) == [True] * 3
    assert current() is not current()
    assert trace.get_current_span() is trace.INVALID_SPAN
