from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mixer.demo import processes
from mixer.demo.processes import NotReady, free_port

ENGINE = {"kind": "memory", "fields": {"title": {"type": "text"}}, "documents": [{"id": "1", "title": "csv"}]}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "engine.yaml"
    path.write_text(yaml.safe_dump(ENGINE), encoding="utf-8")
    return path


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def health(port: int) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        return int(answer.status)


def children() -> set[int]:
    return {child.pid for child in psutil.Process(os.getpid()).children()}


@contextmanager
def none_left() -> Iterator[None]:
    """Within it processes may come, but they go too."""
    before = children()
    yield
    assert children() <= before


def test_free_port() -> None:
    """A free port is one of the loopback's that can be listened on."""
    port = free_port()
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))
        server.listen()
        assert listens(port)


def look(port: int, config: Path, logs: Path) -> None:
    """Look at the process that serves on the port, then fail."""
    assert health(port) == health_pb2.HealthCheckResponse.SERVING
    (started,) = psutil.Process(os.getpid()).children()
    told = started.environ()
    assert (told["OTEL_SERVICE_NAME"], told["OTEL_RESOURCE_ATTRIBUTES"]) == ("words", "from.test=yes")
    with (
        pytest.raises(NotReady, match=f"second cannot listen: port {port}"),
        processes.backend("second", config, port, logs, {}),
    ):
        pytest.fail("the port is taken")
    assert health(port) == health_pb2.HealthCheckResponse.SERVING
    assert (logs / "words.pid").read_text(encoding="utf-8") == f"{started.pid}\n"
    started.send_signal(signal.SIGSTOP)
    raise ZeroDivisionError


def test_a_process_is_ready_then_stopped(config: Path, tmp_path: Path) -> None:
    """Within the block the process answers; after it, also after a failure in it, it has ended and nothing listens.

    What it printed is in its log, its number in a file beside it; one that was stopped ends too. The variables that
    it was given hold, and a second one for the same port is refused at once instead of taking the first one's health
    for its own.
    """
    port = free_port()
    environment = {"OTEL_RESOURCE_ATTRIBUTES": "from.test=yes"}
    with (
        none_left(),
        pytest.raises(ZeroDivisionError),
        processes.backend("words", config, port, tmp_path, environment),
    ):
        look(port, config, tmp_path)
    assert not listens(port)
    assert '"serving"' in (tmp_path / "words.log").read_text(encoding="utf-8")


def test_a_process_that_dies_at_start(tmp_path: Path) -> None:
    """The error names the process, its log, and the last that the log says; nobody waits for the dead."""
    log = tmp_path / "dead.log"
    with (
        none_left(),
        pytest.raises(NotReady) as failed,
        processes._process("dead", ["-c", "raise SystemExit('no such index')"], free_port(), log, {}),
    ):
        pytest.fail("it cannot be ready")
    assert str(failed.value) == f"dead did not become ready; {log} ends with:\nno such index"


def test_only_the_tail_of_the_log(tmp_path: Path) -> None:
    """Of a long log the last five lines are told, though it holds bytes that are no text."""
    log = tmp_path / "words.log"
    log.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(20)))
    with subprocess.Popen(["false"]) as dead:
        dead.wait()
        with pytest.raises(NotReady) as failed:
            processes._wait_until_up(dead, lambda: False, "words", log)
    assert [line.split(" ")[1] for line in str(failed.value).splitlines()[1:]] == [
        "15",
        "16",
        "17",
        "18",
        "19",
    ]


def test_a_process_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lives but does not answer is given up after the time for a start, and ended."""
    monkeypatch.setattr(processes, "_START_S", 0.3)
    with (
        none_left(),
        pytest.raises(NotReady, match="idle did not become ready"),
        processes._process(
            "idle", ["-c", "import time; time.sleep(60)"], free_port(), tmp_path / "idle.log", {}
        ),
    ):
        pytest.fail("it cannot be ready")
