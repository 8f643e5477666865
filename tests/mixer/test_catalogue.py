"""All that telemetry says, held against the catalogue, after requests that mean harm."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from prometheus_client.samples import Sample

from backends.base import (
    BackendError,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    Equals,
    Filter,
    Hits,
    Query,
)
from backends.memory import Memory
from backends.spans import db_span
from mixer import catalogue, errors, keys, model
from mixer.auth import REASONS
from mixer.breaker import State
from mixer.caller import Scope
from mixer.catalogue import ATTRIBUTES, LABELS, METRICS, SPANS, Kind
from mixer.client import Event, EventKind, MixerError, search_request
from mixer.events import EventOutcome
from mixer.metrics import Metrics
from mixer.rank import RankByFusion, ScoringFailed
from mixer.tenants import OUTCOMES as TENANT_OUTCOMES
from mixer.trees import Reason
from mixer.values import Outcome
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.mixers import ROOT

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FEATURES = [feature.model_dump() for feature in forest.FEATURES]
SINKS = {"parquet", "otlp", "kafka"}
EXPERIMENT = {
    "salt": "s",
    "key": "user",
    "arms": [
        {"name": "control", "share": 0.4},
        {"name": "duel", "share": 0.1, "interleave": True},
        {"name": "canary", "share": 0.5, "canary": {"min_requests": 10, "fallback_share": 0.0}},
    ],
}
GUARDS = {
    "breaker": {"minimum_calls": 5, "wait_s": 0.001, "probes": 1},
    "retry": {"pause_s": 0.001},
    "hedge": {"minimum_calls": 1, "share": 1.0, "least_delay_s": 0.001, "most_delay_s": 0.001},
}
BOUNDS = {"errors", "fallbacks", "latency", "scores", "clicks"}
SHADOWED = {"mix": "joined", "shadow": "m", "slice": "all", "value": "all"}
EXPLAIN = "mixer.v1.MixerService/Explain"
LEFT_OUT = {"hedge", "retry", "beside", "optional_backends", "candidates", "model"}
STAGES = {"plan", "fan_out", "merge", "hydrate", "make_features", "rank", "arrange"}


@dataclass
class Said:
    """What a Mixer said of itself in one session."""

    spans: list[ReadableSpan]
    first: list[Sample]
    again: list[Sample]
    """After the same requests with other names in them."""


FEEDBACK = "mixer.v1.MixerService/Feedback"


def store(kept: Path) -> dict[str, Any]:
    """A feature store that knows one document, by a number that is none."""
    file = kept / "clicks.db"
    with contextlib.closing(sqlite3.connect(file)) as made, made:
        made.execute("CREATE TABLE IF NOT EXISTS clicks (id, ctr)")
        made.execute("INSERT INTO clicks VALUES ('3', 'zqgarbage')")
    return {"kind": "sqlite", "file": str(file), "table": "clicks", "fields": ["ctr"]}


class Served(Memory):
    """As engines on servers of their own: every call is a client's."""

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        for system, operation in (("postgresql", "SELECT"), ("qdrant", "query")):
            with db_span(system, operation, "documents", "localhost", 5432):
                pass
        with db_span("opensearch", "search", "documents", "localhost", 9200):
            return await super().retrieve(query, timeout_s)


