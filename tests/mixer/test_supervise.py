"""Real workers on a real port: what users, Prometheus and the orchestrator see of them."""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import grpc.aio
import psutil
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mixer.client import MixerClient, Tls, search_request
from mixer.demo.processes import free_port
from mixer.metrics import Merged, Metrics
from mixer.server import SERVICE
from mixer.serving import State
from mixer.supervise import REASONS, End, Record, Supervisor, WorkersFailed
from mixer.worker_process import Patience
from protos.mixer.v1 import mixer_pb2_grpc as rpc
from tests.doubles import engines, mixers
from tests.doubles.certificates import Authority, Mount
from tests.doubles.engines import columns
from tests.doubles.supervised import Supervised, supervised, until

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
HANDLED = {"grpc_code": "OK", "grpc_method": "Search"}


def config(folder: Path, backends: dict[str, Any], **server: Any) -> Path:
    """A settings file for two workers."""
    listening = {**mixers.ADMIN, "workers": 2, "drain_s": 20.0, **server}
    made = mixers.settings(backends, {"page_size": 2}, server=listening)
    written = folder / "mixer.yaml"
    written.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    return written


@pytest.fixture(scope="module")
def mixer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    """Two workers over documents in memory, for all tests but those that end them."""
    with supervised(config(tmp_path_factory.mktemp("workers"), {"a": MEMORY})) as running:
        yield running


def test_calls_are_spread(mixer: Supervised) -> None:
    """Connections go to both workers and to nobody else, and each of them answers as one Mixer does."""
    assert mixer.get("/readyz")[0] == 200
    seen: set[int] = set()
    for number in itertools.count():
        answer, worker = mixer.ask(f"spread-{number}")
        assert [hit.rank for hit in answer.hits] == [1, 2]
        seen.add(worker)
        if number >= 20 and seen == {1, 2}:
            break


def test_metrics_are_merged(mixer: Supervised) -> None:
    """One scrape counts the calls of all workers, each once."""
    mixer.ask("merged")
    calls = [line for line in mixer.lines if line["event"] == "call"]
    assert mixer.value("grpc_server_handled_total", **HANDLED) == len(calls)
    until(lambda: mixer.value("mixer_candidates_count", mix="default") == len(calls))  # told at every beat
    assert mixer.value("mixer_calls_in_flight") == 0
    assert mixer.value("mixer_workers") == 2


def test_cursors_are_shared(mixer: Supervised) -> None:
    """A page that one worker began, the other goes on with: no key is configured, and they have the same."""
    first, one = mixer.ask("first")
    for number in itertools.count():
        second, other = mixer.ask(f"second-{number}", cursor=first.next_cursor)
        assert [hit.rank for hit in second.hits] == [3, 4]
        if other != one:
            break


def test_a_killed_worker_comes_back(mixer: Supervised) -> None:
    """While one is away the other answers all; nothing that was counted is forgotten."""
    mixer.ask("before")
    counted = mixer.value("grpc_server_handled_total", **HANDLED)
    killed = mixer.workers[1]
    killed.kill()
    until(lambda: mixer.value("mixer_workers") < 2)
    assert mixer.get("/readyz")[0] == 200
    for _ in range(5):
        with MixerClient(mixer.target, timeout_s=20, attempts=5) as client:
            assert client.search("csv file").hits
        now = mixer.value("grpc_server_handled_total", **HANDLED)
        assert now > counted
        counted = now
    until(lambda: mixer.value("mixer_workers") == 2)
    assert mixer.value("grpc_server_handled_total", **HANDLED) >= counted
    assert mixer.value("mixer_worker_restarts_total", reason="exited") == 1
    assert mixer.workers[1].pid != killed.pid
    (ended,) = [line for line in mixer.lines if line["event"] == "worker ended"]
    assert (ended["worker"], ended["status"]) == (1, 128 + signal.SIGKILL)


def test_a_hung_worker_is_replaced(mixer: Supervised) -> None:
    """One whose event loop shows no life is ended by force, and another takes its number."""
    hung = mixer.workers[2]
    hung.suspend()
    until(lambda: mixer.value("mixer_worker_restarts_total", reason="silent") == 1)
    until(lambda: mixer.value("mixer_workers") == 2)
    assert not hung.is_running()
    assert set(mixer.workers) == {1, 2}
    assert mixer.get("/readyz")[0] == 200


def test_no_worker_outlives_its_supervisor(mixer: Supervised) -> None:
    """Killed without a word, it leaves neither process nor folder."""
    workers, folder = list(mixer.workers.values()), mixer.folder
    assert folder.is_dir()
    mixer.process.kill()
    assert psutil.wait_procs(workers, 60)[1] == []
    assert not folder.exists()


@pytest.fixture
async def gate() -> AsyncIterator[tuple[engines.Engine, asyncio.Event]]:
    """A backend that answers when it is opened."""
    opened = asyncio.Event()

    async def answer(request: object, context: object) -> bytes:
        await opened.wait()
        return columns(["1"]).SerializeToString()

    async with engines.engine(answer) as engine:
        yield engine, opened


