"""What breaks behind and before Mixer, over real sockets: no answer that could be given is lost, nothing hangs."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from backends.base import Equals, Filter, Terms
from mixer import model
from mixer.client import MixerError, SearchResult, search_request
from mixer.forest import Forest
from mixer.manifest import MODEL, Manifest, sha256_of
from mixer.metrics import Metrics
from mixer.rank import RankByFusion
from protos.backends.v1 import backend_pb2 as pb
from protos.mixer.v1 import mixer_pb2_grpc
from tests import forest
from tests.doubles import engines, mixers, sockets
from tests.doubles.engines import answering, columns
from tests.doubles.mixers import Tracing

SOON_S = 12.0
"""Bound on what must not hang: far above what it takes, far below for ever."""
SPANS_OF_ONE_BACKEND = 9
IMPATIENT = {"bad": {"timeout_s": 0.3}}
SECRET = "tr0ub4dor"
IDS = [document["id"] for document in engines.DOCUMENTS]
FEATURES = [feature.model_dump() for feature in forest.FEATURES]


@pytest.fixture(autouse=True)
async def nothing_hangs() -> AsyncIterator[None]:
    """Every test here ends."""
    async with asyncio.timeout(30):
        yield


@pytest.fixture
async def good() -> AsyncIterator[str]:
    """A healthy backend's address."""
    async with engines.healthy() as target:
        yield target


@pytest.fixture
def traced() -> Iterator[Tracing]:
    with mixers.tracing() as kept:
        yield kept


async def beside(good: str, bad: str, **mix: Any) -> SearchResult:
    """What a search brings with a healthy backend and this one."""
    async with mixers.running(mixers.settings({"good": good, "bad": bad}, mix)) as mixer:
        async with asyncio.timeout(SOON_S):
            return await mixer.search("csv file")


def ids(result: SearchResult) -> list[str]:
    return [hit.id for hit in result.hits]


def report(result: SearchResult, backend: str) -> Any:
    return next(report for report in result.backends if report.backend == backend)


def assert_only_good_answered(result: SearchResult, outcome: str) -> None:
    assert sorted(ids(result)) == IDS
    assert (result.degraded, result.degraded_reasons) == (True, (f"bad: {outcome}",))
    assert (report(result, "bad").outcome, report(result, "bad").hits) == (outcome, 0)
    assert report(result, "good").outcome == "ok"


async def test_backend_that_never_answers(good: str) -> None:
    """A backend that takes the call and never answers costs its own hits only, and is named."""
    async with engines.engine(engines.hanging) as hung:
        result = await beside(good, hung.target, members=IMPATIENT)
        await asyncio.wait_for(hung.cancelled.wait(), SOON_S)
    assert_only_good_answered(result, "timeout")


async def test_backend_that_never_speaks(good: str) -> None:
    """A port that accepts connections and never reads from them is a timeout."""
    with sockets.black_hole() as bad:
        assert_only_good_answered(await beside(good, bad, members=IMPATIENT), "timeout")


async def test_backend_that_is_down(good: str) -> None:
    """A port that nothing listens on is an error, long before the backend's time is over."""
    with sockets.refusing() as bad:
        result = await beside(good, bad, members={"bad": {"timeout_s": 25.0}})
    assert_only_good_answered(result, "error")


async def test_backend_that_dies_in_the_middle_of_a_call(good: str) -> None:
    """A connection that breaks after the call was taken is an error, long before the backend's time is over."""
    members = {"bad": {"timeout_s": 25.0}}
    async with engines.engine(engines.hanging) as dying, sockets.cable(dying.target) as cable:
        targets = {"good": good, "bad": cable.target}
        async with mixers.running(mixers.settings(targets, {"members": members})) as mixer:
            call = asyncio.create_task(mixer.search("csv file"))
            await asyncio.wait_for(dying.asked.wait(), SOON_S)
            cable.cut()
            result = await asyncio.wait_for(call, SOON_S)
    assert_only_good_answered(result, "error")


