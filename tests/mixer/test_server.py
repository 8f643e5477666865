"""The service as its callers see it: messages in, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backends.base import Equals, Filter, Range, Terms
from backends.memory import Memory
from mixer import server
from mixer.client import MixerClient, MixerError, search_request
from mixer.metrics import Metrics
from protos.mixer.v1 import mixer_pb2 as pb
from protos.mixer.v1 import mixer_pb2_grpc
from tests.doubles import engines, mixers
from tests.doubles.mixers import Mixer

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
OTHER = {
    "kind": "memory",
    "fields": engines.FIELDS,
    "documents": [
        {"id": "4", "title": "csv"},
        {"id": "5", "title": "csv tools", "year": 2020, "kind": "module"},
    ],
}
FEATURES = [
    {"name": "year", "source": "number", "field": "year"},
    {"name": "words", "source": "query", "value": "words"},
]


@pytest.fixture(autouse=True)
async def nothing_hangs() -> AsyncIterator[None]:
    """Every test here ends."""
    async with asyncio.timeout(30):
        yield


@pytest.fixture
async def mixer() -> AsyncIterator[Mixer]:
    """Two mixes over two backends."""
    made = mixers.settings(
        {"a": MEMORY, "b": OTHER}, {"features": FEATURES, "page_size": 3}, server={"default_mix": "default"}
    )
    raw = made.model_dump(mode="json", exclude_none=True)
    raw["mixes"]["only_b"] = {"backends": {"b": {"limit": 1}}, "fields": ["kind"]}
    async with mixers.running(type(made).model_validate(raw)) as running:
        yield running


async def test_answer(mixer: Mixer) -> None:
    """An answer has its page of hits with their fields and sources, how it came about, and what to ask next."""
    result = await mixer.search("csv", request_id="q-1")
    assert (result.query_id, result.mix, result.candidates, len(result.hits)) == ("q-1", "default", 5, 3)
    assert [hit.rank for hit in result.hits] == [1, 2, 3]
    best = result.hits[0]
    assert (best.id, best.fields) == ("4", {"title": "csv"})
    assert [(source.backend, source.rank) for source in best.sources] == [("a", 4), ("b", 1)]
    assert best.score == pytest.approx(1 / 64 + 1 / 61)
    assert (result.ranker, result.model, result.degraded, dict(result.drops)) == ("fused", None, False, {})
    assert [(b.backend, b.outcome, b.hits) for b in result.backends] == [("a", "ok", 4), ("b", "ok", 2)]
    assert all(b.index_version for b in result.backends)
    assert result.elapsed_ms > 0


async def test_pages_do_not_overlap(mixer: Mixer) -> None:
    """Pages by cursor are the whole list, each hit once, the ranks going on."""
    first = await mixer.search("csv")
    second = await mixer.search("csv", cursor=first.next_cursor)
    assert second.next_cursor == ""
    ids = [hit.id for page in (first, second) for hit in page.hits]
    assert sorted(ids) == ["1", "2", "3", "4", "5"]
    assert [hit.rank for hit in second.hits] == [4, 5]


async def test_page_beyond_the_end(mixer: Mixer) -> None:
    """A page beyond the last hit is empty, and not an error."""
    result = await mixer.search("csv", offset=100)
    assert (result.hits, result.candidates, result.next_cursor) == ((), 5, "")


async def test_nothing_found(mixer: Mixer) -> None:
    """A query that nothing matches is answered: nothing, and nothing was lacking."""
    result = await mixer.search("xyzzy", features=True)
    assert (result.hits, result.candidates, result.degraded) == ((), 0, False)


async def test_mix_by_name(mixer: Mixer) -> None:
    """A mix asks its own backends with its own limits, and shows its own fields."""
    result = await mixer.search("csv", mix="only_b", page_size=10)
    assert [(hit.id, hit.fields) for hit in result.hits] == [("4", {})]
    assert [backend.backend for backend in result.backends] == ["b"]


@pytest.mark.parametrize(("name", "hint"), [("onlyb", "did you mean 'only_b'"), ("zzz", "default, only_b")])
async def test_unknown_mix(mixer: Mixer, name: str, hint: str) -> None:
    """A mix that is not there is NOT_FOUND with the nearest name, or with all of them."""
    with pytest.raises(MixerError, match=hint) as failed:
        await mixer.search("csv", mix=name)
    assert failed.value.code is grpc.StatusCode.NOT_FOUND
    assert not failed.value.can_retry


@pytest.mark.parametrize(
    ("item", "ids"),
    [
        (Filter("kind", Equals("module")), ["5"]),
        (Filter("year", Range(1990, 2001)), ["1", "2"]),
        (Filter("year", Range(min=2001)), ["1", "5"]),
        (Filter("year", Terms((1999.0, 2020.0))), ["2", "5"]),
        (Filter("id", Terms(("3", "4"))), ["3", "4"]),
    ],
)
async def test_filters(mixer: Mixer, item: Filter, ids: list[str]) -> None:
    """Every kind of filter reaches every backend, and holds for every hit."""
    result = await mixer.search("csv", filters=[item], page_size=10)
    assert sorted(hit.id for hit in result.hits) == ids


async def test_filter_that_all_refuse(mixer: Mixer) -> None:
    """A filter that no backend can ever answer is the caller's mistake, and is not worth trying again."""
    with pytest.raises(MixerError) as failed:
        await mixer.search("csv", filters=[Filter("nonsense", Equals("x"))])
    assert failed.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert {violation.field for violation in failed.value.violations} == {"filters"}


