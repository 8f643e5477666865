"""Wraps a mix's stages with a span, a duration, counts and errors. Only the OpenTelemetry API is used here."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from time import perf_counter, time
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import numpy as np
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from backends.base import Backend
from mixer import catalogue, describe
from mixer.errors import RequestError
from mixer.fanout import Ask
from mixer.manifest import Manifest
from mixer.metrics import Metrics, exemplar
from mixer.values import Answer, Call, Candidates, Features, Outcome, Reply, Request, Scores

P = ParamSpec("P")
R = TypeVar("R")

tracer = trace.get_tracer("mixer")

event: ContextVar[dict[str, Any]] = ContextVar("event")
"""What the root span and the log line of the current call will say."""


class MixObserver:
    """Watches one mix; every label is bound once."""

    def __init__(
        self,
        mix: str,
        metrics: Metrics,
        backends: Sequence[str],
        features: Sequence[str],
        describers: Mapping[str, describe.Describe],
        redactor: describe.Redactor,
    ) -> None:
        """Takes the mix's name, its backends and features, and how each stage is described."""
        self._mix, self._metrics, self._redactor = mix, metrics, redactor
        self._describers = describers
        counter, histogram = metrics.counter, metrics.histogram
        self._added = histogram(catalogue.ADDED_SECONDS, mix=mix)
        self._candidates = histogram(catalogue.CANDIDATES, mix=mix)
        self._degraded = counter(catalogue.DEGRADED, mix=mix)
        self._rows = counter(catalogue.FEATURE_ROWS, mix=mix)
        self._missing = [counter(catalogue.FEATURE_MISSING, mix=mix, feature=f) for f in features]
        self._outside = [counter(catalogue.FEATURE_OUT_OF_RANGE, mix=mix, feature=f) for f in features]
        self._backend_hits = {
            name: histogram(catalogue.BACKEND_CANDIDATES, mix=mix, backend=name) for name in backends
        }
        self._backend_seconds = {
            (name, outcome): histogram(catalogue.BACKEND_SECONDS, mix=mix, backend=name, outcome=outcome)
            for name in backends
            for outcome in Outcome
        }
        self._score_bins = _ScoreBins(mix, metrics)
        self._count: Mapping[str, Callable[[Any], None]] = {
            "merge": self._count_candidates,
            "make_features": self._count_features,
            "rank": self._count_scores,
        }

    def loaded(self, manifest: Manifest) -> None:
        """This model ranks from now on."""
        gauge = self._metrics.gauge
        ref = {"model": manifest.name, "version": manifest.version, "sha256": manifest.model_sha256}
        gauge(catalogue.MODEL_INFO, mix=self._mix, **ref).set(1)
        gauge(catalogue.MODEL_AGE, mix=self._mix).set_function(lambda: time() - manifest.created_at_s)
        self._score_bins.reference(manifest)

    def refused(self, check: str) -> None:
        """A model failed a check at load."""
        self._metrics.counter(catalogue.MODEL_REFUSED, mix=self._mix, check=check).inc()

    def stage(self, name: str, verb: Callable[P, R]) -> Callable[P, R]:
        """The verb, watched."""
        watch = self._watch(name)

        def watched(*inputs: P.args, **named: P.kwargs) -> R:
            with watch() as stage:
                return stage.returned(inputs, verb(*inputs, **named))

        return watched

    def waiting_stage(self, name: str, verb: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        """The awaited verb, watched."""
        watch = self._watch(name)

        async def watched(*inputs: P.args, **named: P.kwargs) -> R:
            with watch() as stage:
                return stage.returned(inputs, await verb(*inputs, **named))

        return watched

    def ask(self, verb: Ask) -> Ask:
        """One call to one backend, watched."""

        async def watched(backend: Backend, call: Call) -> Reply:
            with tracer.start_as_current_span(f"retrieve {call.backend}", kind=SpanKind.CLIENT) as span:
                if span.is_recording():
                    span.set_attributes(_of_call(call))
                began_s = perf_counter()
                try:
                    reply = await verb(backend, call)
                except CancelledError:
                    elapsed_s = perf_counter() - began_s
                    self._replied(span, Reply(call.backend, Outcome.CANCELLED, elapsed_s))
                    raise
                self._replied(span, reply)
            return reply

        return watched

    def _replied(self, span: Span, reply: Reply) -> None:
        event.get({}).update(describe.of_backend(reply))
        if span.is_recording():
            span.set_attributes(describe.of_reply(reply))
            if reply.outcome is not Outcome.OK:
                span.set_attribute("error.type", reply.outcome.value)
                span.set_status(StatusCode.ERROR, reply.outcome.value)
        self._backend_seconds[reply.backend, reply.outcome].observe(reply.elapsed_s, exemplar())
        if reply.hits is not None:
            self._backend_hits[reply.backend].observe(len(reply.hits))

    def search(self, verb: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Awaitable[Answer]]:
        """The whole search, watched: what the root span, the log line and the counters say of it."""

        async def watched(request: Request) -> Answer:
            said = event.get({})
            said.update(describe.of_request(request, self._redactor))
            began_s = perf_counter()
            answer = await verb(request)
            elapsed_s = perf_counter() - began_s
            added_s = elapsed_s - max(reply.elapsed_s for reply in answer.replies)
            said.update(describe.of_answer(answer, elapsed_s, added_s))
            self._added.observe(max(added_s, 0.0), exemplar())
            if answer.degraded_reasons:
                self._degraded.inc()
            return answer

        return watched

    def _watch(self, name: str) -> Callable[[], _Watch]:
        seconds = self._metrics.histogram(catalogue.STAGE_SECONDS, mix=self._mix, stage=name)
        count, described = self._count.get(name), self._describers[name]

        def failed(error: str) -> None:
            labels = {"mix": self._mix, "stage": name, "error": error}
            self._metrics.counter(catalogue.STAGE_FAILURES, **labels).inc()

        return lambda: _Watch(name, seconds.observe, count, described, failed)

    def _count_candidates(self, candidates: Candidates) -> None:
        self._candidates.observe(len(candidates))
        for drop in candidates.drops:
            labels = {"mix": self._mix, "backend": drop.backend, "reason": drop.reason}
            self._metrics.counter(catalogue.DROPPED, **labels).inc(drop.count)

    def _count_features(self, features: Features) -> None:
        if not len(features.matrix):
            return
        self._rows.inc(len(features.matrix))
        for place in np.flatnonzero(features.missing).tolist():
            self._missing[place].inc(int(features.missing[place]))
        for place in np.flatnonzero(features.out_of_range).tolist():
            self._outside[place].inc(int(features.out_of_range[place]))

    def _count_scores(self, scores: Scores) -> None:
        if scores.fallback_reason:
            reason = scores.fallback_reason
            self._metrics.counter(catalogue.FALLBACKS, mix=self._mix, reason=reason).inc()
        else:
            self._score_bins.count(scores)


class _ScoreBins:
    """Counts scores by the bins of the model's own profile."""

    def __init__(self, mix: str, metrics: Metrics) -> None:
        self._mix, self._metrics = mix, metrics
        self._edges = np.empty(0)
        self._bins: list[Callable[[float], None]] = []

    def reference(self, manifest: Manifest) -> None:
        profile = manifest.score_profile
        self._edges = np.array(profile.edges)
        labels = [{"mix": self._mix, "bin": str(place)} for place in range(len(profile.shares))]
        self._bins = [self._metrics.counter(catalogue.SCORE_BIN, **label).inc for label in labels]
        for label, share in zip(labels, profile.shares, strict=True):
            self._metrics.gauge(catalogue.SCORE_BIN_REFERENCE, **label).set(share)

    def count(self, scores: Scores) -> None:
        if not self._bins:
            return
        bins = np.searchsorted(self._edges, scores.values[np.isfinite(scores.values)])
        for inc, count in zip(self._bins, np.bincount(bins, minlength=len(self._bins)).tolist(), strict=True):
            if count:
                inc(count)


class _Watch:
    """One run of one stage."""

    __slots__ = ("_began_s", "_count", "_describe", "_failed", "_name", "_observe", "_scope", "_span")

    def __init__(
        self,
        name: str,
        observe: Callable[..., None],
        count: Callable[[Any], None] | None,
        described: describe.Describe,
        failed: Callable[[str], None],
    ) -> None:
        self._name, self._observe, self._count = name, observe, count
        self._describe, self._failed = described, failed
        self._span: Span
        self._began_s = 0.0

    def __enter__(self) -> _Watch:
        self._scope = tracer.start_as_current_span(
            self._name, record_exception=False, set_status_on_exception=False
        )
        self._span = self._scope.__enter__()
        self._began_s = perf_counter()
        return self

    def returned(self, inputs: Sequence[Any], result: R) -> R:
        """Count and describe what came out."""
        if self._count:
            self._count(result)
        if self._span.is_recording():
            self._span.set_attributes({**self._describe(inputs, result), "mixer.stage": self._name})
        return result

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None
    ) -> None:
        self._observe(perf_counter() - self._began_s, exemplar())
        if kind is not None:
            self._failed(_error_name(kind))
            self._span.set_attribute("error.type", kind.__name__)
            self._span.set_status(StatusCode.ERROR, kind.__name__)
        self._scope.__exit__(None, None, None)


def _error_name(kind: type[BaseException]) -> str:
    if issubclass(kind, CancelledError):
        return "cancelled"
    return kind.__name__ if issubclass(kind, RequestError) else "unexpected"


def _of_call(call: Call) -> describe.Attributes:
    return {
        "mixer.backend.name": call.backend,
        "mixer.backend.limit": call.query.limit,
        "mixer.backend.timeout_ms": call.timeout_s * 1000,
    }
