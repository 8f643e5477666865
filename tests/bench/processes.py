"""The processes of a benchmark: started, waited for, asked what they cost, and stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc
import psutil
from prometheus_client.parser import text_string_to_metric_families

from mixer import catalogue
from mixer.demo.processes import NotReady, free_port
from protos.mixer.v1 import mixer_pb2_grpc
from tests.bench import servers
from tests.bench.trees import Tree

_START_S, _SCRAPE_S = 120.0, 5.0


@dataclass(frozen=True, slots=True)
class Service:
    """A process that answers Search on a port of the loopback; `admin` is 0 for one without metrics."""

    process: psutil.Process
    port: int
    stub: mixer_pb2_grpc.MixerServiceStub
    admin: int = 0
    log: Path | None = None

    def metric(self, name: str) -> float:
        """The sum of a metric's samples of this name over all labels; 0 where there are none."""
        if not self.admin:
            return 0.0
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=_SCRAPE_S) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    def added_s(self) -> float:
        """Seconds that all answers so far took beyond their slowest backend."""
        return self.metric(f"{catalogue.ADDED_SECONDS.name}_sum")

    def wait_until_ready(self) -> None:
        """Raises: NotReady, with the end of the log."""
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s and self.process.is_running() and not _is_zombie(self.process):
            with (
                suppress(urllib.error.URLError, ConnectionError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=_SCRAPE_S),
            ):
                return
            time.sleep(0.1)
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-2000:] if self.log else ""
        raise NotReady(f"Mixer did not become ready:\n{tail}")


def stub(port: int) -> mixer_pb2_grpc.MixerServiceStub:
    """A stub for a port of the loopback."""
    return mixer_pb2_grpc.MixerServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))


def cpu_s(process: psutil.Process) -> float:
    """User and system time so far of a process and its children, all threads."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


@contextmanager
def helper(kind: str, *arguments: str, ports: int = 1) -> Iterator[tuple[psutil.Process, list[int]]]:
    """A process of `tests.bench.servers` and the ports that it says it took."""
    command = [sys.executable, "-m", "tests.bench.servers", kind, *arguments]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment({}))
    assert started.stdout is not None
    with started.stdout, _stopped(started):
        yield psutil.Process(started.pid), [int(started.stdout.readline()) for _ in range(ports)]


@dataclass(frozen=True, slots=True)
class Backends:
    """A group's backends, all in one process."""

    process: psutil.Process
    targets: list[str]


@contextmanager
def backends(group: servers.Group) -> Iterator[Backends]:
    """The backends of a group."""
    with helper("backends", json.dumps(asdict(group)), ports=group.backends) as (process, ports):
        yield Backends(process, [f"127.0.0.1:{port}" for port in ports])


@contextmanager
def floor(targets: list[str]) -> Iterator[Service]:
    """The bare fan-out."""
    with helper("floor", json.dumps(targets)) as (process, (port,)):
        yield Service(process, port, stub(port))


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a Mixer: whose code, which backends, which model ("" for none), how many workers."""

    tree: Tree
    config: Path
    targets: list[str]
    model: str = ""
    hits: int = servers.HITS
    workers: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """A command of `mixer` with these settings, run by this tree's code, and its environment."""
        command = [sys.executable, "-m", "mixer", *arguments, "--config", str(self.config.resolve())]
        return command, _environment({**self.environment, "PYTHONPATH": str(self.tree.folder)})

    def write(self, port: int, admin: int) -> None:
        """Write the settings."""
        told = servers.settings(self.targets, port, self.model, self.hits, admin, self.workers)
        self.config.write_text(told, encoding="utf-8")


@contextmanager
def mixer(launch: Launch) -> Iterator[Service]:
    """`mixer serve`, not waited for."""
    port, admin, log = free_port(), free_port(), launch.config.with_suffix(".log")
    launch.write(port, admin)
    command, environment = launch.command("serve")
    with log.open("w") as output:
        started = subprocess.Popen(
            command, cwd=launch.tree.folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    with _stopped(started):
        yield Service(psutil.Process(started.pid), port, stub(port), admin, log)


def refusal(launch: Launch) -> str:
    """Why the tree's settings refuse such a launch; empty where they take it."""
    launch.write(0, 0)
    command, environment = launch.command("check-config")
    told = subprocess.run(
        command, cwd=launch.tree.folder, env=environment, capture_output=True, text=True, check=False
    )
    return told.stderr.strip().replace(f"{launch.config.resolve()}:", "line ") if told.returncode else ""


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would steer telemetry or a Mixer."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "MIXER_"))}
    return {**kept, **more}


@contextmanager
def _stopped(started: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        started.terminate()
        try:
            started.wait(30.0)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _is_zombie(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_ZOMBIE)
