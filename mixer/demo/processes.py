"""Backends and Mixer as processes of their own on the loopback, started, waited for, and stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
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


def _is_taken(port: int) -> bool:
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


@contextmanager
def _process(
    name: str, command: Sequence[str], port: int, log: Path, environment: Mapping[str, str]
) -> Iterator[None]:
    """A process that is ready to answer; what it prints goes to a file."""
    if _is_taken(port):
        # Else the health of whoever listens there would pass for this process's.
        raise NotReady(f"{name} cannot listen: port {port} of the loopback is taken")
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "OTEL_SERVICE_NAME": name},
        )
        try:
            _wait_until_ready(process, port, name, log)
            yield
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, name: str, log: Path) -> None:
    deadline_s = time.monotonic() + _START_S
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline_s and process.poll() is None:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
            except grpc.RpcError:
                continue
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                return
            time.sleep(0.1)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:])
    raise NotReady(f"{name} did not become ready; {log} ends with:\n{tail}")
