"""From the first call to a clean end: ready, drained, stopped; and the small port for machines."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from mixer.client import AsyncMixerClient, MixerError, search_request
from mixer.metrics import Metrics
from mixer.server import SERVICE
from mixer.serving import Listening, Server, run_loop
from protos.backends.v1 import backend_pb2 as pb
from protos.mixer.v1 import mixer_pb2_grpc
from tests.doubles import engines, mixers
from tests.doubles.engines import columns

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(autouse=True)
async def nothing_hangs() -> AsyncIterator[None]:
    """Every test here ends."""
    async with asyncio.timeout(40):
        yield


class Gate:
    """A backend's answer that waits to be let through."""

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, request: pb.RetrieveRequest, context: Any) -> bytes:
        self.reached.set()
        await self.opened.wait()
        return columns(["1"]).SerializeToString()


def patient(target: str, drain_s: float) -> Any:
    """Settings that wait long for this backend."""
    mix = {"members": {"slow": {"timeout_s": 30.0}}}
    return mixers.settings({"slow": target}, mix, server={**mixers.ADMIN, "drain_s": drain_s})


@asynccontextmanager
async def watching(target: str) -> AsyncIterator[asyncio.Queue[int]]:
    """What the health service says, as it says it; -1 when it says no more."""
    told: asyncio.Queue[int] = asyncio.Queue()

    async def watch(channel: grpc.aio.Channel) -> None:
        try:
            async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
                told.put_nowait(answer.status)
        except grpc.aio.AioRpcError:
            told.put_nowait(-1)

    async with grpc.aio.insecure_channel(target) as channel:
        task = asyncio.create_task(watch(channel))
        yield told
        task.cancel()
        await asyncio.wait([task])


async def checked(target: str, service: str = "") -> int:
    """What the health service says now."""
    async with grpc.aio.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, timeout=8)
    return int(answer.status)


async def test_ready_when_told() -> None:
    """A server lives from its start, and is ready from when it is told so: on both of its ports."""
    server = Server(Listening("127.0.0.1:0", admin="127.0.0.1:0", drain_s=0.1), Metrics(), [SERVICE])
    await server.start()
    target, url = f"127.0.0.1:{server.port}", f"http://127.0.0.1:{server.admin_port}"

    async def said() -> tuple[int, int, int, int]:
        livez, readyz = [
            (await asyncio.to_thread(mixers.get, url + path))[0] for path in ("/livez", "/readyz")
        ]
        return livez, readyz, await checked(target), await checked(target, SERVICE)

    assert await said() == (200, 503, NOT_SERVING, NOT_SERVING)
    await server.ready()
    assert await said() == (200, 200, SERVING, SERVING)
    await server.stop()


async def test_drain() -> None:
    """A server told to stop says so first, takes no new call, and lets the one in flight end."""
    gate = Gate()
    async with (
        engines.engine(gate) as slow,
        mixers.running(patient(slow.target, 20.0)) as mixer,
        watching(mixer.target) as health,
    ):
        assert await health.get() == SERVING
        call = asyncio.create_task(mixer.search("csv file"))
        await gate.reached.wait()
        stopping = asyncio.create_task(mixer.server.stop())
        assert await health.get() == NOT_SERVING
        assert not call.done()
        assert (await mixer.get("/readyz"))[0] == 503
        assert (await mixer.get("/livez"))[0] == 200
        with pytest.raises(MixerError) as refused:
            async with AsyncMixerClient(mixer.target, attempts=1) as late:
                await late.search("csv file")
        assert refused.value.code is grpc.StatusCode.UNAVAILABLE
        gate.opened.set()
        assert [hit.id for hit in (await call).hits] == ["1"]
        await stopping


async def test_drain_waits_for_calls_only() -> None:
    """Whoever watches the server's health does not hold up its end: the drain is over with the last call."""
    async with (
        mixers.running(mixers.settings({"a": MEMORY}, server={"drain_s": 30.0})) as mixer,
        watching(mixer.target) as health,
    ):
        assert await health.get() == SERVING
        await mixer.search("csv file")
        async with asyncio.timeout(8):
            await mixer.server.stop()


async def test_drain_has_an_end() -> None:
    """A call that outlasts the drain is cancelled, down to the backend."""
    async with engines.engine(engines.hanging) as hung, mixers.running(patient(hung.target, 0.2)) as mixer:
        call = asyncio.create_task(mixer.search("csv file"))
        await hung.asked.wait()
        async with asyncio.timeout(8):
            await mixer.server.stop()
            await hung.cancelled.wait()
            with pytest.raises(MixerError) as failed:
                await call
    assert failed.value.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def config(folder: Path, target: str) -> Path:
    """A settings file over one backend."""
    written = folder / "mixer.yaml"
    tree = patient(target, 20.0).model_dump(mode="json", exclude_none=True)
    written.write_text(yaml.safe_dump(tree))
    return written