async def test_backend_comes_back(good: str) -> None:
    """A backend whose connection broke is asked again, and its hits count as if nothing had been."""
    async with (
        engines.engine(answering(columns(["x"]))) as other,
        sockets.cable(other.target) as cable,
        mixers.running(mixers.settings({"good": good, "bad": cable.target})) as mixer,
    ):
        assert not (await mixer.search("csv file")).degraded
        cable.cut()
        async with asyncio.timeout(SOON_S):
            while (await mixer.search("csv file")).degraded:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


MISALIGNED = pb.NumberColumn(name="year", values=[1.0])
GARBAGE = {
    "random bytes": b"\xff\x00garbage" * 50,
    "cut off": columns(["1", "2"], titles=["a", "b"]).SerializeToString()[:-10],
    "invalid utf-8": b"\x0a\x02\xff\xfe",
    "another protocol": b"HTTP/1.1 200 OK\r\n\r\n",
    "too few scores": columns(["1", "2"], [1.0]),
    "scores without ids": columns([], [1.0]),
    "a short number column": pb.RetrieveResponse(ids=["1", "2"], scores=[2, 1], numbers=[MISALIGNED]),
    "a short text column": columns(["1", "2"], titles=["one"]),
    "an empty id": columns(["1", ""]),
    "a column twice": pb.RetrieveResponse(numbers=[pb.NumberColumn(name="y"), pb.NumberColumn(name="y")]),
}


@pytest.mark.parametrize("message", GARBAGE.values(), ids=GARBAGE)
async def test_backend_that_answers_garbage(good: str, message: bytes | pb.RetrieveResponse) -> None:
    """An answer that makes no sense is an error, none of it is served, and its bytes are not repeated."""
    async with engines.engine(answering(message)) as bad:
        result = await beside(good, bad.target)
    assert_only_good_answered(result, "error")
    assert "garbage" not in report(result, "bad").detail.removeprefix("garbage: ")


@pytest.mark.parametrize(
    "seconds",
    [
        2**63 - 1,
        -(2**63),
        253402300800,
    ],
)
async def test_backend_that_tells_no_time(good: str, seconds: int) -> None:
    """A freshness that is no date costs no answer."""
    message = columns(["9"])
    message.index.fresh_at.seconds = seconds
    async with engines.engine(answering(message)) as odd:
        result = await beside(good, odd.target)
    assert set(IDS) <= set(ids(result))


async def rebuilt(request: pb.RetrieveRequest, context: object) -> bytes:
    """An index, schema and program of the number that ends the query."""
    made, which = columns(["9"]), request.query.split()[-1]
    made.index.version, made.index.schema, made.server_version = f"v{which}", f"s{which}", f"raw/{which}"
    made.index.fresh_at.seconds = 1000 + int(which)
    return made.SerializeToString()


async def test_backend_that_becomes_another(good: str, caplog: pytest.LogCaptureFixture) -> None:
    """Another index, schema or program behind the same address costs no answer; each is counted and logged once."""
    told = {"index": ("v1", "v2"), "schema": ("s1", "s2"), "server": ("raw/1", "raw/2")}
    async with (
        engines.engine(rebuilt) as other,
        mixers.running(mixers.settings({"good": good, "bad": other.target})) as mixer,
    ):
        results = [await mixer.search(f"csv file {which}") for which in (1, 1, 2, 2)]
        labels = {"mix": "default", "backend": "bad"}
        assert mixer.value("mixer_backend_fresh_timestamp_seconds", **labels) == 1002
        for what in told:
            assert mixer.value("mixer_backend_changes_total", **labels, what=what) == 1
    assert not any(result.degraded for result in results)
    assert [report(result, "bad").index_version for result in results] == ["v1", "v1", "v2", "v2"]
    lines = [vars(line) for line in caplog.records if line.message == "backend changed"]
    assert {line["what"]: (line["before"], line["after"]) for line in lines} == told
    assert len(lines) == len(told)


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_backend_that_fails(good: str, code: grpc.StatusCode) -> None:
    """Every status of a backend is an outcome, and the backend's own words go no further."""
    async with engines.engine(engines.failing(code, f"cannot: {SECRET}")) as bad:
        result = await beside(good, bad.target)
    assert sorted(ids(result)) == IDS
    assert report(result, "bad").outcome in {"error", "timeout", "refused"}
    assert SECRET not in repr(result)


