from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from backends.base import Equals, Filter, Range, Terms
from mixer import wire
from mixer.client import (
    AsyncMixerClient,
    BackendReport,
    MixerClient,
    MixerError,
    Source,
    StoreReport,
    search_request,
)
from mixer.errors import InvalidRequest, Reason, RequestError, TenantLimited, Unauthenticated, Violation
from mixer.interceptors import AnswerErrors, Layers
from mixer.metrics import Metrics
from mixer.server import SERVICE
from mixer.values import Drop, Outcome, Ranker, Scores, Stored
from protos.mixer.v1 import mixer_pb2 as pb
from protos.mixer.v1 import mixer_pb2_grpc as rpc
from tests.samples import MODEL, answer, hits, merged, mix, reply, request


class Canned(rpc.MixerServiceServicer):
    """Gives the answers in hand, one after the other, and keeps what it was asked."""

    def __init__(self, *answers: pb.SearchResponse | Exception | grpc.StatusCode) -> None:
        self._answers = list(answers)
        self.asked: list[pb.SearchRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []

    async def Search(  # noqa: N802
        self, message: pb.SearchRequest, context: grpc.aio.ServicerContext
    ) -> pb.SearchResponse:
        self.asked.append(message)
        self.metadata.append({pair[0]: pair[1] for pair in context.invocation_metadata() or ()})
        given = self._answers.pop(0)
        if isinstance(given, grpc.StatusCode):
            await context.abort(given, "in words")
        if isinstance(given, Exception):
            raise given
        return given


@asynccontextmanager
async def serving(canned: Canned) -> AsyncIterator[str]:
    server = grpc.aio.server(interceptors=[Layers(Metrics(), [AnswerErrors()])])
    rpc.add_MixerServiceServicer_to_server(canned, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def answering(name: str) -> AsyncIterator[tuple[str, health.aio.HealthServicer]]:
    """A server whose answers tell its name, as often as it is asked, and its health."""
    server, checks = grpc.aio.server(), health.aio.HealthServicer()
    made = whole()
    made.query_id = name
    rpc.add_MixerServiceServicer_to_server(Canned(*[made] * 500), server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", checks
    finally:
        await server.stop(None)


async def test_calls_are_spread_over_all_that_serve() -> None:
    """Over every address of the target in turn; one that says it does not serve gets none until it does again."""
    async with (
        answering("a") as (first, _),
        answering("b") as (second, checks),
        AsyncMixerClient(f"ipv4:{first},{second}", timeout_s=10) as client,
    ):
        await until_seen(client, {"a", "b"})
        seen = [(await client.search("read csv")).query_id for _ in range(10)]
        assert (seen.count("a"), seen.count("b")) == (5, 5)
        await checks.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        await until_seen(client, {"a"})
        await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await until_seen(client, {"a", "b"})


async def until_seen(client: AsyncMixerClient, names: set[str]) -> None:
    """Ask until just these answer a few calls in a row."""
    async with asyncio.timeout(30):
        while {(await client.search("read csv")).query_id for _ in range(4)} != names:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def ask(canned: Canned, attempts: int = 1, **options: Any) -> Any:
    async with serving(canned) as target, AsyncMixerClient(target, timeout_s=10, attempts=attempts) as client:
        return await client.search("read csv", **options)


def whole() -> pb.SearchResponse:
    rules = mix("a", "b")
    replies = (
        reply("a", hits(["x", "y", "x"], numbers={"year": [1999, 2000, 1]}, texts={"title": ["t", "", "u"]})),
        reply("b", None, Outcome.TIMEOUT, "no answer"),
    )
    stores = (Stored("clicks", Outcome.ERROR, 0.002, {}, 4, 3, 2, 1, 5, "down"),)
    found = replace(merged(rules, replies), stores=stores)
    made = answer(request(query_id="q1", debug=True), replies=replies, candidates=found)
    return wire.response_from(made, ("title", "year"), "f" * 32, 0.5)


async def test_an_answer_is_read_in_full() -> None:
    """Hits with their fields and sources, who answered and how, what was dropped, the features: all of it."""
    result = await ask(Canned(whole()))
    first, second = result.hits
    assert (first.id, first.rank, first.fused_rank, first.pinned) == ("y", 1, 2, False)
    assert (second.fields, second.sources) == ({"title": "t", "year": 1999}, (Source("a", 1, 3.0),))
    assert (result.query_id, result.trace_id, result.candidates) == ("q1", "f" * 32, 2)
    assert (result.ranker, result.model) == ("model", MODEL)
    assert result.degraded
    assert result.degraded_reasons == ("b: timeout", "store clicks: error")
    assert result.stores == (StoreReport("clicks", "error", 2, 4, 3, 2, 5, "down"),)
    assert result.backends == (
        BackendReport("a", "ok", 10, 2, "", "v1"),
        BackendReport("b", "timeout", 10, 0, "no answer", ""),
    )
    assert result.drops == {"a: repeated": 1}
    assert result.elapsed_ms == 500
    assert result.feature_names == ("one", "two")
    np.testing.assert_equal(result.features, [[2, 4], [1, np.nan]])


async def test_an_answer_without_features_or_model_says_so() -> None:
    """No features is an empty table; no model is None."""
    made = answer(scores=Scores(answer().candidates.fused, Ranker.FUSED))
    result = await ask(Canned(wire.response_from(made, (), "", 0)))
    assert (result.model, result.ranker, result.feature_names) == (None, "fused", ())
    assert result.features.size == 0


async def test_no_hits_are_an_answer() -> None:
    """An empty page has a feature table of no rows and all columns."""
    message = pb.SearchResponse(features=pb.FeatureTable(names=["one", "two"]))
    result = await ask(Canned(message))
    assert (result.hits, result.features.shape) == ((), (0, 2))


async def test_drops_of_one_reason_do_not_hide_each_other() -> None:
    """Two backends that repeat documents are two entries."""
    drops = (Drop("repeated", 1, "a"), Drop("repeated", 2, "b"))
    message = pb.SearchResponse(
        execution=pb.Execution(
            drops=[pb.Drop(reason=d.reason, count=d.count, backend=d.backend) for d in drops]
        )
    )
    assert (await ask(Canned(message))).drops == {"a: repeated": 1, "b: repeated": 2}


def test_what_is_asked_is_what_is_sent() -> None:
    """Every option has its field in the message."""
    message = search_request(
        "csv",
        mix="m",
        page_size=5,
        offset=10,
        cursor="c",
        filters=[
            Filter("kind", Equals("class")),
            Filter("year", Range(None, 2000.0)),
            Filter("id", Terms(("x", 1.0))),
        ],
        context={"plan": "free", "age": 31.0},
        features=True,
        request_id="r",
    )
    assert (message.query, message.mix, message.page_size, message.offset) == ("csv", "m", 5, 10)
    assert (message.cursor, message.request_id, message.debug) == ("c", "r", pb.DEBUG_LEVEL_FEATURES)
    kind, year, ids = message.filters
    assert kind.equals.text == "class"
    assert (year.range.HasField("min"), year.range.max) == (False, 2000)
    assert [value.WhichOneof("kind") for value in ids.terms.values] == ["text", "number"]
    assert (message.context["plan"].text, message.context["age"].number) == ("free", 31)


async def test_an_error_says_each_wrong_field() -> None:
    """The violations that the server sent along are there, with the code and its words."""
    wrong = [Violation("query", "is empty"), Violation("page_size", "is -1; send 0 to 100")]
    with pytest.raises(MixerError) as failed:
        await ask(Canned(InvalidRequest(wrong)))
    assert failed.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failed.value.violations == tuple(wrong)
    assert not failed.value.can_retry
    assert str(failed.value).startswith("INVALID_ARGUMENT: query: is empty")


@pytest.mark.parametrize(
    ("code", "again"),
    [
        (grpc.StatusCode.UNAVAILABLE, True),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True),
        (grpc.StatusCode.NOT_FOUND, False),
        (grpc.StatusCode.FAILED_PRECONDITION, False),
        (grpc.StatusCode.INTERNAL, False),
    ],
)
async def test_an_error_says_whether_to_try_again(code: grpc.StatusCode, again: bool) -> None:
    """What may pass later can be tried again; what the caller must mend cannot."""
    with pytest.raises(MixerError) as failed:
        await ask(Canned(code))
    assert (failed.value.code, failed.value.message) == (code, "in words")
    assert failed.value.can_retry == again
    assert failed.value.violations == ()


_OWN: dict[type[RequestError], tuple[Any, ...]] = {
    InvalidRequest: ([Violation("f", "d")],),
    Unauthenticated: ("bad_token", "words"),
    TenantLimited: ("words", Reason("rate_limited"), 1.5),
}
"""What errors are made of that take more than words."""


async def test_every_request_error_has_its_status() -> None:
    """Each class of request error reaches the caller as its own status."""

    def leaves(kind: type[RequestError]) -> list[type[RequestError]]:
        below = [leaf for child in kind.__subclasses__() for leaf in leaves(child)]
        return below or [kind]

    for kind in leaves(RequestError):
        error = kind(*_OWN.get(kind, ("words",)))
        with pytest.raises(MixerError) as failed:
            await ask(Canned(error))
        assert failed.value.code is kind.status


async def test_a_server_that_is_unavailable_is_tried_again() -> None:
    """Up to the number of attempts, and no other error is tried twice."""
    canned = Canned(grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, pb.SearchResponse(query_id="q"))
    assert (await ask(canned, attempts=3)).query_id == "q"
    assert len(canned.asked) == 3
    canned = Canned(grpc.StatusCode.INTERNAL, pb.SearchResponse())
    with pytest.raises(MixerError):
        await ask(canned, attempts=3)
    assert len(canned.asked) == 1


async def test_one_attempt_is_one() -> None:
    """Without retries the first failure is the answer."""
    canned = Canned(grpc.StatusCode.UNAVAILABLE, pb.SearchResponse())
    with pytest.raises(MixerError):
        await ask(canned, attempts=1)
    assert len(canned.asked) == 1


async def test_the_caller_s_trace_goes_along() -> None:
    """A search within a span carries its W3C context."""
    canned = Canned(pb.SearchResponse())
    context = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with trace.use_span(NonRecordingSpan(context)):
        await ask(canned)
    assert canned.metadata[0]["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"


async def test_threads_have_a_client_too() -> None:
    """The client that waits says the same as the one that does not, errors included."""
    canned = Canned(whole(), InvalidRequest([Violation("query", "is empty")]))
    async with serving(canned) as target:

        def search() -> Any:
            with MixerClient(target, timeout_s=10) as client:
                found = client.search("read csv", page_size=3)
                with pytest.raises(MixerError) as failed:
                    client.search("")
                return found, failed.value

        result, error = await asyncio.to_thread(search)
    assert [hit.id for hit in result.hits] == ["y", "x"]
    assert error.violations == (Violation("query", "is empty"),)
    assert [message.page_size for message in canned.asked] == [3, 0]


async def test_nobody_there_is_unavailable() -> None:
    """A target on which nothing listens is an error that can be tried again."""
    async with AsyncMixerClient("127.0.0.1:1", timeout_s=10, attempts=1) as client:
        with pytest.raises(MixerError) as failed:
            await client.search("csv")
    assert failed.value.code is grpc.StatusCode.UNAVAILABLE
    assert failed.value.can_retry
