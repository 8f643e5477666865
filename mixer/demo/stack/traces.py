"""Traces as Jaeger's query API tells them."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from mixer.demo.collector import SpanSeen

_TIMEOUT_S = 10.0


def find(
    jaeger: str, tags: Mapping[str, str], service: str = "mixer", limit: int = 1500
) -> list[list[SpanSeen]]:
    """The newest traces in which one span of the service has all these tags. Raises: OSError."""
    asked = urlencode({"service": service, "tags": json.dumps(dict(tags)), "limit": limit})
    return [_spans(trace) for trace in answer(f"{jaeger}/api/traces?{asked}")["data"]]


def answer(url: str) -> Any:
    """What an HTTP API says, as JSON. Raises: OSError."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as said:  # noqa: S310
        return json.load(said)


def _spans(trace: Mapping[str, Any]) -> list[SpanSeen]:
    services = {key: process["serviceName"] for key, process in trace["processes"].items()}
    return [_span(span, services[span["processID"]]) for span in trace["spans"]]


def _span(span: Mapping[str, Any], service: str) -> SpanSeen:
    told = {tag["key"]: tag["value"] for tag in span["tags"]}
    parents = [reference["spanID"] for reference in span["references"] if reference["refType"] == "CHILD_OF"]
    began_ns = 1000 * span["startTime"]
    return SpanSeen(
        id=bytes.fromhex(span["spanID"]),
        parent=bytes.fromhex(parents[0]) if parents else b"",
        name=span["operationName"],
        service=service,
        start_ns=began_ns,
        end_ns=began_ns + 1000 * span["duration"],
        failed=told.get("otel.status_code") == "ERROR",
        attributes=told,
    )
