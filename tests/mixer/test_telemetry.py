"""What Mixer says of a request, where it goes, and what never leaves."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import grpc.aio
import jwt
import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from backends import reloading
from backends.base import BackendError, Equals, Filter, Hits, Query
from backends.memory import Memory
from mixer import keys, model, telemetry
from mixer.caller import Scope
from mixer.client import AsyncMixerClient, MixerError, search_request
from mixer.metrics import Metrics
from mixer.rank import RankByFusion
from tests import forest
from tests.doubles import collectors, engines, mixers
from tests.doubles.collectors import Collector
from tests.doubles.engines import answering, columns
from tests.doubles.mixers import ROOT, Tracing

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
SERVED = "backends.v1.BackendService/Retrieve"
FEATURES = [feature.model_dump() for feature in forest.FEATURES]


@pytest.fixture(autouse=True)
async def nothing_hangs() -> AsyncIterator[None]:
    """Every test here ends."""
    async with asyncio.timeout(30):
        yield


@pytest.fixture
def traced() -> Iterator[Tracing]:
    with mixers.tracing() as kept:
        yield kept


@pytest.fixture
def quick_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is sound: spare the process that would find out."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)


def tree(span: ReadableSpan, spans: Any) -> tuple[str, list[Any]]:
    """A span's name and those below it, in the order in which they began."""
    assert span.context is not None
    below = [s for s in spans if s.parent is not None and s.parent.span_id == span.context.span_id]
    return span.name, [tree(child, spans) for child in sorted(below, key=lambda s: s.start_time or 0)]


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


async def test_one_trace_a_request(traced: Tracing) -> None:
    """A request is one trace: the server's span, a span a stage, a client span a backend, the backend's own."""
    async with (
        engines.healthy() as a,
        engines.healthy() as b,
        mixers.running(mixers.settings({"a": a, "b": b})) as mixer,
    ):
        result = await mixer.search("csv file")
    root = traced.one(ROOT)
    name, stages = tree(root, traced.spans)
    asked = dict(stages[1][1])
    assert (name, root.parent) == (ROOT, None)
    assert [stage for stage, _ in stages] == ["plan", "fan_out", "merge", "make_features", "rank", "arrange"]
    assert asked == {"retrieve a": [(SERVED, [])], "retrieve b": [(SERVED, [])]}
    assert all(not below for stage, below in stages if stage != "fan_out")
    assert {format(span.context.trace_id, "032x") for span in traced.spans if span.context} == {
        result.trace_id
    }
    assert len(traced.spans) == 11
    assert not traced.open


async def test_kinds_of_span(traced: Tracing) -> None:
    """Spans of served calls are SERVER, of asked backends CLIENT, of stages INTERNAL."""
    async with engines.healthy() as a, mixers.running(mixers.settings({"a": a})) as mixer:
        await mixer.search("csv file")
    kinds = {span.name: span.kind for span in traced.spans}
    served = {name for name, kind in kinds.items() if kind is SpanKind.SERVER}
    assert (served, kinds["retrieve a"]) == ({ROOT, SERVED}, SpanKind.CLIENT)
    assert kinds["rank"] is SpanKind.INTERNAL


async def test_trace_context_reaches_the_backend(traced: Tracing) -> None:
    """A backend gets the caller's trace in a W3C header, with the span that asks it as the parent."""
    async with (
        engines.engine(answering(columns(["1"]))) as raw,
        mixers.running(mixers.settings({"raw": raw.target})) as mixer,
    ):
        with traced.provider.get_tracer("caller").start_as_current_span("caller") as caller:
            await mixer.search("csv file")
    asking = traced.one("retrieve raw").context
    assert asking is not None
    assert asking.trace_id == caller.get_span_context().trace_id
    assert str(raw.metadata[0]["traceparent"])[:-1] == f"00-{asking.trace_id:032x}-{asking.span_id:016x}-0"
    assert asking.trace_flags.sampled