@asynccontextmanager
async def process(settings: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """`mixer serve` in a process of its own, and its port."""
    command = [sys.executable, "-m", "mixer", "serve", "--config", str(settings)]
    pipe = asyncio.subprocess.PIPE
    served = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    assert served.stdout is not None
    try:
        line = json.loads(await served.stdout.readline())
        assert line["event"] == "serving"
        yield served, line["port"]
    finally:
        if served.returncode is None:
            served.kill()
        await served.communicate()


async def test_signal(tmp_path: Path) -> None:
    """On SIGTERM the process says NOT_SERVING, answers the call in flight, and ends well, with one line a call."""
    gate = Gate()
    async with (
        engines.engine(gate) as slow,
        process(config(tmp_path, slow.target)) as (served, port),
        watching(f"127.0.0.1:{port}") as health,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        assert await health.get() == SERVING
        stub = mixer_pb2_grpc.MixerServiceStub(channel)
        call = asyncio.create_task(_awaited(stub.Search(search_request("csv file"), timeout=30)))
        await gate.reached.wait()
        served.send_signal(signal.SIGTERM)
        assert await health.get() == NOT_SERVING
        assert not call.done()
        gate.opened.set()
        assert [hit.id for hit in (await call).hits] == ["1"]
        out, err = await served.communicate()
    assert served.returncode == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines].count("call") == 1
    assert b"Traceback" not in err


async def _awaited(call: Any) -> Any:
    return await call


@pytest.mark.parametrize("port", ["listen", "admin_listen"])
async def test_port_is_taken(port: str) -> None:
    """A port that is taken is an error that says so, and nothing stays behind."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = {port: f"127.0.0.1:{held.getsockname()[1]}"}
        with pytest.raises(OSError, match=r"in use|taken"):
            async with mixers.running(mixers.settings({"a": MEMORY}, server=taken)):
                pass
    async with mixers.running(mixers.settings({"a": MEMORY}, server=taken)) as mixer:
        assert (await mixer.search("csv file")).hits


async def test_reflection() -> None:
    """The server tells a client that has no .proto file what it serves."""
    async with (
        mixers.running(mixers.settings({"a": MEMORY})) as mixer,
        grpc.aio.insecure_channel(mixer.target) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([asked]))
        answers = [answer async for answer in call]
    names = {service.name for service in answers[0].list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("symbol", [SERVICE, f"{SERVICE}.Search", "mixer.v1.SearchRequest"])
async def test_reflection_finds_the_file_of_every_symbol(symbol: str) -> None:
    """Of a method too, which is what some clients ask for; what is not there is told to be not found."""
    async with (
        mixers.running(mixers.settings({"a": MEMORY})) as mixer,
        grpc.aio.insecure_channel(mixer.target) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=name)
            for name in (symbol, f"{symbol}.Nothing")
        ]
        found, missing = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]
    files = map(FileDescriptorProto.FromString, found.file_descriptor_response.file_descriptor_proto)
    assert "protos/mixer/v1/mixer.proto" in {file.name for file in files}
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


async def test_admin_port() -> None:
    """The admin port knows three paths and is not found on any other."""
    async with mixers.running(mixers.settings({"a": MEMORY}, server=mixers.ADMIN)) as mixer:
        for path, status in {
            "/livez": 200,
            "/readyz": 200,
            "/metrics": 200,
            "/": 404,
            "/metrics/x": 404,
        }.items():
            assert (await mixer.get(path))[0] == status, path


async def test_plain_metrics() -> None:
    """A scraper that asks for nothing special gets the text format, with help and type of every metric."""
    async with mixers.running(mixers.settings({"a": MEMORY}, server=mixers.ADMIN)) as mixer:
        await mixer.search("csv file")
        status, kind, text = await mixer.get("/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert "# TYPE mixer_stage_duration_seconds histogram" in text
    assert re.search(
        r'^grpc_server_handled_total\{.*grpc_code="OK".*grpc_method="Search".*\} 1.0$', text, re.M
    )
    assert "trace_id" not in text


@pytest.mark.parametrize(("sampler", "sampled"), [(ALWAYS_ON, True), (ALWAYS_OFF, False)])
async def test_openmetrics_with_exemplars(sampler: Sampler, sampled: bool) -> None:
    """A scraper that takes OpenMetrics gets times with the trace that took so long, where it was sampled."""
    with mixers.tracing(sampler):
        async with mixers.running(mixers.settings({"a": MEMORY}, server=mixers.ADMIN)) as mixer:
            result = await mixer.search("csv file")
            _, kind, text = await mixer.get("/metrics", OPENMETRICS)
    assert kind.split(";")[0] == "application/openmetrics-text"
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    exemplars = {sample.name: sample.exemplar.labels for sample in samples if sample.exemplar}
    assert set(exemplars) == (
        {
            "grpc_server_handling_seconds_bucket",
            "mixer_stage_duration_seconds_bucket",
            "mixer_backend_duration_seconds_bucket",
            "mixer_added_latency_seconds_bucket",
        }
        if sampled
        else set()
    )
    assert all(labels == {"trace_id": result.trace_id} for labels in exemplars.values())


async def test_scrapes_while_searching() -> None:
    """Metrics can be read at any time, from many threads, while they are written."""
    async with mixers.running(mixers.settings({"a": MEMORY}, server=mixers.ADMIN)) as mixer:
        searches = asyncio.gather(*(mixer.search("csv file") for _ in range(30)))
        scrapes = await asyncio.gather(*(mixer.get("/metrics") for _ in range(10)))
        await searches
        labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Search"}
        assert mixer.value("grpc_server_started_total", **labels) == 30
    assert [scrape[0] for scrape in scrapes] == [200] * 10


async def test_admin_over_ipv6() -> None:
    """An address in brackets is one of IPv6."""
    server = Server(Listening("127.0.0.1:0", admin="[::1]:0", drain_s=0.1), Metrics(), [])
    try:
        await server.start()
        livez = f"http://[::1]:{server.admin_port}/livez"
        assert (await asyncio.to_thread(mixers.get, livez))[0] == 200
    finally:
        await server.stop()


def test_loop() -> None:
    """The server runs on uvloop where it can be had, and to its end."""
    loops: list[str] = []

    async def main() -> None:
        loops.append(type(asyncio.get_running_loop()).__module__)

    run_loop(main())
    assert loops == ["uvloop"]
