"""Every process of the comparison: what it is started with, and when it is ready to be asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from mixer.demo.processes import free_port
from tests.bench import servers
from tests.bench.peers.callers import Caller, GrpcCaller, HttpCaller

_START_S, _STOP_S = 60.0, 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """A running service and the client that asks it."""

    process: psutil.Process
    caller: Caller


@dataclass(frozen=True, slots=True)
class Around:
    """What every service is given: backends of both kinds in one order, the model's folder, the collector."""

    grpc_targets: Sequence[str]
    http_urls: Sequence[str]
    model: Path
    collector: int
    folder: Path
    """For what is written on the way."""

    def tracing(self, service: str, share: float) -> dict[str, str]:
        """OTEL_* for a share of the traces."""
        return {
            "OTEL_SERVICE_NAME": service,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.collector}",
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": str(share),
        }


@contextmanager
def mixer(name: str, around: Around, traced: float) -> Iterator[Service]:
    """The real server, ready."""
    port = free_port()
    config = around.folder / f"{port}.yaml"
    config.write_text(servers.settings(list(around.grpc_targets), port, str(around.model)), encoding="utf-8")
    command = ["mixer", "serve", "--config", str(config)]
    with running(command, around.tracing(name, traced)) as process:
        yield _ready(Service(process, GrpcCaller(port)))


@contextmanager
def peer(
    module: str, backend_timeout_s: float | None, name: str, around: Around, traced: float
) -> Iterator[Service]:
    """A peer under uvicorn (uvloop and httptools, which it picks by itself), ready; no access log."""
    port = free_port()
    environment = {
        **around.tracing(name, traced),
        "BACKENDS": json.dumps({f"b{number}": url for number, url in enumerate(around.http_urls)}),
        "MODEL": str(around.model / "model.txt"),
        "BACKEND_TIMEOUT_S": "" if backend_timeout_s is None else str(backend_timeout_s),
        "HAYSTACK_TELEMETRY_ENABLED": "False",  # its usage statistics are no part of the comparison
    }
    with running(uvicorn(module, port), environment) as process:
        yield _ready(Service(process, HttpCaller(port)))


@contextmanager
def http_backends() -> Iterator[tuple[psutil.Process, list[str]]]:
    """The canned backends over HTTP: their process and their URLs."""
    port = free_port()
    with running(uvicorn("http_backends", port, "--timeout-keep-alive", "75"), {}) as process:
        yield process, [f"http://127.0.0.1:{port}/b{number}/search" for number in range(servers.BACKENDS)]


def uvicorn(module: str, port: int, *options: str) -> list[str]:
    """The command that serves one of this folder's applications."""
    quiet = ["--no-access-log", "--log-level", "critical"]
    return ["uvicorn", f"tests.bench.peers.{module}:app", "--port", str(port), *quiet, *options]


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """A Python module as a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MIXER_"))}
    started = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, env={**kept, **environment}
    )
    try:
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        try:
            started.wait(_STOP_S)
        except subprocess.TimeoutExpired:  # it waits for calls that nobody waits for any more
            started.kill()
            started.wait()


def _ready(service: Service) -> Service:
    end_s = time.monotonic() + _START_S
    while len(service.caller.ask(5.0).ids) < 10:
        if time.monotonic() > end_s or not service.process.is_running():
            raise AssertionError(f"{' '.join(service.process.cmdline())} does not answer")
        time.sleep(0.1)
    return service