async def test_attributes_are_native(traced: Tracing, model_folder: Path, quick_load: None) -> None:
    """Attributes are Python's own strings, numbers, booleans, and tuples of one of them or none: no text instead."""
    settings = mixers.settings(
        {"a": MEMORY}, {"model": "m", "features": FEATURES}, models={"m": {"path": model_folder}}
    )
    async with mixers.running(settings) as mixer:
        await mixer.search("csv file", filters=[Filter("year", Equals(2001.0))])
        await mixer.search("csv file", context={"plan": "paid"})
    native = {str, bool, int, float}
    values = [(span.name, *item) for span in traced.spans for item in attributes(span).items()]
    for name, key, value in values:
        kinds = {type(item) for item in value if item is not None} if type(value) is tuple else {type(value)}
        assert len(kinds) <= 1, (name, key, value)
        assert kinds <= native, (name, key, value)


def largest(model_folder: Path) -> Any:
    """As many backends and features as settings allow, a backend that is late, a model that does not fit."""
    names = [f"backend{n:02}" for n in range(32)]
    features = [
        {"name": f"feature_number_{n:02}", "source": "backend", "backend": names[n % 32], "value": "score"}
        for n in range(40)
    ]
    mix = {
        "members": {name: {"limit": 50, "timeout_s": 5.0} for name in names},
        "features": features,
        "model": "m",
        "without_model": "serve_fused",
    }
    told = {"top_k": 100, "top_features": 40, "query": "raw"}
    models = {"m": {"path": model_folder}}
    return mixers.settings(dict.fromkeys(names, MEMORY), mix, telemetry=told, models=models)


IDENTITY = {
    *("rpc.method", "rpc.response.status_code", "mixer.mix", "mixer.query_id", "mixer.query.raw"),
    *("mixer.page.size", "mixer.hits", "mixer.candidates", "mixer.ranker", "mixer.model.name"),
    *("mixer.model.version", "mixer.model.sha256", "mixer.degraded", "mixer.degraded_reasons"),
    *("mixer.fallback_reason", "mixer.latency_bucket", "mixer.backends.asked", "mixer.backends.ok"),
}


async def test_largest_request_loses_nothing(traced: Tracing, model_folder: Path) -> None:
    """At 32 backends, 40 features and the top 100, no span loses an attribute, least of all who answered."""
    documents = [{"id": f"{n:03}", "title": f"csv file {n}"} for n in range(220)]
    stand_ins = {f"backend{n:02}": engines.memory(documents[3 * n :]) for n in range(32)}
    stand_ins["backend31"].failure = BackendError("down")
    async with mixers.running(largest(model_folder), stand_ins) as mixer:
        await mixer.search("csv file", page_size=100, features=True)
    root, rank = traced.one(ROOT), traced.one("rank")
    assert [span.name for span in traced.spans if span.dropped_attributes] == []
    assert attributes(root).keys() >= IDENTITY
    for n in range(32):
        for fact in ("outcome", "elapsed_ms", "hits"):
            assert f"mixer.backend.backend{n:02}.{fact}" in attributes(root)
    arrays = {key: value for key, value in attributes(rank).items() if key.startswith("mixer.top.")}
    assert len(arrays) == 44
    assert {len(values) for values in arrays.values()} == {100}