FUSIONS = [{"kind": "rrf"}, {"kind": "linear"}, {"kind": "linear", "normalize": "z_score"}]
ODD_SCORES = {
    "not finite": [np.nan, np.inf, -np.inf, 1.0],
    "no number": [np.nan] * 4,
    "the whole range": [1.7e308, -1.7e308, 5e-324, 0.0],
    "huge": [1e308, 1e308, 1e308, 1e308],
}


@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda fusion: "-".join(fusion.values()))
@pytest.mark.parametrize("scores", ODD_SCORES.values(), ids=ODD_SCORES)
async def test_scores_that_are_no_numbers(good: str, scores: list[float], fusion: dict[str, Any]) -> None:
    """NaN, infinite and huge scores keep their documents and their places; what was left out is counted."""
    async with engines.engine(answering(columns(["w", "x", "y", "z"], scores))) as odd:
        result = await beside(good, odd.target, fusion=fusion)
    assert sorted(ids(result)) == [*IDS, "w", "x", "y", "z"]
    assert np.isfinite([hit.score for hit in result.hits]).all()
    lost = int((~np.isfinite(scores)).sum())
    assert result.drops == ({"bad: score_not_finite": lost} if lost else {})
    assert not result.degraded


async def test_repeats_do_not_vote_twice(good: str) -> None:
    """A backend that repeats documents gets the answer it would get without, and the repeats are counted."""
    async with engines.engine(answering(columns(["4", "9", "4", "4", "9", "3"]))) as stutters:
        result = await beside(good, stutters.target)
    async with engines.engine(answering(columns(["4", "9", "3"]))) as plain:
        expected = await beside(good, plain.target)
    assert [(hit.id, hit.fused_score) for hit in result.hits] == [
        (hit.id, hit.fused_score) for hit in expected.hits
    ]
    assert result.drops == {"bad: repeated": 3}


TEN_THOUSAND = columns([f"{row:05}" for row in range(10_000)], titles=["csv file"] * 10_000)


async def test_ten_thousand_candidates_over_the_limit(good: str) -> None:
    """What a backend sends beyond its limit is cut and counted."""
    async with engines.engine(answering(TEN_THOUSAND)) as floods:
        result = await beside(good, floods.target, members={"bad": {"timeout_s": 15.0, "limit": 50}})
    assert result.candidates == 50 + len(IDS)
    assert result.drops == {"bad: over_limit": 9_950}
    assert not result.degraded


async def test_ten_thousand_candidates_within_the_limit(good: str) -> None:
    """Ten thousand candidates are merged, ranked and paged where the mix allows so many."""
    mix = {
        "members": {"bad": {"timeout_s": 15.0, "limit": 10_000}},
        "features": FEATURES_OF_TITLES,
    }
    async with engines.engine(answering(TEN_THOUSAND)) as floods:
        targets = {"good": good, "bad": floods.target}
        allowed = mixers.settings(targets, mix, limits={"candidates": 20_000})
        async with mixers.running(allowed) as mixer:
            result = await mixer.search("csv file", page_size=100, offset=9_950)
    assert (result.candidates, len(result.hits)) == (10_000 + len(IDS), 54)
    assert not result.drops


FEATURES_OF_TITLES = [{"name": "c", "source": "text", "fields": ["title"], "measure": "query_coverage"}]


async def test_all_dead_is_unavailable() -> None:
    """Where no backend answers the call fails at once, and says which of them failed: never an empty OK."""
    with sockets.refusing() as one, sockets.refusing() as two:
        async with mixers.running(mixers.settings({"one": one, "two": two})) as mixer:
            async with asyncio.timeout(SOON_S):
                with pytest.raises(MixerError) as failed:
                    await mixer.search("csv file")
    assert failed.value.code is grpc.StatusCode.UNAVAILABLE
    assert "one: " in failed.value.message
    assert "two: " in failed.value.message


async def test_all_hung_is_unavailable_before_the_deadline() -> None:
    """Where every backend hangs the call fails within its deadline, not by it."""
    members = {"one": {"timeout_s": 25.0}, "two": {"timeout_s": 0.1}}
    async with engines.engine(engines.hanging) as hung:
        targets = {"one": hung.target, "two": hung.target}
        mix = {"members": members, "rank_reserve_s": 0.75}
        async with mixers.running(mixers.settings(targets, mix)) as mixer:
            with pytest.raises(MixerError, match="no backend answered") as failed:
                await mixer.search("csv file", timeout_s=1.5)
    assert failed.value.code is grpc.StatusCode.UNAVAILABLE


