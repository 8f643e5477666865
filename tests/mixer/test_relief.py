"""Searches under load: what is left out, how it is said, and that pages of one list are made alike."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mixer import model
from mixer.client import MixerError, SearchResult
from tests import forest
from tests.doubles import engines, mixers

FEATURES = [feature.model_dump() for feature in forest.FEATURES]
DOCUMENTS = [{"id": str(n), "title": f"csv file {n}", "year": 2000} for n in range(40)]
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": DOCUMENTS}
FEW = {"kind": "memory", "fields": engines.FIELDS, "documents": [{"id": "only here", "title": "csv file"}]}
SLOWLY = {"load_s": 1e9}
"""The load stays where a test puts it."""


def settings(folder: Path, **adaptive: Any) -> Any:
    mix = {
        "members": {"a": {"timeout_s": 15.0, "limit": 40}, "extra": {"timeout_s": 15.0, "optional": True}},
        "model": "m",
        "features": FEATURES,
        "shadows": [{"model": "m"}],
    }
    return mixers.settings(
        {"a": MEMORY, "extra": FEW},
        mix,
        models={"m": {"path": folder}},
        limits={"concurrent_calls": 8, "adaptive": {**SLOWLY, **adaptive}},
        explain={"recent": 100},
    )


@pytest.fixture
async def mixer(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[mixers.Mixer]:
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    async with mixers.running(settings(model_folder)) as running:
        yield running


def put(mixer: mixers.Mixer, load: float) -> None:
    """The load is this, from now on."""
    assert mixer.app.load
    mixer.app.load._smoothed = load


def dropped(mixer: mixers.Mixer, what: str) -> float | None:
    return mixer.value("mixer_load_dropped_total", mix="default", what=what)


async def test_without_load_nothing_is_left_out(mixer: mixers.Mixer) -> None:
    """The whole answer, at quality 1."""
    result = await mixer.search("csv file")
    assert (result.quality, result.degraded, result.ranker) == (1.0, False, "model")
    assert result.candidates == 41
    assert {backend.attempts for backend in result.backends} == {1}


async def test_first_what_the_answer_does_not_show(mixer: mixers.Mixer) -> None:
    """Shadows rest and answers are not remembered: the answer is whole, and not degraded."""
    put(mixer, 0.65)
    result = await mixer.search("csv file", request_id="unkept")
    assert (result.quality, result.degraded, result.ranker) == (0.8, False, "model")
    with pytest.raises(MixerError, match="query_id"):
        await mixer.client.explain("unkept")
    labels = {"mix": "default", "shadow": "m", "reason": "load"}
    await mixers.until(lambda: mixer.value("mixer_shadow_dropped_total", **labels))
    assert dropped(mixer, "beside") == 1
    assert dropped(mixer, "optional_backends") == 0


async def test_then_optional_backends(mixer: mixers.Mixer) -> None:
    """They are skipped, and the answer says why."""
    put(mixer, 0.75)
    result = await mixer.search("csv file")
    assert (result.quality, result.ranker) == (0.6, "model")
    assert result.degraded_reasons == ("load: optional backends skipped", "extra: skipped")
    extra = result.backends[1]
    assert (extra.outcome, extra.attempts, extra.detail) == (
        "skipped",
        0,
        "optional, and left out under load",
    )
    assert dropped(mixer, "optional_backends") == 1


async def test_then_candidates(mixer: mixers.Mixer) -> None:
    """Backends are asked for fewer."""
    put(mixer, 0.85)
    result = await mixer.search("csv file")
    assert (result.quality, result.candidates, result.ranker) == (0.4, 20, "model")
    assert "load: candidate limits lowered" in result.degraded_reasons
    assert dropped(mixer, "candidates") == 1


async def test_then_the_model(mixer: mixers.Mixer) -> None:
    """The fused order stands, named by the model that would have ranked."""
    put(mixer, 0.95)
    with mixers.tracing() as traced:
        result = await mixer.search("csv file")
        await mixers.until(lambda: traced.named(mixers.ROOT))
    assert (result.quality, result.ranker) == (0.2, "fused")
    assert result.degraded_reasons[-1] == "ranker: load"
    assert result.model
    assert [hit.rank for hit in result.hits] == [hit.fused_rank for hit in result.hits]
    assert mixer.value("mixer_fallbacks_total", mix="default", reason="load") == 1
    assert dropped(mixer, "model") == 1
    assert (traced.one(mixers.ROOT).attributes or {})["mixer.quality"] == 0.2


async def paged(mixer: mixers.Mixer, loads: list[float]) -> list[SearchResult]:
    """All pages of one list, each asked for under another load."""
    pages, cursor = [], ""
    for load in loads:
        put(mixer, load)
        pages.append(await mixer.search("csv file", cursor=cursor))
        cursor = pages[-1].next_cursor
    assert not cursor
    return pages


@pytest.mark.parametrize("first", [0.0, 0.65, 0.75, 0.85, 0.95])
@pytest.mark.parametrize("then", [0.0, 0.75, 0.95])
async def test_pages_of_a_list_are_made_alike(mixer: mixers.Mixer, first: float, then: float) -> None:
    """However the load changes in between: with the effort of the first page, so that no hit is lost or repeated."""
    put(mixer, first)
    whole = await mixer.search("csv file", page_size=100)
    pages = await paged(mixer, [first, *[then] * ((whole.candidates - 1) // 10)])
    assert [hit.id for page in pages for hit in page.hits] == [hit.id for hit in whole.hits]
    assert {(page.quality, page.ranker) for page in pages} == {(whole.quality, whole.ranker)}


async def test_the_limit_learns_from_searches(mixer: mixers.Mixer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that was answered tells its time and how many there were; what is refused at once, or is no search, does
    not."""
    told: list[tuple[float, int]] = []
    monkeypatch.setattr(mixer.app.load, "took", lambda *took: told.append(took))
    await mixer.search("csv file", request_id="kept")
    with pytest.raises(MixerError):
        await mixer.search("")
    await mixer.client.explain("kept")
    ((elapsed_s, at_once),) = told
    assert elapsed_s > 0
    assert at_once == 1