async def test_rank_span_tells_the_ranking(traced: Tracing, model_folder: Path, quick_load: None) -> None:
    """The rank span's arrays are index by index the same document, and what the caller was answered."""
    other = [{"id": "9", "title": "csv", "year": 1970}, *engines.DOCUMENTS[1:]]
    settings = mixers.settings(
        {"a": MEMORY, "b": {**MEMORY, "documents": other}},
        {"model": "m", "features": FEATURES},
        models={"m": {"path": model_folder}},
    )
    async with mixers.running(settings) as mixer:
        result = await mixer.search("csv file", features=True, context={"plan": "paid"})
    told = attributes(traced.one("rank"))
    hits = result.hits
    assert result.ranker == told["mixer.ranker"] == "model"
    assert told["mixer.top.ids"] == tuple(hit.id for hit in hits)
    assert told["mixer.top.scores"] == tuple(hit.score for hit in hits)
    assert told["mixer.top.prior_ranks"] == tuple(hit.fused_rank for hit in hits)
    assert told["mixer.top.sources"] == tuple(",".join(s.backend for s in hit.sources) for hit in hits)
    assert len(set(told["mixer.top.sources"])) == 3
    shown = [name for name in result.feature_names if f"mixer.top.feature.{name}" in told]
    assert {"a_score", "coverage", "year"} <= set(shown)
    for name in shown:
        column = result.features[:, result.feature_names.index(name)]
        gaps = tuple(None if np.isnan(value) else value for value in column)
        assert told[f"mixer.top.feature.{name}"] == gaps
    assert result.model is not None
    assert told["mixer.model.sha256"] == result.model.sha256


async def test_top_of_the_ranking_only(traced: Tracing) -> None:
    """The rank span carries the best `top_k`, whatever page was asked for."""
    settings = mixers.settings({"a": MEMORY}, telemetry={"top_k": 2})
    async with mixers.running(settings) as mixer:
        await mixer.search("csv file", page_size=1, offset=2)
    assert attributes(traced.one("rank"))["mixer.top.ids"] == ("1", "2")


async def test_same_words_everywhere(traced: Tracing, model_folder: Path) -> None:
    """Outcomes, reasons and counts are the same words in the answer, on the spans and in the metrics."""
    mix = {"features": FEATURES[:1], "model": "m", "without_model": "serve_fused"}
    settings = mixers.settings(
        {"a": MEMORY, "late": MEMORY, "odd": MEMORY}, mix, models={"m": {"path": model_folder}}
    )
    late, odd = engines.memory(), engines.memory()
    late.failure = BackendError("down")
    odd.hits = Hits(["x", "x", "y"], np.array([1.0, 1.0, np.nan]))
    async with mixers.running(settings, {"a": engines.memory(), "late": late, "odd": odd}) as mixer:
        result = await mixer.search("csv file")
        root, rank = attributes(traced.one(ROOT)), attributes(traced.one("rank"))
        assert (
            root["mixer.degraded_reasons"]
            == result.degraded_reasons
            == ("late: error", "ranker: schema_failed")
        )
        assert root["mixer.degraded"] is result.degraded is True
        assert root["mixer.fallback_reason"] == rank["mixer.fallback_reason"] == "schema_failed"
        assert mixer.value("mixer_fallbacks_total", mix="default", reason="schema_failed") == 1
        assert mixer.value("mixer_degraded_total", mix="default") == 1
        assert root["mixer.candidates"] == result.candidates
        for report in result.backends:
            own = attributes(traced.one(f"retrieve {report.backend}"))
            assert own["mixer.backend.outcome"] == report.outcome
            assert root[f"mixer.backend.{report.backend}.outcome"] == report.outcome
            labels = {"mix": "default", "backend": report.backend, "outcome": report.outcome}
            assert mixer.value("mixer_backend_duration_seconds_count", **labels) == 1
        for drop, count in result.drops.items():
            backend, reason = drop.split(": ")
            labels = {"mix": "default", "backend": backend, "reason": reason}
            assert mixer.value("mixer_dropped_total", **labels) == count
        assert attributes(traced.one("merge"))["mixer.dropped"] == sum(result.drops.values()) == 2


async def test_failed_search_names_the_backends(traced: Tracing, logged: StringIO) -> None:
    """A search that fails for want of backends says on its root span and its line how each of them ended."""
    down = engines.memory()
    down.failure = BackendError("down")
    async with mixers.running(mixers.settings({"a": MEMORY}), {"a": down}) as mixer:
        with pytest.raises(MixerError):
            await mixer.search("csv file")
    (line,) = mixers.call_lines(logged.getvalue())
    root = traced.one(ROOT)
    for told in (attributes(root), line):
        assert told["mixer.backend.a.outcome"] == "error"
        assert told["mixer.mix"] == "default"
        assert told["rpc.response.status_code"] == "UNAVAILABLE"
    assert root.status.is_ok is False