async def test_cancel_reaches_the_backends(good: str, traced: Tracing) -> None:
    """A client that hangs up cancels the calls to the backends, and leaves no span open."""
    async with engines.engine(engines.hanging) as hung:
        mix = {"members": {"bad": {"timeout_s": 25.0}}}
        async with mixers.running(mixers.settings({"good": good, "bad": hung.target}, mix)) as mixer:
            call = asyncio.create_task(mixer.search("csv file"))
            await asyncio.wait_for(hung.asked.wait(), SOON_S)
            call.cancel()
            await asyncio.wait_for(hung.cancelled.wait(), SOON_S)
            await mixers.until(lambda: traced.named(mixers.ROOT) and not traced.open)
            assert mixer.value("mixer_calls_in_flight") == 0
            labels = {"mix": "default", "backend": "bad", "outcome": "cancelled"}
            assert mixer.value("mixer_backend_duration_seconds_count", **labels) == 1
            stage = {"mix": "default", "stage": "fan_out", "error": "cancelled"}
            assert mixer.value("mixer_stage_failures_total", **stage) == 1
    attributes = traced.one("retrieve bad").attributes or {}
    assert attributes["mixer.backend.outcome"] == "cancelled"


async def test_deadline_too_short(good: str) -> None:
    """A deadline within the ranking reserve fails at once, asks nobody, and says what is wrong with it."""
    async with engines.engine(engines.hanging) as watched:
        mix = {"rank_reserve_s": 25.0}
        async with mixers.running(mixers.settings({"good": good, "bad": watched.target}, mix)) as mixer:
            async with asyncio.timeout(SOON_S):
                with pytest.raises(MixerError, match="the deadline leaves nothing") as failed:
                    await mixer.search("csv file", timeout_s=20.0)
        assert not watched.asked.is_set()
    assert failed.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_deadline_leaves_the_slow_behind(good: str) -> None:
    """A backend that needs more than the caller's time is left behind and named; the rest is answered."""
    async with engines.engine(engines.hanging) as slow:
        mix = {"members": {"bad": {"timeout_s": 25.0}}, "rank_reserve_s": 0.8}
        async with mixers.running(mixers.settings({"good": good, "bad": slow.target}, mix)) as mixer:
            result = await mixer.search("csv file", timeout_s=2.0)
    assert_only_good_answered(result, "timeout")


async def test_no_deadline_means_the_servers(good: str) -> None:
    """A caller without a deadline gets the server's default: a hung backend holds nobody for ever."""
    async with engines.engine(engines.hanging) as hung:
        mix = {"members": {"bad": {"timeout_s": 25.0}, "good": {"timeout_s": 25.0}}, "rank_reserve_s": 0.3}
        settings = mixers.settings(
            {"good": good, "bad": hung.target}, mix, server={"default_deadline_s": 1.5}
        )
        async with mixers.running(settings) as mixer, grpc.aio.insecure_channel(mixer.target) as channel:
            search = mixer_pb2_grpc.MixerServiceStub(channel).Search
            answer = await asyncio.wait_for(search(search_request("csv file")), SOON_S)
    assert list(answer.execution.degraded_reasons) == ["bad: timeout"]
    assert len(answer.hits) == len(IDS)


