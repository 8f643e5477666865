"""Backends, Mixer and other programs as processes on the loopback, started, waited for, and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_START_S = 60.0


class NotReady(Exception):
    """A process did not come up; the message says where to look."""


def free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_taken(port: int) -> bool:
    """Whether anybody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def backend(
    name: str, config: Path, port: int, logs: Path, environment: Mapping[str, str]
) -> AbstractContextManager[None]:
    """One engine as a backend of its own. Raises: NotReady."""
    listen = f"127.0.0.1:{port}"
    command = ["-m", "backends", "serve", "--config", str(config), "--listen", listen, "--name", name]
    return _process(name, command, port, logs / f"{name}.log", environment)


def mixer(
    config: Path, port: int, logs: Path, environment: Mapping[str, str]
) -> AbstractContextManager[None]:
    """Mixer itself, listening where its settings say. Raises: NotReady."""
    return _process(
        "mixer", ["-m", "mixer", "serve", "--config", str(config)], port, logs / "mixer.log", environment
    )


def _process(
    name: str, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]
) -> AbstractContextManager[None]:
    """A process of this interpreter that says by gRPC when it is ready."""
    told = {**environment, "OTEL_SERVICE_NAME": name}
    return program(name, [sys.executable, *command], [port], lambda: _serves(port), log, told)


@contextmanager
def program(
    name: str,
    command: Sequence[str],
    ports: Sequence[int],
    is_up: Callable[[], bool],
    log: Path,
    environment: Mapping[str, str],
) -> Iterator[None]:
    """A process that is up; what it prints goes to a file, its number to one beside it. Raises: NotReady."""
    if taken := next(filter(is_taken, ports), None):
        # Else the health of whoever listens there would pass for this process's.
        raise NotReady(f"{name} cannot listen: port {taken} of the loopback is taken")
    pid = log.with_suffix(".pid")
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        try:
            pid.write_text(f"{process.pid}\n", encoding="utf-8")
            _wait_until_up(process, is_up, name, log)
            yield
        finally:
            process.terminate()
            # One that somebody stopped to see what happens would not hear of its end.
            process.send_signal(signal.SIGCONT)
            process.wait()
            pid.unlink(missing_ok=True)


def _wait_until_up(process: subprocess.Popen[bytes], is_up: Callable[[], bool], name: str, log: Path) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        if is_up():
            return
        time.sleep(0.1)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    raise NotReady(f"{name} did not become ready; {log} ends with:\n{tail}")


def _serves(port: int) -> bool:
    """Whether a server of this port says by gRPC that it serves."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
