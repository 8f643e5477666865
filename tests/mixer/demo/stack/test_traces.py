from __future__ import annotations

from typing import Any

import pytest

from mixer.demo.stack import traces

TRACE: dict[str, Any] = {
    "processes": {"p1": {"serviceName": "mixer"}, "p2": {"serviceName": "lexical"}},
    "spans": [
        {
            "spanID": "0a0b",
            "operationName": "Search",
            "references": [],
            "startTime": 5,
            "duration": 7,
            "processID": "p1",
            "tags": [{"key": "mixer.degraded", "type": "bool", "value": True}],
        },
        {
            "spanID": "0c0d",
            "operationName": "Retrieve",
            "references": [{"refType": "CHILD_OF", "spanID": "0a0b"}],
            "startTime": 6,
            "duration": 1,
            "processID": "p2",
            "tags": [{"key": "otel.status_code", "type": "string", "value": "ERROR"}],
        },
    ],
}


def test_jaeger_s_words_become_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace is its spans with parent, process, times in nanoseconds, and whether they failed."""
    asked: list[str] = []

    def answer(url: str) -> dict[str, Any]:
        asked.append(url)
        return {"data": [TRACE]}

    monkeypatch.setattr(traces, "answer", answer)
    ((root, child),) = traces.find("http://jaeger", {"mixer.degraded": "true"}, limit=3)
    assert asked == [
        "http://jaeger/api/traces?service=mixer&tags=%7B%22mixer.degraded%22%3A+%22true%22%7D&limit=3"
    ]
    assert (root.id, root.parent, root.service, root.failed) == (b"\x0a\x0b", b"", "mixer", False)
    assert (root.start_ns, root.end_ns, root.attributes) == (5000, 12000, {"mixer.degraded": True})
    assert (child.parent, child.service, child.failed) == (root.id, "lexical", True)
