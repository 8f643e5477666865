from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from backends.base import Hits, Query
from mixer.describe import Redactor, describers
from mixer.errors import DeadlineTooShort
from mixer.manifest import Manifest, Profile
from mixer.metrics import Metrics
from mixer.observe import MixObserver
from mixer.record import Record, Step, close_record, open_record
from mixer.values import Answer, Call, Candidates, Drop, Features, Outcome, Ranker, Request, Scores
from tests.samples import MODEL, answer, candidates, hits, plan, reply, request, scores

NAN = float("nan")


class Watched:
    """An observer of a mix, with what it counted and the spans it made."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.metrics = Metrics()
        told = describers(5, ["one"])
        self.observer = MixObserver(
            "m", self.metrics, ["a", "b"], ["one", "two"], told, Redactor("drop", b"key")
        )

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"mix": "m", **labels})

    @property
    def step(self) -> Step:
        assert self.record.steps is not None
        [step] = self.record.steps
        return step


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Within a call that is traced."""
    provider = TracerProvider(shutdown_on_exit=False)
    root = provider.get_tracer("test").start_span("root")
    record = Record(root)
    token = open_record(record)
    yield Watched(record)
    close_record(token)


def test_a_stage_gets_a_span_and_a_duration(watched: Watched) -> None:
    """The verb's result comes out untouched; its span has the stage's name and description, its time is counted."""
    stage = watched.observer.stage("plan", lambda asked: plan(asked=asked))
    made = stage(request("a"))
    assert made.request.query == "a"
    assert watched.step.name == "plan"
    assert watched.step.attributes == {"mixer.stage": "plan", "mixer.backends.asked": 1}
    assert watched.sample("mixer_stage_duration_seconds_count", stage="plan") == 1


async def test_a_waiting_stage_is_watched_to_its_end(watched: Watched) -> None:
    """The span of an awaited stage ends when the result is there, not when it was asked for."""
    release = asyncio.Event()

    async def fan_out(_: object) -> tuple[Any, ...]:
        await release.wait()
        return (reply("a", hits()),)

    task = asyncio.ensure_future(watched.observer.waiting_stage("fan_out", fan_out)("plan"))
    await asyncio.sleep(0)
    assert watched.sample("mixer_stage_duration_seconds_count", stage="fan_out") == 0
    release.set()
    assert [made.backend for made in await task] == ["a"]
    assert watched.step.attributes["mixer.backends.ok"] == 1
    assert watched.sample("mixer_stage_duration_seconds_count", stage="fan_out") == 1


@pytest.mark.parametrize(
    ("error", "label"), [(DeadlineTooShort("late"), "DeadlineTooShort"), (ZeroDivisionError(), "unexpected")]
)
def test_a_failing_stage_is_counted_and_marked(watched: Watched, error: Exception, label: str) -> None:
    """The error goes through; it is counted by its class where it is one of ours, and the span says so without the
    error's words."""

    def fails(_: object) -> None:
        raise error

    with pytest.raises(type(error)):
        watched.observer.stage("plan", fails)(None)
    assert watched.sample("mixer_stage_failures_total", stage="plan", error=label) == 1
    assert watched.step.error == type(error).__name__
    assert watched.sample("mixer_stage_duration_seconds_count", stage="plan") == 1


async def test_a_caller_who_hangs_up_is_no_surprise(watched: Watched) -> None:
    """A cancelled stage is counted as cancelled, not as unexpected."""

    async def fan_out(_: object) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await watched.observer.waiting_stage("fan_out", fan_out)(None)
    assert watched.sample("mixer_stage_failures_total", stage="fan_out", error="cancelled") == 1
    assert watched.sample("mixer_stage_failures_total", stage="fan_out", error="unexpected") is None


class Nobody:
    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        raise AssertionError("not asked")

    async def close(self) -> None:
        """Nothing."""


CALL = Call("a", Query("csv", 7), 0.25)


@pytest.mark.parametrize("outcome", [Outcome.OK, Outcome.TIMEOUT, Outcome.ERROR, Outcome.REFUSED])
async def test_every_call_to_a_backend_is_a_client_span(watched: Watched, outcome: Outcome) -> None:
    """What was asked and how it ended; anything but ok is an error of that name, and counted under it."""
    made = reply("a", hits(["x", "y"]) if outcome is Outcome.OK else None, outcome)

    async def ask(*_: object) -> Any:
        return made

    assert await watched.observer.ask(ask)(Nobody(), CALL) is made
    step, said = watched.step, watched.step.attributes
    assert (step.name, step.kind) == ("retrieve a", SpanKind.CLIENT)
    assert said["mixer.backend.name"] == "a"
    assert (said["mixer.backend.limit"], said["mixer.backend.timeout_ms"]) == (7, 250)
    assert said["mixer.backend.outcome"] == outcome.value
    assert step.error == ("" if outcome is Outcome.OK else outcome.value)
    count = "mixer_backend_duration_seconds_count"
    assert watched.sample(count, backend="a", outcome=outcome.value) == 1
    assert watched.sample("mixer_backend_candidates_count", backend="a") == (outcome is Outcome.OK)
    assert watched.sample(count, backend="b", outcome=outcome.value) == 0


async def test_a_cancelled_call_is_counted_too(watched: Watched) -> None:
    """A call that the request was given up around has an outcome, and the cancellation goes on."""

    async def ask(*_: object) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await watched.observer.ask(ask)(Nobody(), CALL)
    assert watched.sample("mixer_backend_duration_seconds_count", backend="a", outcome="cancelled") == 1
    assert watched.step.attributes["mixer.backend.outcome"] == "cancelled"