def settings(good: str, model_folder: Path, query: str, kept: Path) -> Any:
    fused: dict[str, Any] = {"backends": {"good": {}, "odd": {"limit": 2}}, "fields": ["title"]}
    mix = {
        "model": "m",
        "features": FEATURES,
        "pins": [{"query": "csv pinned", "ids": ["4"]}],
        "diversity": {"field": "title", "max": 1},
        "slices": [
            {"name": "length", "by": "query_length", "bounds": [1]},
            {"name": "tier", "by": "context", "key": "plan", "values": ["free"]},
            {"name": "answered", "by": "backends"},
        ],
    }
    sink = {"kind": "parquet", "folder": str(kept / "log"), "ship": {"to": str(kept / "far" / "log")}}
    made = mixers.settings(
        {"a": MEMORY, "odd": MEMORY, "good": good},
        mix,
        models={"m": {"path": model_folder}},
        telemetry={"query": query},
        feedback={"folder": str(kept / "events"), "ship": {"to": str(kept / "far" / "events")}},
        feature_log={"sinks": [sink]},
        guards={"odd": GUARDS},
        limits={"adaptive": {"load_s": 1e9}},
    )
    raw = made.model_dump(mode="json", exclude_none=True)
    raw["stores"] = {"clicks": store(kept)}
    fused["stores"] = {"clicks": {"timeout_s": 15}}
    fused["features"] = [{"name": "ctr", "source": "store", "store": "clicks", "field": "ctr"}]
    raw["mixes"]["fused"] = fused
    raw["mixes"]["spoiled"] = {**fused, "model": "gone", "without_model": "serve_fused"}
    raw["models"]["gone"] = {"path": str(model_folder / "gone")}
    raw["mixes"]["split"] = {**raw["mixes"]["default"], "experiment": EXPERIMENT}
    raw["models"]["again"] = raw["models"]["m"]
    raw["models"]["both"] = {"members": [{"model": "m"}, {"model": "again", "weight": 2}]}
    raw["mixes"]["joined"] = {
        "backends": {"a": {}, "good": {"timeout_s": 15}},
        "features": FEATURES,
        "slices": mix["slices"],
        "model": "both",
        "shadows": [{"model": "m", "cpu_share": 1.0}, {"model": "gone"}],
    }
    return type(made).model_validate(raw)


async def harm(mixer: mixers.Mixer, odd: Any, name: str) -> None:
    """Requests of every kind with this name in all that a caller may write."""
    wishes: list[dict[str, Any]] = [
        {},
        {"query": "csv pinned", "context": {"plan": name, name: 1.0}, "request_id": name},
        {"mix": name},
        {"cursor": name},
        {"filters": [Filter(name, Equals(name))]},
        {"offset": -1},
        {"mix": "fused", "features": True},
        {"mix": "spoiled"},
        {"timeout_s": 0.001},
        {"query": name * 300},
    ]
    unreachable = BackendUnreachable(name)
    for failure in (
        None,
        BackendError(name),
        BackendTimeout(name),
        BackendRefused(name),
        KeyError(name),
        unreachable,
    ):
        odd.failure = failure
        for wish in wishes:
            with contextlib.suppress(MixerError):
                await mixer.search(**{"query": f"csv {name}", **wish})
    odd.failure, odd.hits = None, Hits([name, name, "3"], np.array([np.inf, 1.0, 0.5]))
    for mix in ("default", "fused", "spoiled", "split", "joined"):
        await mixer.search("csv file", mix=mix)
    for number in range(60):
        await mixer.search("csv file", mix="split", context={"user": f"{name}{number}"})
    odd.hits = None


async def harm_guards(mixer: mixers.Mixer, odd: Any, name: str) -> None:
    """A backend that comes back, is slow, and cannot be reached for long; and a load that leaves all out."""
    await mixers.until(
        lambda: mixer.value("mixer_backend_breaker_state", backend="odd", state="half_open") == 0
    )
    for latency_s, failure in ((0.02, None), (0.0, BackendUnreachable(name))):
        odd.latency_s, odd.failure = latency_s, failure
        for _ in range(30):
            await mixer.search(f"csv {name}")
    odd.latency_s, odd.failure = 0.0, None
    assert mixer.app.load
    for load in (1.0, 0.0):
        mixer.app.load._smoothed = load
        for mix in ("default", "joined"):
            await mixer.search(f"csv {name}", mix=mix)


async def harm_feedback(mixer: mixers.Mixer, name: str) -> None:
    """Events with this name in all that a caller may write, the same again, and wrong ones."""
    found = await mixer.search("csv file", request_id=name)
    events = [Event(found.query_id, kind, name, value=1.0) for kind in EventKind]
    for sent in (
        events,
        events,
        [Event(name * 2, EventKind.CLICK, name)],
        [Event("", EventKind.CLICK, name)],
    ):
        with contextlib.suppress(MixerError):
            await mixer.client.feedback(sent)