async def test_drain_under_load(tmp_path: Path, gate: tuple[engines.Engine, asyncio.Event]) -> None:
    """On SIGTERM every call in flight, at whichever worker, is answered; then all end well and nothing is left."""
    engine, opened = gate
    with supervised(config(tmp_path, {"slow": engine.target})) as mixer:
        workers, folder = list(mixer.workers.values()), mixer.folder
        async with AsyncExitStack() as stack:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [grpc.aio.insecure_channel(mixer.target, options) for _ in range(12)]
            stubs = [rpc.MixerServiceStub(await stack.enter_async_context(each)) for each in channels]
            calls = [stub.Search(search_request("csv"), timeout=60) for stub in stubs]
            answers = asyncio.gather(*calls)
            await mixers.until(lambda: len(engine.requests) == len(calls), 60)
            mixer.process.send_signal(signal.SIGTERM)
            await mixers.until(lambda: [line["event"] for line in mixer.lines].count("draining") == 3, 60)
            assert (await asyncio.to_thread(mixer.get, "/readyz"))[0] == 503
            opened.set()
            assert [answer.hits[0].id for answer in await answers] == ["1"] * len(calls)
        errors = await asyncio.to_thread(mixer.end)
    assert mixer.process.returncode == 0
    assert "Traceback" not in errors
    assert {line["worker"] for line in mixer.lines if line["event"] == "call"} == {1, 2}
    assert [worker for worker in workers if worker.is_running()] == []
    assert not folder.exists()


def test_what_cannot_start_ends(tmp_path: Path) -> None:
    """What is wrong with every worker ends the server at once, with the one error that one Mixer would give."""
    gone = {"kind": "sqlite", "index": str(tmp_path / "gone")}
    command = [sys.executable, "-m", "mixer", "serve", "--config", str(config(tmp_path, {"a": gone}))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert str(tmp_path / "gone") in done.stderr
    assert done.stderr.count("\n") == 1
    assert '"event": "serving"' not in done.stdout


def supervisor(folder: Path, environment: dict[str, str]) -> Supervisor:
    """One without a port, for workers that never get so far."""
    metrics, settings = Metrics(), mixers.settings({"a": MEMORY}, server={"workers": 2})
    patience = Patience(beat_s=0.05, pause_s=0.01)
    return Supervisor(settings, folder, environment, metrics, Merged(metrics, folder), patience)


async def test_workers_that_crash_at_start(tmp_path: Path) -> None:
    """One that dies without a word is tried again, a few times; then the server ends with its status."""
    crashing = supervisor(tmp_path, {"PYTHONHOME": str(tmp_path)})
    with pytest.raises(WorkersFailed, match="worker 1 ended with status 1 before it was ready") as failed:
        async with asyncio.timeout(60):
            await crashing.keep(1)
    assert failed.value.status == 1
    restarts = crashing.metrics.registry.get_sample_value
    counts = {reason: restarts("mixer_worker_restarts_total", {"reason": reason}) for reason in REASONS}
    assert counts == {"exited": 0, "failed_to_start": 2, "silent": 0}


async def test_a_ready_worker_outweighs_failed_starts(tmp_path: Path) -> None:
    """Once all came up, one that cannot start again is tried for as long as another is ready."""
    crashing = supervisor(tmp_path, {"PYTHONHOME": str(tmp_path)})
    crashing.answering.set()
    crashing._workers[2] = ready = Mock(state=State.READY)
    keeping = asyncio.create_task(crashing.keep(1))
    sample, labels = "mixer_worker_restarts_total", {"reason": "failed_to_start"}
    await mixers.until(lambda: (crashing.metrics.registry.get_sample_value(sample, labels) or 0) > 4, 60)
    ready.state = State.DRAINING
    with pytest.raises(WorkersFailed):
        async with asyncio.timeout(60):
            await keeping


async def test_processes_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system refuses a process, that is a failed start like any other."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(WorkersFailed, match="No such file"):
        async with asyncio.timeout(60):
            await supervisor(tmp_path, {}).keep(1)


def test_failures_in_a_row() -> None:
    """A good life makes earlier failures forgotten; one that came up is no failed start, however short."""
    record, patience = Record(), Patience(good_s=60)
    seen = []
    for end in (
        End("failed_to_start", 1, lived_s=300),
        End("failed_to_start", 1),
        End("exited", 137, lived_s=5),
        End("silent", 137, lived_s=5),
        End("exited", 0, lived_s=60),
        End("exited", 0, lived_s=5),
    ):
        record.add(end, patience)
        seen.append((record.failures, record.failed_starts))
    assert seen == [(1, 1), (2, 2), (3, 0), (4, 0), (0, 0), (1, 0)]


def test_workers_over_tls(tmp_path: Path) -> None:
    """They share the port, the certificate and the port for probes; each takes new files, one expiry is told of all."""
    authority, mount = Authority(), Mount(tmp_path / "tls")
    files, probed = mount.pair(authority.issue()), free_port()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    tls = {name: str(path) for name, path in files.items()}
    listening = {"tls": tls, "health_listen": f"127.0.0.1:{probed}"}
    with supervised(config(tmp_path, {"a": MEMORY}, **listening)) as running:
        with MixerClient(running.target, tls=Tls(ca=ca), timeout_s=20.0) as client:
            assert client.search("csv file").hits
        with grpc.insecure_channel(f"127.0.0.1:{probed}") as channel:
            asked = health_pb2.HealthCheckRequest(service=SERVICE)
            told = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=20)
            assert told.status == health_pb2.HealthCheckResponse.SERVING
        mount.pair(issued := authority.issue())
        until(lambda: running.value("mixer_tls_reloads_total", outcome="swapped") == 2)
        expires = running.value("mixer_tls_certificate_expires_timestamp_seconds")
        assert expires == issued.ends.timestamp()
        with MixerClient(running.target, tls=Tls(ca=ca), timeout_s=20.0) as client:
            assert client.search("csv file").hits
