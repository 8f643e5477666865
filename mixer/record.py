"""What is told of one call while it runs: facts for its root span and log line, and its steps for the trace.

Steps are plain notes that become spans when the call has ended. A call that is not traced notes none.
"""

from __future__ import annotations

import random
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from time import time_ns
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context, attach
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind


@dataclass(slots=True)
class Step:
    """A part of a call: a stage, or one backend's part. Times are Unix time."""

    name: str
    kind: SpanKind
    id: int
    parent_id: int
    began_ns: int = field(default_factory=time_ns)
    ended_ns: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    error: str = ""


class Record:
    """The record of one call; `heard` is false where neither a span nor a log line will tell its facts."""

    __slots__ = ("context", "exemplar", "facts", "heard", "inside_id", "steps", "trace_id")

    def __init__(self, root: Span = trace.INVALID_SPAN, logged: bool = False) -> None:
        """Takes the call's own span, and whether the call ends in a log line."""
        self.context = root.get_span_context()
        self.inside_id = self.context.span_id
        """The step within which others begin now."""
        self.facts: dict[str, Any] = {}
        self.steps: list[Step] | None = [] if root.is_recording() else None
        self.heard = logged or self.steps is not None
        sampled = self.context.is_valid and self.context.trace_flags.sampled
        self.trace_id = trace.format_trace_id(self.context.trace_id) if sampled else ""
        """32 hex digits; empty where the call is not sampled."""
        self.exemplar = {"trace_id": self.trace_id} if sampled else None

    def begin(self, name: str, kind: SpanKind = SpanKind.INTERNAL) -> Step | None:
        """A step that begins now, noted when it ends; none where the call is not traced."""
        if self.steps is None:
            return None
        return Step(name, kind, random.getrandbits(64) or 1, self.inside_id)

    def end(self, step: Step, error: str = "") -> None:
        """The step ended now; what went wrong in it, as one word, makes it an error."""
        step.ended_ns, step.error = time_ns(), error
        if self.steps is not None:
            self.steps.append(step)

    def enter(self, step: Step) -> Token[Context]:
        """From here on spans of this process hang below the step; returns what OpenTelemetry's `detach` takes."""
        return attach(trace.set_span_in_context(NonRecordingSpan(self.context_of(step.id))))

    def context_of(self, id_: int) -> SpanContext:
        """What the step of this id is called in other processes."""
        context = self.context
        return SpanContext(context.trace_id, id_, False, context.trace_flags, context.trace_state)


_current: ContextVar[Record] = ContextVar("record")


def current() -> Record:
    """The record of the call that runs here; outside of any, one that nobody reads."""
    return _current.get(None) or Record()


def open_record(record: Record) -> Any:
    """From here on the call's record is this one; returns what `close_record` takes."""
    return _current.set(record)


def close_record(token: Any) -> None:
    """The call ended."""
    _current.reset(token)