async def said_of(watched: Watched, verb: Any) -> dict[str, Any]:
    await watched.observer.search(verb)(request(query_id="q1"))
    return watched.record.facts


async def test_a_search_says_what_it_was(watched: Watched) -> None:
    """The root span and the log line get the request and the answer; the time added is beside the slowest
    backend's."""
    made = answer()  # beforehand: the first one of a process waits for compiled loops

    async def search(_: Request) -> Answer:
        return made

    said = await said_of(watched, search)
    assert (said["mixer.query_id"], said["mixer.hits"], said["mixer.degraded"]) == ("q1", 2, False)
    assert watched.sample("mixer_added_latency_seconds_count") == 1
    assert watched.sample("mixer_added_latency_seconds_sum") == 0
    assert watched.sample("mixer_degraded_total") == 0


async def test_a_degraded_answer_is_counted(watched: Watched) -> None:
    """An answer made from less than the whole counts, once."""

    async def search(_: Request) -> Answer:
        return answer(replies=(reply("a", hits(["x", "y"])), reply("b", None, Outcome.TIMEOUT)))

    assert (await said_of(watched, search))["mixer.degraded_reasons"] == ("b: timeout",)
    assert watched.sample("mixer_degraded_total") == 1


async def test_a_failed_search_still_says_what_was_asked(watched: Watched) -> None:
    """The log line of an error has the request's facts."""

    async def search(_: Request) -> Answer:
        raise DeadlineTooShort("late")

    with pytest.raises(DeadlineTooShort):
        await watched.observer.search(search)(request(query_id="q1"))
    assert watched.record.facts["mixer.query_id"] == "q1"
    assert "mixer.hits" not in watched.record.facts


def count(watched: Watched, stage: str, result: object, *inputs: object) -> None:
    watched.observer.stage(stage, lambda *_: result)(*inputs)


def test_drops_are_counted_by_reason(watched: Watched) -> None:
    """Every drop, by backend and reason, and how many candidates were left."""
    found: Candidates = replace(
        candidates([1, 2]), drops=(Drop("repeated", 3, "a"), Drop("over_limit", 2, "b"))
    )
    count(watched, "merge", found)
    assert watched.sample("mixer_dropped_total", backend="a", reason="repeated") == 3
    assert watched.sample("mixer_dropped_total", backend="b", reason="over_limit") == 2
    assert watched.sample("mixer_candidates_sum") == 2
    assert watched.step.attributes["mixer.dropped"] == 5


def test_missing_and_wild_values_are_counted_by_feature(watched: Watched) -> None:
    """Rows, and per feature what was missing or out of range."""
    made = Features(("one", "two"), np.zeros((4, 2)), np.array([3, 0]), np.array([0, 1]))
    count(watched, "make_features", made)
    assert watched.sample("mixer_feature_rows_total") == 4
    assert watched.sample("mixer_feature_missing_total", feature="one") == 3
    assert watched.sample("mixer_feature_missing_total", feature="two") == 0
    assert watched.sample("mixer_feature_out_of_range_total", feature="two") == 1


def rank(watched: Watched, made: Scores) -> None:
    n = len(made.values)
    none = np.zeros(1, np.intp)
    count(watched, "rank", made, candidates([0.0] * n), Features(("one",), np.zeros((n, 1)), none, none))


def test_fallbacks_are_counted_by_reason(watched: Watched) -> None:
    """An answer in fused order for want of a model; a mix without one does not count."""
    fused = candidates([1.0]).fused
    rank(watched, Scores(fused, Ranker.FUSED, MODEL, "scoring_failed"))
    rank(watched, Scores(fused, Ranker.FUSED))
    assert watched.sample("mixer_fallbacks_total", reason="scoring_failed") == 1


@pytest.fixture
def manifest(model_folder: Any) -> Manifest:
    made = Manifest.model_validate_json((model_folder / "manifest.json").read_bytes())
    return made.model_copy(update={"score_profile": Profile(edges=(0.0, 1.0), shares=(0.2, 0.5, 0.3))})


def test_scores_and_features_are_counted_by_the_model_s_own_bins(
    watched: Watched, manifest: Manifest
) -> None:
    """What a ranked answer was made of is counted for the model that ranked it; what is not finite falls into none."""
    watched.observer.loaded(manifest)
    ref = replace(MODEL, sha256=manifest.model_sha256)
    made = scores([-5, 0, 0.5, 1, 1.5, NAN, np.inf], ref)
    names = tuple(feature.name for feature in manifest.features)
    none = np.zeros(len(names), np.intp)
    shown = Features(names, np.full((7, len(names)), NAN), none, none)
    count(watched, "rank", made, candidates([0.0] * 7), shown)
    label = {"version": manifest.version}
    bins = [watched.sample("mixer_score_bin_total", bin=str(place), **label) for place in range(3)]
    assert bins == [2, 2, 1]
    missing = {"feature": names[0], "bin": "missing"}
    assert watched.sample("mixer_feature_bin_total", **missing, **label) == 7


def test_the_model_that_ranks_is_a_metric(watched: Watched, manifest: Manifest) -> None:
    """Its name, version and hash, and its age."""
    watched.observer.loaded(manifest)
    ref = {"model": manifest.name, "version": manifest.version, "sha256": manifest.model_sha256}
    assert watched.sample("mixer_model_info", **ref) == 1
    age_s = watched.sample("mixer_model_age_seconds")
    assert age_s is not None
    assert age_s >= 0


def test_a_refused_model_is_counted_by_its_check(watched: Watched) -> None:
    """Which check failed."""
    watched.observer.refused("checksum")
    assert watched.sample("mixer_model_refused_total", check="checksum") == 1