async def test_features_on_demand(mixer: Mixer) -> None:
    """At the debug level a row of features comes with every hit of the page, in their order."""
    result = await mixer.search("csv tools", features=True, page_size=5)
    assert result.feature_names == ("year", "words")
    years = [hit.fields.get("year", np.nan) for hit in result.hits]
    np.testing.assert_array_equal(result.features[:, 0], np.array(years, float))
    assert set(result.features[:, 1]) == {2.0}
    assert (await mixer.search("csv")).feature_names == ()


async def test_ids_are_made(mixer: Mixer) -> None:
    """A request without an id gets one of its own."""
    ids = {(await mixer.search("csv")).query_id for _ in range(3)}
    assert len(ids) == 3
    assert "" not in ids


async def test_message_as_it_is_sent(mixer: Mixer) -> None:
    """A client that knows only the .proto file gets scores, ranks and outcomes as it says."""
    async with grpc.aio.insecure_channel(mixer.target) as channel:
        answer = await mixer_pb2_grpc.MixerServiceStub(channel).Search(search_request("csv"), timeout=8)
    assert answer.execution.ranker == pb.RANKER_FUSED
    assert {backend.outcome for backend in answer.execution.backends} == {pb.OUTCOME_OK}
    assert not answer.execution.HasField("model")
    assert not answer.HasField("features")


async def test_client_in_threads(mixer: Mixer) -> None:
    """The waiting client gets what the asynchronous one gets."""
    with MixerClient(mixer.target, timeout_s=10) as client:
        waited = await asyncio.to_thread(client.search, "csv", request_id="q")
        with pytest.raises(MixerError) as failed:
            await asyncio.to_thread(client.search, "")
    result = await mixer.search("csv", request_id="q")
    assert [hit.id for hit in waited.hits] == [hit.id for hit in result.hits]
    assert failed.value.violations[0].field == "query"


async def test_health_by_service(mixer: Mixer) -> None:
    """Health answers for the process and for the service, and knows no other."""
    async with grpc.aio.insecure_channel(mixer.target) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for service in ("", server.SERVICE):
            answer = await check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await check(health_pb2.HealthCheckRequest(service="no.such"))
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_many_at_once(mixer: Mixer) -> None:
    """Searches at once do not get each other's answers."""
    results = await asyncio.gather(
        *(mixer.search("csv", request_id=str(n), page_size=n % 5 + 1) for n in range(40))
    )
    assert [(r.query_id, len(r.hits)) for r in results] == [(str(n), n % 5 + 1) for n in range(40)]


async def test_backends_are_closed() -> None:
    """When the server stops its backends are closed, once each, also where it could not start."""
    closed: list[str] = []

    class Closing(Memory):
        async def close(self) -> None:
            closed.append("closed")

    backend = engines.memory(kind=Closing)
    async with mixers.running(mixers.settings({"a": MEMORY}), {"a": backend}) as running:
        assert closed == []
        taken: Any = {"listen": running.target}
        with pytest.raises(OSError, match="taken"):
            async with server.running(
                mixers.settings({"a": MEMORY}, server=taken), Metrics(), {"a": backend}
            ):
                pass
        assert closed == ["closed"]
    assert closed == ["closed"] * 2