async def harm_explanations(mixer: mixers.Mixer, name: str) -> None:
    """Explanations of what the model and the fusion ranked, and of what is not there."""
    wishes: list[dict[str, Any]] = [
        {"search": "csv file"},
        {"search": f"csv {name}", "mix": "fused", "ids": ["3"]},
        {"search": "csv file", "mix": name},
        {"search": "csv file", "ids": [name]},
        {"search": "csv file", "model": "m"},
        {"search": "csv file", "model": "gone"},
        {"search": "csv file", "model": name},
        {"query_id": name},
    ]
    for wish in wishes:
        with contextlib.suppress(MixerError):
            await mixer.client.explain(**wish)


async def harm_methods(mixer: mixers.Mixer, name: str) -> None:
    async with grpc.aio.insecure_channel(mixer.target) as channel:
        for method in (f"{name}/{name}", f"mixer.v1.MixerService/{name}", ROOT):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/{method}")(b"\xff\x00" + name.encode())
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        call = channel.unary_unary(f"/{ROOT}")(b"\x0a\x01x")
        call.cancel()


async def harm_stages(mixer: mixers.Mixer, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fails(*inputs: object) -> None:
        raise ScoringFailed(name)

    def crashes(*inputs: object) -> None:
        raise ValueError(name)

    for mix, place, verb, then in (
        ("default", model.LightGbmModel, "score", fails),
        ("default", model.LightGbmModel, "score", crashes),
        ("fused", RankByFusion, "__call__", crashes),
        ("split", model.LightGbmModel, "score", crashes),
    ):
        with monkeypatch.context() as patch, contextlib.suppress(MixerError):
            patch.setattr(place, verb, then)
            await mixer.search("csv file", mix=mix, context={"user": name})


async def harm_doors(good: str, kept: Path, name: str) -> list[Sample]:
    """Callers with a credential and without, over their limits, who ask to be traced; what a guarded Mixer counts."""
    made, unnamed = keys.new("acme", [Scope.SEARCH]), keys.new(name, [Scope.SEARCH])
    file = kept / "keys.yaml"
    file.write_text(f"{made.line}\n{unnamed.line}\n")
    tenants = {"default": {"per_second": 1}, "acme": {"per_day": 1}}
    guarded = mixers.settings({"good": good}, auth={"keys": str(file)}, tenants=tenants)
    request = search_request("csv file").SerializeToString()
    async with mixers.running(guarded) as mixer, grpc.aio.insecure_channel(mixer.target) as channel:
        for key in ("", name, made.key, made.key, unnamed.key, unnamed.key):
            metadata = (("x-api-key", key), ("x-mixer-force-sample", name))
            with contextlib.suppress(grpc.aio.AioRpcError):
                await channel.unary_unary(f"/{ROOT}")(request, metadata=metadata)
        return mixer.samples


async def session(
    good: str, folder: Path, query: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Sample], list[Sample]]:
    odd = engines.memory(kind=Served)
    async with mixers.running(settings(good, folder, query, kept), {"odd": odd}) as mixer:
        rounds = []
        for name in ("zqmallory", "zqtrudy"):
            await harm(mixer, odd, name)
            await harm_guards(mixer, odd, name)
            await harm_feedback(mixer, name)
            await harm_explanations(mixer, name)
            await harm_methods(mixer, name)
            await harm_stages(mixer, monkeypatch, name)
            await mixers.until(lambda: mixer.value("mixer_calls_in_flight") == 0)
            await mixers.until(lambda: mixer.value("mixer_shadow_overlap_ratio_count", **SHADOWED))
            rounds.append([*mixer.samples, *await harm_doors(good, kept, name)])
    return rounds[0], rounds[1]


@pytest.fixture(scope="module")
def said(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Said]:
    """Everything, once for all tests of this file."""
    kept = tmp_path_factory.mktemp("kept")

    async def run(monkeypatch: pytest.MonkeyPatch) -> Said:
        async with asyncio.timeout(60), AsyncExitStack() as stack:
            traced = stack.enter_context(mixers.tracing())
            good = await stack.enter_async_context(engines.healthy())
            first, again = await session(good, model_folder, "hash", kept, monkeypatch)
            await session(good, model_folder, "raw", kept, monkeypatch)
            return Said(list(traced.spans), first, again)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
        yield asyncio.run(run(monkeypatch))