async def test_ten_times_too_much(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call is answered or turned away, none hangs; quality falls, health is answered, and all comes back."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    declared = settings(model_folder, load_s=0.1)
    slow = engines.memory(DOCUMENTS)
    slow.latency_s = 0.03
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(100))
        mixer = await stack.enter_async_context(mixers.running(declared, {"a": slow}))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(mixer.target))
        health = health_pb2_grpc.HealthStub(channel)
        ended: list[SearchResult | MixerError] = []

        async def caller() -> None:
            for _ in range(12):
                try:
                    ended.append(await mixer.search("csv file"))
                except MixerError as error:
                    ended.append(error)
                    await asyncio.sleep(0.01)

        callers = [asyncio.create_task(caller()) for _ in range(80)]
        while not all(task.done() for task in callers):
            checked = await health.Check(health_pb2.HealthCheckRequest())
            assert checked.status == health_pb2.HealthCheckResponse.SERVING
            await asyncio.sleep(0.05)
        answers = [end for end in ended if isinstance(end, SearchResult)]
        shed = [end for end in ended if isinstance(end, MixerError)]
        assert len(answers) + len(shed) == 80 * 12
        assert {error.code for error in shed} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert mixer.value("mixer_calls_shed_total") == len(shed)
        qualities = Counter(answer.quality for answer in answers)
        assert min(qualities) < 1.0, qualities
        assert all(answer.degraded for answer in answers if answer.quality < 0.7)
        await mixers.until(lambda: mixer.value("mixer_quality_ratio") == 1.0)
        await mixers.until(lambda: mixer.value("mixer_calls_in_flight") == 0)
        assert (await mixer.search("csv file")).quality == 1.0
