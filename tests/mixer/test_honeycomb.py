"""Traces go to Honeycomb by an endpoint and a header, here to a receiver that refuses the wrong key as it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mixer import model
from mixer.client import SearchResult
from mixer.metrics import Metrics
from tests import forest
from tests.doubles import collectors, engines, mixers
from tests.doubles.collectors import Collector
from tests.doubles.mixers import ROOT

KEY = "hcaik_01"
MIX = {
    "model": "m",
    "features": [feature.model_dump() for feature in forest.FEATURES],
    "slices": [{"name": "length", "by": "query_length", "bounds": [1]}],
}
PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])


@asynccontextmanager
async def honeycomb(protocol: str) -> AsyncIterator[Collector]:
    if protocol == "grpc":
        async with collectors.over_grpc(key=KEY) as collector:
            yield collector
    else:
        with collectors.over_http(KEY) as collector:
            yield collector


async def searched(
    collector: Collector, protocol: str, key: str, folder: Path, patch: pytest.MonkeyPatch
) -> tuple[SearchResult, Metrics]:
    """What a Mixer answers that was started with these variables and no other setting, and its metrics."""
    patch.setattr(model, "_test_load", lambda folder, manifest: None)
    patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    patch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-honeycomb-team={key}")
    backends = {"a": engines.memory(), "b": engines.memory()}
    made = mixers.settings(dict.fromkeys(backends, MEMORY), MIX, models={"m": {"path": folder}})
    metrics = Metrics()
    with mixers.exporting(metrics) as exporter:
        async with mixers.running(made, backends, metrics=metrics) as mixer:
            result = await mixer.search("csv file", context={"plan": "paid"})
        await asyncio.to_thread(exporter.shutdown)
    return result, metrics


MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


def dropped(metrics: Metrics, reason: str) -> float:
    return metrics.registry.get_sample_value("mixer_spans_dropped_total", {"reason": reason}) or 0.0


def told(span: Span) -> dict[str, Any]:
    """Attributes that are one value each."""
    pairs = ((pair.key, pair.value.WhichOneof("value"), pair.value) for pair in span.attributes)
    return {key: getattr(value, str(kind)) for key, kind, value in pairs if kind != "array_value"}


@PROTOCOLS
async def test_the_right_key_brings_one_wide_span(
    protocol: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root span alone answers most questions: who answered, how each backend ended, by which model, how long."""
    async with honeycomb(protocol) as collector:
        result, metrics = await searched(collector, protocol, KEY, model_folder, monkeypatch)
    (root,) = (span for span in collector.spans if span.name == ROOT)
    facts = told(root)
    assert root.trace_id.hex() == result.trace_id
    assert result.model is not None
    assert facts["mixer.model.version"] == result.model.version
    assert facts["mixer.degraded"] is False
    assert facts["mixer.slice.length"] == "2+"
    for name in ("a", "b"):
        assert facts[f"mixer.backend.{name}.outcome"] == "ok"
        assert {f"mixer.backend.{name}.hits", f"mixer.backend.{name}.elapsed_ms"} <= facts.keys()
    assert len(facts) >= 28
    # What is left is a list of one kind, which Honeycomb keeps as text.
    assert {pair.key for pair in root.attributes} - facts.keys() <= {"mixer.degraded_reasons"}
    assert (collector.refused, dropped(metrics, "export_failed")) == (0, 0)


@PROTOCOLS
async def test_the_wrong_key_costs_counted_spans(
    protocol: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans that Honeycomb refuses are counted as dropped; the answer is whole."""
    async with honeycomb(protocol) as collector:
        result, metrics = await searched(collector, protocol, "other", model_folder, monkeypatch)
    assert collector.messages == []
    assert collector.refused > 0
    assert len(result.hits) > 0
    assert result.degraded is False
    assert dropped(metrics, "export_failed") == 9