def pattern(name: str) -> re.Pattern[str]:
    """The names that a name of the catalogue stands for."""
    return re.compile(re.escape(name).replace(r"\*", "[^.]+"))


def declared(key: str) -> list[catalogue.Attribute]:
    exact = [attribute for attribute in ATTRIBUTES if attribute.key == key]
    return exact or [attribute for attribute in ATTRIBUTES if pattern(attribute.key).fullmatch(key)]


def groups(span: str) -> set[str]:
    """The words that stand for a span in the catalogue."""
    if span in STAGES:
        return {"stages", span}
    for asking in ("retrieve", "look_up"):
        if span.startswith(f"{asking} "):
            return {asking}
    if span.startswith(("search ", "SELECT ", "query ")):
        return {"db"}
    if span == FEEDBACK:
        return {"rpc", "feedback"}
    return {"rpc", "root"} if span in (ROOT, EXPLAIN) else {"rpc"}


TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: type(value) is str,
    "int": lambda value: type(value) is int,
    "double": lambda value: type(value) is float,
    "bool": lambda value: type(value) is bool,
    "string[]": lambda value: all(type(item) is str for item in value),
    "int[]": lambda value: all(type(item) is int for item in value),
    "double[]": lambda value: all(type(item) is float or item is None for item in value),
}


def told(said: Said) -> Iterator[tuple[str, str, Any]]:
    """Span, key and value of every attribute."""
    for span in said.spans:
        for key, value in (span.attributes or {}).items():
            yield span.name, key, value


def test_session_was_long_enough(said: Said) -> None:
    """The session made every stage run and fail, and every outcome but those of time come about."""
    assert {span.name for span in said.spans} >= STAGES | {
        ROOT,
        "retrieve a",
        "retrieve odd",
        "retrieve good",
    }
    outcomes = {s.labels["outcome"] for s in said.first if s.name == "mixer_backend_duration_seconds_count"}
    assert outcomes >= {"ok", "error", "timeout", "refused"}
    assert not [span for span in said.spans if span.dropped_attributes or span.events]


def test_every_span_is_declared(said: Said) -> None:
    """A span has a name of the catalogue, and every name of it is used."""
    seen = {span.name for span in said.spans}
    unknown = {name for name in seen if not any(pattern(known).fullmatch(name) for known in SPANS)}
    unused = {known for known in SPANS if not any(pattern(known).fullmatch(name) for name in seen)}
    assert (unknown, unused) == (set(), set())


def test_every_attribute_is_declared(said: Said) -> None:
    """An attribute is one of the catalogue's, of its type, on a span that the catalogue gives it."""
    wrong = set()
    for span, key, value in told(said):
        attribute = next(iter(declared(key)), None)
        if attribute is None:
            wrong.add(f"{key}: not in the catalogue")
        elif not TYPES[attribute.type](value):
            wrong.add(f"{key}: {value!r} is no {attribute.type}")
        elif not groups(span) & set(attribute.spans.split(", ")):
            wrong.add(f"{key}: declared for {attribute.spans}, seen on {span}")
    assert wrong == set()


def test_every_declared_attribute_is_used(said: Said) -> None:
    """The catalogue lists nothing that is never said."""
    seen = {attribute.key for _, key, _ in told(said) for attribute in declared(key)}
    assert {attribute.key for attribute in ATTRIBUTES} - seen == set()