def truncated(folder: Path) -> None:
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data[: len(data) // 2])


def flipped(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[data.index(b"leaf_value=") + len(b"leaf_value=-0.0")] ^= 1
    (folder / MODEL).write_bytes(data)


def resealed(folder: Path) -> None:
    """Flipped, and its manifest made to fit: only the golden queries can tell."""
    flipped(folder)
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    sealed = manifest.model_copy(update={"model_sha256": sha256_of(folder / MODEL)})
    (folder / "manifest.json").write_text(sealed.model_dump_json())


def gone(folder: Path) -> None:
    shutil.rmtree(folder)


BREAKS = [
    (truncated, "checksum"),
    (flipped, "checksum"),
    (resealed, "golden"),
    (gone, "manifest"),
]


def with_model(good: str, folder: Path, **mix: Any) -> Any:
    rules = {"model": "forest", "features": FEATURES, **mix}
    return mixers.settings({"a": good}, rules, models={"forest": {"path": folder}}, server=mixers.ADMIN)


@pytest.mark.parametrize(("spoil", "check"), BREAKS[:2])
async def test_spoiled_model_is_not_ready(
    good: str, model_folder: Path, tmp_path: Path, spoil: Any, check: str
) -> None:
    """A mix whose model fails a check keeps the server from being ready, and says why; the process lives."""
    folder = tmp_path / "spoiled"
    shutil.copytree(model_folder, folder)
    spoil(folder)
    async with mixers.running(with_model(good, folder)) as mixer:
        assert (await mixer.get("/readyz"))[0] == 503
        assert (await mixer.get("/livez"))[0] == 200
        assert str(folder) in mixer.app.faults["default"]
        assert mixer.value("mixer_model_refused_total", mix="default", check=check) == 1
        with pytest.raises(MixerError) as failed:
            await mixer.search("csv file", timeout_s=0.5)
    assert failed.value.can_retry


@pytest.mark.parametrize(("spoil", "check"), BREAKS)
async def test_spoiled_model_serves_the_fused_order(
    good: str, model_folder: Path, tmp_path: Path, spoil: Any, check: str
) -> None:
    """With `without_model: serve_fused` the prior order stands, whole, and the answer says why."""
    folder = tmp_path / "spoiled"
    shutil.copytree(model_folder, folder)
    spoil(folder)
    async with mixers.running(with_model(good, folder, without_model="serve_fused")) as mixer:
        assert (await mixer.get("/readyz"))[0] == 200
        result = await mixer.search("csv file")
        assert mixer.value("mixer_fallbacks_total", mix="default", reason=f"{check}_failed") == 1
    assert ids(result) == IDS
    assert [hit.rank for hit in result.hits] == [hit.fused_rank for hit in result.hits] == [1, 2, 3, 4]
    assert (result.ranker, result.degraded_reasons) == ("fused", (f"ranker: {check}_failed",))


async def test_model_that_fails_to_score(
    good: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that fails at a request leaves the prior order standing for it, says so, and is tried again."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)

    def fails(forest: object, matrix: object) -> None:
        raise ValueError(SECRET)

    async with mixers.running(with_model(good, model_folder)) as mixer:
        sound = await mixer.search("csv file")
        with monkeypatch.context() as patch:
            patch.setattr(Forest, "score", fails)
            result = await mixer.search("csv file")
        again = await mixer.search("csv file")
    assert ids(result) == IDS
    assert (result.ranker, result.degraded_reasons) == ("fused", ("ranker: scoring_failed",))
    assert result.model == sound.model
    assert SECRET not in repr(result)
    assert (sound.ranker, again.ranker, again.degraded) == ("model", "model", False)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("collector", [sockets.refusing, sockets.black_hole], ids=["down", "black hole"])
async def test_collector_that_is_of_no_use(
    good: str, monkeypatch: pytest.MonkeyPatch, collector: Any, protocol: str
) -> None:
    """A collector that is down or never reads costs counted spans: no answer, and no end without end."""
    with collector() as address:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{address}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_INSECURE", "true")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
        metrics = Metrics()
        with mixers.exporting(metrics) as telemetry:
            async with mixers.running(mixers.settings({"good": good}), metrics=metrics) as mixer:
                async with asyncio.timeout(SOON_S):
                    results = [await mixer.search("csv file") for _ in range(5)]
                await mixers.until(lambda: mixer.value("mixer_spans_dropped_total", reason="export_failed"))
            async with asyncio.timeout(SOON_S):
                await asyncio.to_thread(telemetry.shutdown)
            dropped = [s.value for s in mixer.samples if s.name == "mixer_spans_dropped_total"]
    assert all(ids(result) == IDS and not result.degraded and result.trace_id for result in results)
    assert sum(dropped) == 5 * SPANS_OF_ONE_BACKEND


async def test_megabyte_of_query(good: str) -> None:
    """A query beyond the limit is the caller's mistake: the field is named, the text is not repeated."""
    async with mixers.running(mixers.settings({"good": good})) as mixer:
        with pytest.raises(MixerError) as failed:
            await mixer.search(SECRET * (2**20 // len(SECRET)))
        assert (await mixer.search("csv file")).hits
    assert failed.value.code is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = failed.value.violations
    assert violation.field == "query"
    assert "2048" in violation.description
    assert SECRET not in str(failed.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"filters": [Filter("year", Terms((float("nan"),) * 1000))] * 32},
        {"context": {"🦆" * 1020 + str(n): "🦆" * 2000 for n in range(64)}},
        {"context": {"\x00" * 1000 + str(n): "%" * 2000 for n in range(64)}},
        {"filters": [Filter("", Equals("x" * 2000))] * 32},
    ],
    ids=["terms", "long keys", "keys to escape", "filters"],
)
async def test_thousands_of_mistakes(good: str, wrong: dict[str, Any]) -> None:
    """However much is wrong, the caller learns the status and the first fields: trailers do not burst."""
    async with mixers.running(mixers.settings({"good": good})) as mixer:
        with pytest.raises(MixerError) as failed:
            await mixer.search("csv file", **wrong)
    assert failed.value.code is grpc.StatusCode.INVALID_ARGUMENT, failed.value
    assert failed.value.violations
    assert " more" in failed.value.message


async def test_message_beyond_the_size_limit(good: str) -> None:
    """A message too long to be read is turned away, and the server goes on."""
    async with mixers.running(mixers.settings({"good": good})) as mixer:
        async with grpc.aio.insecure_channel(mixer.target, [("grpc.max_send_message_length", -1)]) as channel:
            search = channel.unary_unary("/" + mixers.ROOT)
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await search(bytes(65 * 2**20), timeout=20)
        assert (await mixer.search("csv file")).hits
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_too_many_calls_at_once() -> None:
    """Calls beyond the limit are turned away at once; those within it are answered; then there is room again."""
    gate = asyncio.Event()

    async def gated(request: pb.RetrieveRequest, context: object) -> bytes:
        await gate.wait()
        return columns(["1"]).SerializeToString()

    async with engines.engine(gated) as slow, AsyncExitStack() as stack:
        settings = mixers.settings(
            {"slow": slow.target}, {"members": {"slow": {"timeout_s": 9.0}}}, limits={"concurrent_calls": 2}
        )
        mixer = await stack.enter_async_context(mixers.running(settings))
        held = [asyncio.create_task(mixer.search("csv file")) for _ in range(2)]
        await mixers.until(lambda: len(slow.requests) == 2)
        with pytest.raises(MixerError) as failed:
            await asyncio.wait_for(mixer.search("csv file"), SOON_S)
        gate.set()
        assert all([(await call).hits for call in held])
        assert (await mixer.search("csv file")).hits
    assert failed.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failed.value.can_retry


async def test_mistake_in_a_stage(good: str, monkeypatch: pytest.MonkeyPatch, traced: Tracing) -> None:
    """A programmer's mistake is INTERNAL: it hides behind no fallback, and its text stays here."""

    def crash(self: object, candidates: object, features: object) -> None:
        raise KeyError(SECRET)

    monkeypatch.setattr(RankByFusion, "__call__", crash)
    async with mixers.running(mixers.settings({"good": good})) as mixer:
        with pytest.raises(MixerError) as failed:
            await mixer.search("csv file")
        labels = {"mix": "default", "stage": "rank", "error": "unexpected"}
        assert mixer.value("mixer_stage_failures_total", **labels) == 1
        await mixers.until(lambda: not traced.open)
    assert failed.value.code is grpc.StatusCode.INTERNAL
    assert SECRET not in str(failed.value)
    assert "KeyError" not in str(failed.value)


async def test_unknown_mix(good: str) -> None:
    """A mix that is not configured is NOT_FOUND, and the nearest name is offered."""
    async with mixers.running(mixers.settings({"good": good})) as mixer:
        with pytest.raises(MixerError, match="did you mean 'default'") as failed:
            await mixer.search("csv file", mix="defualt")
    assert failed.value.code is grpc.StatusCode.NOT_FOUND
