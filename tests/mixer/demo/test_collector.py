from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from io import StringIO
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from rich.console import Console

from mixer.demo.collector import Collector, SpanSeen, tree

TRACE = bytes(range(16))
MS = 1_000_000
_VALUES = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}


def value(given: Any) -> AnyValue:
    if isinstance(given, list):
        return AnyValue(array_value=ArrayValue(values=map(value, given)))
    return AnyValue(**{_VALUES[type(given)]: given})


def span(
    id_: int,
    parent: int,
    name: str,
    start_ms: float = 0,
    end_ms: float = 1,
    failed: bool = False,
    **said: Any,
) -> Span:
    return Span(
        trace_id=TRACE,
        span_id=id_.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        start_time_unix_nano=int(start_ms * MS),
        end_time_unix_nano=int(end_ms * MS),
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET),
        attributes=[KeyValue(key=f"mixer.{key}", value=value(item)) for key, item in said.items()],
    )


def message(service: str, *spans: Span) -> pb.ExportTraceServiceRequest:
    resource = Resource(attributes=[KeyValue(key="service.name", value=value(service))])
    scoped = ScopeSpans(spans=spans)
    return pb.ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[scoped])]
    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


def export(collector: Collector, *messages: pb.ExportTraceServiceRequest) -> None:
    """As an exporter would that reads its environment."""
    target = collector.environment["OTEL_EXPORTER_OTLP_ENDPOINT"].removeprefix("http://")
    with grpc.insecure_channel(target) as channel:
        stub = rpc.TraceServiceStub(channel)
        for item in messages:
            stub.Export(item, timeout=10)


def seen(collector: Collector, spans: int, timeout_s: float = 10) -> list[SpanSeen]:
    return collector.trace(TRACE.hex(), "root", spans, timeout_s)


def lines(spans: list[SpanSeen]) -> list[str]:
    """The tree as a terminal shows it."""
    out = StringIO()
    Console(file=out, width=200).print(tree(spans))
    return out.getvalue().splitlines()


def depth(line: str) -> int:
    """How deep a line stands in the tree."""
    return len(line) - len(line.lstrip("│├└─ ")) - (8 - len(line.split(" ms")[0].split()[-1]))


def test_spans_of_two_processes_nest(collector: Collector) -> None:
    """Spans stand under their parent whichever process sent them, and in whatever order they came."""
    export(
        collector,
        message("lexical", span(3, 2, "retrieve", 4, 8)),
        message("mixer", span(2, 1, "ask", 3, 9), span(1, 0, "root", 0, 12), span(4, 1, "rank", 10, 11)),
    )
    spans = seen(collector, 4)
    assert {item.name: item.service for item in spans}["retrieve"] == "lexical"
    drawn = lines(spans)
    assert [line.split(" ms  ")[1].split("  ")[0] for line in drawn[1:]] == [
        "root",
        "ask",
        "retrieve",
        "rank",
    ]
    root, ask, retrieve, rank = map(depth, drawn[1:])
    assert root < ask < retrieve
    assert ask == rank


def test_times(collector: Collector) -> None:
    """A line says how long the span took, and when it began after the first of the trace."""
    export(collector, message("mixer", span(1, 0, "root", 1000, 1012.345), span(2, 1, "rank", 1003.5, 1004)))
    _, root, rank = lines(seen(collector, 2))
    assert "12.35 ms  root  +0.00 ms  mixer" in root or "12.34 ms  root  +0.00 ms  mixer" in root
    assert "0.50 ms  rank  +3.50 ms  mixer" in rank


def test_children_stand_as_they_began(collector: Collector) -> None:
    """Spans of one parent are in the order of their start, not of their arrival."""
    spans = [span(number, 1, f"s{number}", start_ms=10 - number) for number in range(2, 8)]
    export(collector, message("mixer", span(1, 0, "root"), *spans))
    drawn = "\n".join(lines(seen(collector, 7)))
    assert [drawn.index(f"s{number}") for number in range(2, 8)] == sorted(
        (drawn.index(f"s{number}") for number in range(2, 8)), reverse=True
    )


def test_orphans_are_shown_at_the_root(collector: Collector) -> None:
    """A span whose parent never came stands beside the root with all that is under it; none is lost."""
    export(collector, message("mixer", span(1, 0, "root"), span(3, 99, "orphan", 5), span(4, 3, "child", 6)))
    _, root, orphan, child = lines(seen(collector, 3))
    assert ("root" in root, "orphan" in orphan, "child" in child) == (True, True, True)
    assert depth(root) == depth(orphan) < depth(child)


def test_failed_spans_are_red(collector: Collector) -> None:
    """A span that failed has its time in red, every other in cyan."""
    export(collector, message("mixer", span(1, 0, "root"), span(2, 1, "ask", failed=True)))
    out = StringIO()
    Console(file=out, width=200, force_terminal=True, color_system="standard").print(tree(seen(collector, 2)))
    _, root, ask = out.getvalue().splitlines()
    assert "\x1b[36m    1.00 ms" in root
    assert "\x1b[31m    1.00 ms" in ask


def test_what_spans_say(collector: Collector) -> None:
    """Of the attributes those that a person looks for are shown; false and 0 are said too, markup is only text."""
    export(
        collector,
        message(
            "mixer",
            span(1, 0, "root", degraded=False, candidates=0, ranker="[bold]", secret="x", hits=[1, 2]),
        ),
    )
    (root,) = seen(collector, 1)
    assert root.attributes == {
        "mixer.degraded": False,
        "mixer.candidates": 0,
        "mixer.ranker": "[bold]",
        "mixer.secret": "x",
        "mixer.hits": [1, 2],
    }
    line = lines([root])[1]
    assert line.rstrip().endswith("degraded=False candidates=0 ranker=[bold] hits=[1, 2]")


def test_nothing_came() -> None:
    """A trace without spans is a tree without branches."""
    assert [line.strip() for line in lines([])] == ["trace"]


def test_it_waits_for_the_whole_trace(collector: Collector) -> None:
    """The spans are given once the root and so many in all are in, though they come late and apart."""
    root, rank = message("mixer", span(1, 0, "root")), message("mixer", span(2, 1, "rank"))

    def send() -> None:
        export(collector, rank)
        time.sleep(0.2)
        export(collector, root)

    sending = threading.Thread(target=send)
    sending.start()
    assert {item.name for item in seen(collector, 2)} == {"root", "rank"}
    sending.join()


def test_it_does_not_wait_for_ever(collector: Collector) -> None:
    """What came within the time is given, also where spans or the root are missing; other traces do not count."""
    export(collector, message("mixer", span(2, 1, "rank")))
    assert [item.name for item in seen(collector, 1, timeout_s=0.15)] == ["rank"]
    assert collector.trace("0" * 32, "root", 1, timeout_s=0.05) == []


def test_it_stops(collector: Collector) -> None:
    """After its stop nothing listens."""
    collector.stop()
    with pytest.raises(grpc.RpcError):
        export(collector, message("mixer", span(1, 0, "root")))