def test_every_metric_is_declared() -> None:
    """The registry holds the catalogue's metrics, each with its type, its help and its labels, and no other."""
    families = {family.name: family for family in Metrics().registry.collect()}
    for metric in METRICS:
        family = families.pop(metric.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)
    assert families == {}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_of_metrics(metric: catalogue.Metric) -> None:
    """A counter ends in _total, a time in its unit, a histogram has buckets that rise, a label is declared."""
    assert metric.name.endswith("_total") is (metric.kind is Kind.COUNTER)
    assert bool(metric.buckets) is (metric.kind is Kind.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert set(metric.labels) <= set(LABELS)
    assert not re.search(r"_(ms|millis|minutes|time|latency|duration)$", metric.name)


def test_every_label_is_used() -> None:
    """The catalogue explains no label that no metric has."""
    assert {label for metric in METRICS for label in metric.labels} == set(LABELS)


def test_labels_are_bounded(said: Said, model_folder: Path) -> None:
    """Every value of a label is out of its set, whatever callers and backends wrote."""
    requests = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    loaded = model.read_manifest(model_folder)
    profiles = (loaded.score_profile, *loaded.profiles.values())
    answered = {f"without_{name}" for name in ("a", "odd", "good")}
    checks = {"registry", "manifest", "checksum", "schema", "test_load", "golden"}
    ensemble = next(s.labels for s in said.first if s.labels.get("model") == "both")
    reasons = {"over_limit", "repeated", "score_not_finite", "scoring_failed", "scores_not_finite"}
    whys = {"none", "mismatch", *get_args(Reason)}
    lost = {"conversion_failed", "shutdown", *(f"{kind}_failed" for kind in SINKS)}
    sets: dict[str, set[str]] = {
        "grpc_type": {"unary", "unknown"},
        "grpc_service": {"mixer.v1.MixerService", "grpc.health.v1.Health", "unknown"},
        "grpc_method": {"Search", "Feedback", "Explain", "Check", "unknown"},
        "grpc_code": {code.name for code in grpc.StatusCode},
        "mix": {"default", "fused", "spoiled", "split", "joined"},
        "arm": {"control", "canary", "duel"},
        "preferred": {"arm", "control", "neither"},
        "stage": STAGES,
        "error": {*requests, "cancelled", "unexpected"},
        "backend": {"a", "odd", "good"},
        "store": {"clicks"},
        "source": {"cache", "store", "lost"},
        "slice": {"length", "tier", "answered", "all"},
        "value": {"0-1", "2+", "free", "other", "none", "all", "without_several", *answered},
        "what": {"index", "schema", "server", *LEFT_OUT},
        "outcome": {
            *(o.value for kind in (Outcome, EventOutcome) for o in kind),
            "swapped",
            "unreadable",
            "failed",
            "shipped",
            "dropped",
            *("forced", "refused", *TENANT_OUTCOMES),
        },
        "kind": {kind.value for kind in EventKind},
        "state": {state.value for state in State},
        "won": {"first", "second", "neither"},
        "tenant": {"acme", "other"},
        "reason": {
            *reasons,
            *whys,
            *(f"{check}_failed" for check in checks),
            "queue_full",
            "export_failed",
            *lost,
            "not_shipped",
            *BOUNDS,
            "load",
            *REASONS,
        },
        "check": checks,
        "feature": {"ctr", *(feature["name"] for feature in FEATURES)},
        "bin": {"missing", *map(str, range(max(len(each.shares) for each in profiles)))},
        "model": {loaded.name, "both"},
        "version": {loaded.version, ensemble["version"]},
        "sha256": {loaded.model_sha256, ensemble["sha256"]},
        "scorer": {"forest", "lightgbm"},
        "sink": SINKS,
        "log": {"searches", "events"},
        "shadow": {"m", "gone"},
    }
    assert sets.keys() == LABELS.keys()
    values = {(label, value) for s in said.again for label, value in s.labels.items() if label != "le"}
    assert {(label, value) for label, value in values if value not in sets[label]} == set()


def test_series_do_not_grow(said: Said) -> None:
    """The same requests with other names in them make no new series."""
    first, again = (
        {(s.name, *sorted(s.labels.items())) for s in samples} for samples in (said.first, said.again)
    )
    assert again - first == set()


@pytest.mark.parametrize(
    ("elapsed_s", "step"),
    [(0.0, "<10ms"), (0.00999, "<10ms"), (0.01, "<25ms"), (2.5, ">=2500ms"), (99, ">=2500ms")],
)
def test_latency_ladder(elapsed_s: float, step: str) -> None:
    """A time is on the step that it is below."""
    assert catalogue.latency_bucket(elapsed_s) == step
