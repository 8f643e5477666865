"""Wraps a mix's stages with a span, a duration, counts and errors. Only the OpenTelemetry API is used here."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter, time
from typing import Any, NamedTuple, ParamSpec, TypeVar

from opentelemetry.context import detach
from opentelemetry.trace import SpanKind

from backends.base import Backend
from mixer import catalogue, describe
from mixer.ensemble import Ensemble
from mixer.errors import RequestError
from mixer.fanout import Ask
from mixer.feature_counts import FeatureCounts
from mixer.manifest import Manifest
from mixer.metrics import Metrics
from mixer.model import ref_of
from mixer.origins import Origin
from mixer.profiles import ProfileCounts
from mixer.record import Record, Step, current
from mixer.slice_counts import SliceCounts
from mixer.slices import Slice
from mixer.values import Answer, Call, Candidates, Features, ModelRef, Outcome, Reply, Request, Scores

P = ParamSpec("P")
R = TypeVar("R")


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
        slices: Sequence[Slice] = (),
    ) -> None:
        """Takes the mix's name, its backends, features and slices, and how each stage is described."""
        self._mix, self._metrics, self._redactor = mix, metrics, redactor
        self._describers = describers
        counter, histogram = metrics.counter, metrics.histogram
        self._added = histogram(catalogue.ADDED_SECONDS, mix=mix)
        self._candidates = histogram(catalogue.CANDIDATES, mix=mix)
        self._degraded = counter(catalogue.DEGRADED, mix=mix)
        self._features = FeatureCounts(mix, metrics, features)
        self._backend_hits = {
            name: histogram(catalogue.BACKEND_CANDIDATES, mix=mix, backend=name) for name in backends
        }
        self._backend_seconds = {
            (name, outcome): histogram(catalogue.BACKEND_SECONDS, mix=mix, backend=name, outcome=outcome)
            for name in backends
            for outcome in Outcome
        }
        self._origins = {name: Origin(mix, name, metrics) for name in backends}
        self._slices = SliceCounts(mix, metrics, slices, backends) if slices else None
        self._profiles = ProfileCounts(mix, metrics, self._slices.values if self._slices else {})
        self._at_work: dict[str, _AtWork] = {}
        self._count: Mapping[str, Callable[[Sequence[Any], Any], None]] = {
            "merge": self._count_candidates,
            "make_features": self._count_features,
            "rank": self._count_scores,
        }

    def prepare(self, manifest: Manifest) -> None:
        """This model is about to rank: what takes time is done now. Safe on any thread."""
        self._profiles.reference(manifest)

    def loaded(self, manifest: Manifest, left_to_lightgbm: str | None = None, arm: str = "") -> None:
        """This model ranks from now on, in this arm of an experiment; what was told of the one before it is over.

        `left_to_lightgbm` is why LightGBM scores it, where it does.
        """
        self.prepare(manifest)
        self._work(arm, _AtWork((ref_of(manifest),), (left_to_lightgbm,), manifest.created_at_s))

    def loaded_ensemble(self, ensemble: Ensemble, arm: str = "") -> None:
        """These models rank together from now on, as old as the oldest of them."""
        models = [member.model for member in ensemble.members]
        refs = (ensemble.ref, *(model.ref for model in models))
        lefts = tuple(model.left_to_lightgbm for model in models)
        self._work(arm, _AtWork(refs, lefts, min(model.manifest.created_at_s for model in models)))

    def _work(self, arm: str, at_work: _AtWork) -> None:
        gauge, before = self._metrics.gauge, self._told
        self._at_work = {**self._at_work, arm: at_work}
        for metric, labels in self._told:
            gauge(metric, mix=self._mix, **labels).set(1)
        for metric, labels in before:
            if (metric, labels) not in self._told:
                gauge(metric, mix=self._mix, **labels).set(0)
                self._metrics.forget(metric, mix=self._mix, **labels)
        gauge(catalogue.MODEL_AGE, mix=self._mix).set_function(self._age_s)

    @property
    def _told(self) -> list[tuple[catalogue.Metric, dict[str, str]]]:
        """The series that name the models at work."""
        told: list[tuple[catalogue.Metric, dict[str, str]]] = []
        for at_work in self._at_work.values():
            told += [(catalogue.MODEL_INFO, _labels_of(ref)) for ref in at_work.refs]
            for left in at_work.lefts:
                scorer = {"scorer": "lightgbm" if left else "forest", "reason": left or "none"}
                told.append((catalogue.MODEL_SCORER, scorer))
        return told

    def _age_s(self) -> float:
        """Of the oldest model that ranks."""
        return time() - min(at_work.created_at_s for at_work in self._at_work.values())

    def refused(self, check: str) -> None:
        """A model failed a check at load."""
        self._metrics.counter(catalogue.MODEL_REFUSED, mix=self._mix, check=check).inc()

    def stage(
        self, name: str, verb: Callable[P, R], described: describe.Describe | None = None
    ) -> Callable[P, R]:
        """The verb, watched; `described` instead of what its name stands for."""
        watch = self._watch(name, described)

        def watched(*inputs: P.args, **named: P.kwargs) -> R:
            run = watch.begin()
            try:
                result = verb(*inputs, **named)
            except BaseException as error:
                watch.failed(run, type(error))
                raise
            watch.returned(run, inputs, result)
            return result

        return watched

    def waiting_stage(self, name: str, verb: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        """The awaited verb, watched."""
        watch = self._watch(name)

        async def watched(*inputs: P.args, **named: P.kwargs) -> R:
            run = watch.begin()
            try:
                result = await verb(*inputs, **named)
            except BaseException as error:
                watch.failed(run, type(error))
                raise
            watch.returned(run, inputs, result)
            return result

        return watched

    def ask(self, verb: Ask) -> Ask:
        """One call to one backend, watched; the backend's own spans, here or elsewhere, hang below its step."""

        async def watched(backend: Backend, call: Call) -> Reply:
            record = current()
            step = record.begin(f"retrieve {call.backend}", SpanKind.CLIENT)
            if step is None:
                return await self._replied(record, None, verb(backend, call), call)
            step.attributes.update(_of_call(call))
            token = record.enter(step)
            try:
                return await self._replied(record, step, verb(backend, call), call)
            finally:
                detach(token)

        return watched

    async def _replied(self, record: Record, step: Step | None, asked: Awaitable[Reply], call: Call) -> Reply:
        began_s = perf_counter()
        try:
            reply = await asked
        except CancelledError:
            elapsed_s = perf_counter() - began_s
            self._count_reply(record, step, Reply(call.backend, Outcome.CANCELLED, elapsed_s))
            raise
        self._count_reply(record, step, reply)
        return reply

    def _count_reply(self, record: Record, step: Step | None, reply: Reply) -> None:
        if record.heard:
            record.facts.update(describe.of_backend(reply))
        if step is not None:
            step.attributes.update(describe.of_reply(reply))
            record.end(step, "" if reply.outcome is Outcome.OK else reply.outcome.value)
        self._backend_seconds[reply.backend, reply.outcome].observe(reply.elapsed_s, record.exemplar)
        if reply.hits is not None:
            self._backend_hits[reply.backend].observe(len(reply.hits))
            self._origins[reply.backend].heard(reply.hits.index)

    def search(self, verb: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Awaitable[Answer]]:
        """The whole search, watched: what the root span, the log line and the counters say of it."""

        async def watched(request: Request) -> Answer:
            record = current()
            if record.heard:
                record.facts.update(describe.of_request(request, self._redactor))
            began_s = perf_counter()
            answer = await verb(request)
            elapsed_s = perf_counter() - began_s
            added_s = elapsed_s - max(reply.elapsed_s for reply in answer.replies)
            if record.heard:
                record.facts.update(describe.of_answer(answer, elapsed_s, added_s))
            self._added.observe(max(added_s, 0.0), record.exemplar)
            if answer.degraded_reasons:
                self._degraded.inc()
            if self._slices:
                self._count_slices(self._slices, answer, elapsed_s, record)
            return answer

        return watched

    def _count_slices(self, slices: SliceCounts, answer: Answer, elapsed_s: float, record: Record) -> None:
        found = slices.count(answer, elapsed_s)
        self._profiles.count_slices(answer.scores, found)
        if record.heard:
            record.facts.update({f"mixer.slice.{name}": value for name, value in found.items()})

    def _watch(self, name: str, described: describe.Describe | None = None) -> _Watch:
        seconds = self._metrics.histogram(catalogue.STAGE_SECONDS, mix=self._mix, stage=name)
        count, described = self._count.get(name), described or self._describers[name]

        def failed(error: str) -> None:
            labels = {"mix": self._mix, "stage": name, "error": error}
            self._metrics.counter(catalogue.STAGE_FAILURES, **labels).inc()

        return _Watch(name, seconds.observe, count, described, failed)

    def _count_candidates(self, _: Sequence[Any], candidates: Candidates) -> None:
        self._candidates.observe(len(candidates))
        for drop in candidates.drops:
            labels = {"mix": self._mix, "backend": drop.backend, "reason": drop.reason}
            self._metrics.counter(catalogue.DROPPED, **labels).inc(drop.count)

    def _count_features(self, _: Sequence[Any], features: Features) -> None:
        self._features.count(features)

    def _count_scores(self, inputs: Sequence[Any], scores: Scores) -> None:
        self._profiles.count(inputs[1], scores)
        if scores.fallback_reason:
            reason = scores.fallback_reason
            self._metrics.counter(catalogue.FALLBACKS, mix=self._mix, reason=reason).inc()


class _AtWork(NamedTuple):
    """What ranks in one arm: a model, or an ensemble and its members."""

    refs: tuple[ModelRef, ...]
    lefts: tuple[str | None, ...]
    """Why LightGBM scores, for each model that is one; None where it does not."""
    created_at_s: float


def _labels_of(ref: ModelRef) -> dict[str, str]:
    return {"model": ref.name, "version": ref.version, "sha256": ref.sha256}


class _Run(NamedTuple):
    """One run of one stage."""

    record: Record
    step: Step | None
    began_s: float


class _Watch:
    """What is done before and after every run of one stage."""

    __slots__ = ("_count", "_count_failure", "_describe", "_name", "_observe")

    def __init__(
        self,
        name: str,
        observe: Callable[..., None],
        count: Callable[[Sequence[Any], Any], None] | None,
        described: describe.Describe,
        count_failure: Callable[[str], None],
    ) -> None:
        self._name, self._observe, self._count = name, observe, count
        self._describe, self._count_failure = described, count_failure

    def begin(self) -> _Run:
        record = current()
        step = record.begin(self._name)
        if step is not None:
            record.inside_id = step.id
        return _Run(record, step, perf_counter())

    def returned(self, run: _Run, inputs: Sequence[Any], result: object) -> None:
        """Count and describe what came out."""
        self._observe(perf_counter() - run.began_s, run.record.exemplar)
        if run.step is not None:
            self._end(run.record, run.step)
            run.step.attributes.update(self._describe(inputs, result), **{"mixer.stage": self._name})
        if self._count:
            self._count(inputs, result)

    def failed(self, run: _Run, kind: type[BaseException]) -> None:
        self._observe(perf_counter() - run.began_s, run.record.exemplar)
        if run.step is not None:
            self._end(run.record, run.step, kind.__name__)
        self._count_failure(_error_name(kind))

    def _end(self, record: Record, step: Step, error: str = "") -> None:
        record.end(step, error)
        record.inside_id = step.parent_id


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
