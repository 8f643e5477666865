"""What is told of a call to a database."""

import asyncio

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from backends import spans
from backends.base import BackendTimeout
from backends.spans import db_span

SECRET = "hunter2"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where the spans end up."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(spans, "tracer", provider.get_tracer("test"))
    return exporter


def inside(sampled: bool, span_id: int = 0xDEF) -> NonRecordingSpan:
    """What Mixer makes current while it asks a backend: a step by its id alone."""
    return NonRecordingSpan(SpanContext(0xABC, span_id, is_remote=False, trace_flags=TraceFlags(sampled)))


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_span_hangs_below_the_callers(told: InMemorySpanExporter) -> None:
    """It is a client's span by the conventions' names, child of the step that asks."""
    with trace.use_span(inside(True)), db_span("solr", "search", "books", "localhost", 8983) as own:
        assert trace.get_current_span() is own
    (span,) = told.get_finished_spans()
    assert (span.name, span.kind) == ("search books", SpanKind.CLIENT)
    assert span.parent is not None
    assert (span.parent.trace_id, span.parent.span_id) == (0xABC, 0xDEF)
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span) == {
        "db.system.name": "solr",
        "db.operation.name": "search",
        "db.collection.name": "books",
        "server.address": "localhost",
        "server.port": 8983,
    }


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BackendTimeout(SECRET), "timeout"),
        (KeyError(SECRET), "KeyError"),
        (asyncio.CancelledError(SECRET), "cancelled"),
    ],
)
def test_failure_is_named_without_its_words(
    told: InMemorySpanExporter, error: BaseException, kind: str
) -> None:
    """An error is told by its kind; its words may be the user's, and are not."""
    with pytest.raises(type(error)), trace.use_span(inside(True)), db_span("solr", "search", "b", "h"):
        raise error
    (span,) = told.get_finished_spans()
    assert attributes(span)["error.type"] == kind
    assert "server.port" not in attributes(span)
    assert span.status.status_code is StatusCode.ERROR
    assert SECRET not in span.to_json()


@pytest.mark.parametrize("current", [inside(False), trace.INVALID_SPAN])
def test_untraced_call_begins_no_trace(told: InMemorySpanExporter, current: trace.Span) -> None:
    """Where the caller is not sampled, or there is none, no span is made."""
    with trace.use_span(current), db_span("solr", "search", "books", "localhost") as span:
        assert not span.is_recording()
    assert told.get_finished_spans() == ()