async def test_long_versions_are_cut(traced: Tracing) -> None:
    """What a backend calls its version is no way to fill a trace."""
    long = columns(["1"], version="v" * 100_000)
    long.server_version = "s" * 100_000
    async with (
        engines.engine(answering(long)) as raw,
        mixers.running(mixers.settings({"raw": raw.target})) as mixer,
    ):
        await mixer.search("csv file")
    lengths = [len(v) for span in traced.spans for v in attributes(span).values() if isinstance(v, str)]
    assert max(lengths) <= 128


PLACES = (
    *("query", "filter", "field", "context", "key", "status", "crash", "stage"),
    *("document", "mix", "method", "cursor", "header", "id"),
)
PLANTS = {place: f"zq{place}7secret" for place in PLACES}


class Crashing(Memory):
    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        raise ValueError(PLANTS["crash"], query)


async def plant(mixer: mixers.Mixer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Requests that carry a secret in every place; what the caller was answered."""
    query = f"csv {PLANTS['query']}"
    seen: list[object] = []
    context: dict[str, str | float] = {PLANTS["key"]: PLANTS["context"], "plan": PLANTS["context"]}
    seen.append(await mixer.search(query, context=context))
    wishes: list[dict[str, Any]] = [
        {"filters": [Filter("title", Equals(PLANTS["filter"]))]},
        {"filters": [Filter(PLANTS["field"], Equals(PLANTS["filter"]))]},
        {"filters": [Filter("", Equals(PLANTS["filter"] * 500))]},
        {"context": {PLANTS["key"]: PLANTS["context"] * 500}},
        {"mix": PLANTS["mix"]},
        {"cursor": PLANTS["cursor"]},
        {"offset": -1},
    ]
    for wish in wishes:
        try:
            seen.append(await mixer.search(query, **wish))
        except MixerError as error:
            seen.append(error)
    async with grpc.aio.insecure_channel(mixer.target) as channel:
        headers = (("x-user", PLANTS["header"]), ("baggage", f"user={PLANTS['header']}"))
        for method in (f"{PLANTS['method']}/{PLANTS['method']}", "mixer.v1.MixerService/Search"):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/{method}")(PLANTS["query"].encode(), metadata=headers)
    with monkeypatch.context() as patch:

        def crash(self: object, candidates: object, features: object) -> None:
            raise KeyError(PLANTS["stage"])

        patch.setattr(RankByFusion, "__call__", crash)
        with pytest.raises(MixerError):
            await mixer.search(query)
    return repr(seen)


async def told(query: str, monkeypatch: pytest.MonkeyPatch, logged: StringIO) -> tuple[bytes, str, str, str]:
    """The secrets planted: bytes that reached the collector, both texts of the metrics, the log, the answers."""
    status = engines.failing(grpc.StatusCode.INTERNAL, f"no: {PLANTS['status']}")
    secret = [{"id": PLANTS["id"], "title": f"csv {PLANTS['document']}"}]
    crashing = engines.memory(kind=Crashing)
    metrics = Metrics()
    features = [f for f in FEATURES if f["source"] != "backend"]
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(collectors.over_grpc())
        export_to(collector, monkeypatch)
        failing = await stack.enter_async_context(engines.engine(status))
        good = await stack.enter_async_context(engines.healthy(engines.memory(secret)))
        backends = {"good": good, "failing": failing.target, "crashing": MEMORY}
        settings = mixers.settings(backends, {"features": features}, telemetry={"query": query})
        with mixers.exporting(metrics) as exporter:
            async with mixers.running(settings, {"crashing": crashing}, metrics) as mixer:
                answers = await plant(mixer, monkeypatch)
            await asyncio.to_thread(exporter.shutdown)
    texts = generate_latest(metrics.registry) + generate_openmetrics(metrics.registry)
    assert len(collector.spans) > 40
    return b"".join(collector.messages), texts.decode(), logged.getvalue(), answers


def export_to(collector: Collector, monkeypatch: pytest.MonkeyPatch, protocol: str = "grpc") -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)


async def test_secrets_stay(monkeypatch: pytest.MonkeyPatch, logged: StringIO) -> None:
    """Nothing a user wrote and nothing an error, a header or a document says leaves by traces, metrics or logs."""
    sent, metrics, log, answers = await told("hash", monkeypatch, logged)
    assert PLANTS["document"] in answers
    assert b"mixer.query.hash" in sent
    assert "unexpected error" in log
    for name, secret in PLANTS.items():
        if name != "id":  # the ids of the best documents are on the rank span
            assert secret.encode() not in sent, name
        assert secret not in metrics, name
        assert secret not in log, name


async def test_a_forced_trace_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment's sampler says: the call's spans reach the collector, and backends are told to trace."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(collectors.over_grpc())
        export_to(collector, monkeypatch)
        raw = await stack.enter_async_context(engines.engine(answering(columns(["1"]))))
        with mixers.exporting(metrics) as exporter:
            async with mixers.running(mixers.settings({"raw": raw.target}), None, metrics) as mixer:
                request = search_request("csv file").SerializeToString()
                async with grpc.aio.insecure_channel(mixer.target) as channel:
                    for metadata in ((), (("x-mixer-force-sample", "1"),)):
                        await channel.unary_unary(f"/{ROOT}")(request, metadata=metadata)
            await asyncio.to_thread(exporter.shutdown)
    names = [span.name for span in collector.spans]
    assert sorted(names) == sorted({ROOT, "retrieve raw", *_STAGES})
    flags = [str(sent["traceparent"])[-2:] for sent in raw.metadata]
    assert flags == ["00", "01"]


_STAGES = ("plan", "fan_out", "merge", "make_features", "rank", "arrange")


CREDENTIALS = {
    "wrong_key": "zqwrongkey7secret",
    "word": "zqword7secret",
    "password": "zqpassword7secret",
    "token": jwt.encode({"sub": "zqsub7secret"}, "zqsigned7secret" * 4, "HS256"),
}


class Unreachable(Memory):
    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        raise ConnectionError(f"postgresql://mixer:{CREDENTIALS['password']}@db refused: {query}")


async def asked(mixer: mixers.Mixer, api_key: str, token: str) -> str:
    """What a caller with this proof is answered."""
    async with AsyncMixerClient(mixer.target, api_key=api_key, token=token, timeout_s=20.0) as client:
        try:
            return repr(await client.search("csv file"))
        except MixerError as error:
            return f"{error!r} {error} {error.violations}"


@pytest.mark.parametrize("query", ["hash", "raw"])
async def test_credentials_stay(
    query: str, monkeypatch: pytest.MonkeyPatch, logged: StringIO, tmp_path: Path
) -> None:
    """Keys, tokens, headers and passwords, good ones and wrong ones, leave by no span, metric, log line or answer."""
    monkeypatch.setattr(reloading, "POLL_S", 0.02)
    good, metrics = keys.new("acme", [Scope.SEARCH]), Metrics()
    (tmp_path / "keys.yaml").write_text(good.line)
    sent = {**CREDENTIALS, "good": good.key, "hash": keys.hash_of(good.key)}
    answers = []
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(collectors.over_grpc())
        export_to(collector, monkeypatch)
        if query == "raw":
            logging.getLogger().handlers.clear()
            with patch.object(sys, "stdout", logged):
                telemetry.start_logging("info", raw_messages=True)
        settings = mixers.settings(
            {"a": MEMORY, "odd": MEMORY},
            auth={"keys": str(tmp_path / "keys.yaml")},
            telemetry={"query": query},
        )
        odd = {"odd": engines.memory(kind=Unreachable)}
        with mixers.exporting(metrics) as exporter:
            async with mixers.running(settings, odd, metrics) as mixer:
                for key, token in (
                    (good.key, ""),
                    (sent["wrong_key"], ""),
                    ("", sent["token"]),
                    ("", sent["word"]),
                ):
                    answers.append(await asked(mixer, key, token))
                (tmp_path / "keys.yaml").write_text(f"{good.key}: {{tenant: '{sent['word']} '}}")
                await mixers.until(lambda: mixer.value("mixer_auth_reloads_total", outcome="refused"))
            await asyncio.to_thread(exporter.shutdown)
    texts = [generate_latest(metrics.registry).decode(), logged.getvalue(), *answers]
    texts.append(b"".join(collector.messages).decode("latin-1"))
    assert "a csv file" in answers[0]
    assert ("backend crashed" in texts[1]) is ("files not reloaded" in texts[1]) is True
    assert ("postgresql://***@db" in texts[1]) is (query == "raw")
    for name, secret in sent.items():
        assert not [text for text in texts if secret in text], name


@pytest.mark.parametrize("setting", ["raw", "drop"])
async def test_query_as_it_is_set(setting: str, monkeypatch: pytest.MonkeyPatch, logged: StringIO) -> None:
    """The query stands in traces and logs as `telemetry.query` says: itself, or nothing; in metrics never."""
    sent, metrics, log, _ = await told(setting, monkeypatch, logged)
    assert (PLANTS["query"].encode() in sent) is (PLANTS["query"] in log) is (setting == "raw")
    assert b"mixer.query.hash" not in sent
    assert PLANTS["query"] not in metrics
    for name in PLANTS.keys() - {"query", "id"}:
        assert PLANTS[name].encode() not in sent, name
        assert PLANTS[name] not in log, name


async def test_facts_of_the_user_stay(traced: Tracing) -> None:
    """A number that the caller sent as a fact of the user is not told, though a feature is made of it."""
    age = {"name": "age", "source": "context", "key": "age"}
    async with mixers.running(mixers.settings({"a": MEMORY}, {"features": [age]})) as mixer:
        await mixer.search("csv file", context={"age": 86753.25})
    values = [value for span in traced.spans for value in attributes(span).values()]
    assert not any(86753.25 in value for value in values if isinstance(value, tuple))


async def test_hash_is_keyed(traced: Tracing, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same query has the same hash under one key, and another under another."""
    hashes = []
    for key in ("one", "one", "two"):
        monkeypatch.setenv("MIXER_REDACTION_KEY", key)
        async with mixers.running(mixers.settings({"a": MEMORY})) as mixer:
            await mixer.search("csv file")
        hashes.append(attributes(traced.named(ROOT)[-1])["mixer.query.hash"])
    assert hashes[0] == hashes[1] != hashes[2]


async def test_no_collector(monkeypatch: pytest.MonkeyPatch, logged: StringIO) -> None:
    """Without an endpoint Mixer answers, logs and counts; the caller's trace still reaches the backends."""
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    metrics = Metrics()
    header = ("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    async with engines.engine(answering(columns(["1"]))) as raw:
        with mixers.exporting(metrics) as exporter:
            async with mixers.running(mixers.settings({"raw": raw.target}), metrics=metrics) as mixer:
                result = await mixer.search("csv file")
                await _search_with(mixer, header)
            await asyncio.to_thread(exporter.shutdown)
    plain, traced = mixers.call_lines(logged.getvalue())
    assert (result.trace_id, plain["trace_id"], traced["trace_id"]) == ("", "", "a" * 32)
    assert str(raw.metadata[1]["traceparent"]).startswith("00-" + "a" * 32)


async def _search_with(mixer: mixers.Mixer, *headers: tuple[str, str]) -> Any:
    from mixer.client import search_request
    from protos.mixer.v1 import mixer_pb2_grpc

    async with grpc.aio.insecure_channel(mixer.target) as channel:
        stub = mixer_pb2_grpc.MixerServiceStub(channel)
        return await stub.Search(search_request("csv file"), metadata=headers, timeout=8)


async def sent_to(collector: Collector, searches: int = 1, *headers: tuple[str, str]) -> list[Any]:
    """The answers to searches of a Mixer that exports as the environment says."""
    metrics = Metrics()
    with mixers.exporting(metrics) as exporter:
        async with mixers.running(mixers.settings({"a": MEMORY}), metrics=metrics) as mixer:
            answers = [await _search_with(mixer, *headers) for _ in range(searches)]
        await asyncio.to_thread(exporter.shutdown)
    assert not sum(
        sample.value
        for metric in metrics.registry.collect()
        if metric.name == "mixer_spans_dropped"
        for sample in metric.samples
    )
    return answers


async def test_otlp_over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_* variables send the spans over gRPC, under the service's name, with the headers that are set."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-honeycomb-team=key")
    async with collectors.over_grpc() as collector:
        export_to(collector, monkeypatch)
        (answer,) = await sent_to(collector)
    assert_arrived(collector, answer)
    assert collector.headers[0]["x-honeycomb-team"] == "key"


async def test_otlp_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_* variables send the spans over HTTP as protobuf, to the path of the specification."""
    with collectors.over_http() as collector:
        export_to(collector, monkeypatch, "http/protobuf")
        (answer,) = await sent_to(collector)
    assert_arrived(collector, answer)
    assert collector.headers[0]["path"] == "/v1/traces"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"


def assert_arrived(collector: Collector, answer: Any) -> None:
    spans = collector.spans
    assert {span.trace_id.hex() for span in spans} == {answer.trace_id}
    (root,) = [span for span in spans if span.name == ROOT]
    assert (root.kind, root.parent_span_id, root.dropped_attributes_count) == (Sent.SPAN_KIND_SERVER, b"", 0)
    assert len(spans) == 8
    assert {resource(collector)["service.name"]} == {"mixer"}


def resource(collector: Collector) -> dict[str, str]:
    """What the sender says of itself."""
    return {pair.key: pair.value.string_value for pair in collector.resources[0].resource.attributes}


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({"OTEL_SERVICE_NAME": "named"}, "named"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=described,zone=b"}, "described"),
        ({"OTEL_SERVICE_NAME": "named", "OTEL_RESOURCE_ATTRIBUTES": "service.name=described"}, "named"),
        ({"OTEL_SERVICE_NAME": ""}, "mixer"),
        ({"OTEL_BSP_SCHEDULE_DELAY": "", "OTEL_BSP_MAX_QUEUE_SIZE": "20"}, "mixer"),
    ],
)
async def test_environment_goes_first(
    variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment says of the service goes before the settings; an empty variable says nothing."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    async with collectors.over_grpc() as collector:
        export_to(collector, monkeypatch)
        await sent_to(collector)
    assert resource(collector)["service.name"] == name
    assert resource(collector)["service.version"]


PARENT = ("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01")


@pytest.mark.parametrize(
    ("sampler", "argument", "headers", "traces"),
    [
        ("always_on", "", (), 3),
        ("always_off", "", (), 0),
        ("traceidratio", "0.0", (PARENT,), 0),
        ("parentbased_always_off", "", (), 0),
        ("parentbased_always_off", "", (PARENT,), 3),
        ("parentbased_traceidratio", "1.0", (), 3),
    ],
)
async def test_sampling(
    sampler: str, argument: str, headers: Any, traces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_TRACES_SAMPLER decides what is traced; an answer names its trace only where there is one to find."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    async with collectors.over_grpc() as collector:
        export_to(collector, monkeypatch)
        answers = await sent_to(collector, 3, *headers)
    assert len([span for span in collector.spans if span.name == ROOT]) == traces
    assert sum(bool(answer.trace_id) for answer in answers) == traces


@pytest.mark.parametrize("variable", [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
async def test_switched_off(variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing that is switched off sends nothing, whatever the endpoint."""
    monkeypatch.setenv(*variable)
    async with collectors.over_grpc() as collector:
        export_to(collector, monkeypatch)
        (answer,) = await sent_to(collector)
    assert (collector.messages, answer.trace_id) == ([], "")


async def test_one_line_a_search(traced: Tracing, logged: StringIO) -> None:
    """Every search, however it ends, is one line of JSON with its trace and its status."""
    async with mixers.running(mixers.settings({"a": MEMORY})) as mixer:
        result = await mixer.search("csv file", request_id="q1")
        for query, mix in ((" ", ""), ("x", "y")):
            with pytest.raises(MixerError):
                await mixer.search(query, mix=mix)
    out = logged.getvalue()
    assert all(isinstance(json.loads(line), dict) for line in out.splitlines())
    lines = mixers.call_lines(out)
    codes = [line["rpc.response.status_code"] for line in lines]
    assert codes == ["OK", "INVALID_ARGUMENT", "NOT_FOUND"]
    roots = [span.context for span in traced.named(ROOT)]
    assert [line["trace_id"] for line in lines] == [trace.format_trace_id(c.trace_id) for c in roots if c]
    first = lines[0]
    assert (first["mixer.mix"], first["mixer.query_id"], first["trace_id"]) == (
        "default",
        "q1",
        result.trace_id,
    )
    assert first["elapsed_ms"] > 0
    assert first["level"] == "info"


async def test_line_and_root_span_agree(traced: Tracing, logged: StringIO) -> None:
    """The line of a search says what its root span says."""
    async with mixers.running(mixers.settings({"a": MEMORY})) as mixer:
        await mixer.search("csv file")
    (line,) = mixers.call_lines(logged.getvalue())
    said = {key: list(v) if isinstance(v, tuple) else v for key, v in attributes(traced.one(ROOT)).items()}
    said.pop("rpc.system.name")
    assert said.items() <= line.items()


def test_traceback_without_words(logged: StringIO) -> None:
    """An error is logged with the places it passed and without its message, unless raw messages are set."""
    for raw in (False, True):
        with patch.object(sys, "stdout", logged):
            telemetry.start_logging("info", raw_messages=raw)
        try:
            raise ValueError("the user's words")
        except ValueError:
            logging.getLogger("mixer.test").exception("failed")
    bare, full = logged.getvalue().splitlines()
    assert "the user's words" not in bare
    assert "the user's words" in full
    for line in (bare, full):
        assert {"test_traceback_without_words", "ValueError"} <= set(re.findall(r"\w+", line))


async def test_what_is_sent_is_what_the_standard_exporter_sends(traced: Tracing) -> None:
    """The spans of a real request are the same message."""
    async with mixers.running(mixers.settings({"a": MEMORY})) as mixer:
        await mixer.search("csv file")
    assert len(traced.spans) == 8
    assert telemetry.OverGrpc()._translate_data(traced.spans) == encode_spans(traced.spans)


def test_every_span_is_sent_under_its_own_origin(traced: Tracing) -> None:
    """Spans of several libraries, and one that only the standard encoder writes, are all there."""
    for library in ("one", "two"):
        for name in ("a", "b"):
            with traced.provider.get_tracer(library).start_as_current_span(f"{library} {name}") as span:
                if name == "b":
                    span.add_event("happened")
    sent = telemetry.OverGrpc()._translate_data(traced.spans)
    scopes = [scope for resource in sent.resource_spans for scope in resource.scope_spans]
    found = sorted((scope.scope.name, span.name) for scope in scopes for span in scope.spans)
    assert found == [("one", "one a"), ("one", "one b"), ("two", "two a"), ("two", "two b")]


def test_the_standard_exporter_still_asks_how_to_write() -> None:
    """Were the method renamed, spans would be sent as the standard exporter writes them: right, but slow."""
    assert "_translate_data" in vars(OTLPSpanExporter)
