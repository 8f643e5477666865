from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typer.testing import CliRunner, Result

from backends import __main__ as command
from backends import service
from mixer import telemetry
from mixer.demo.collector import Collector
from mixer.demo.processes import free_port
from protos.backends.v1 import backend_pb2 as pb
from protos.backends.v1 import backend_pb2_grpc as rpc
from tests.doubles import engines
from tests.doubles.certificates import Authority, Mount

Indexing = Callable[..., Path]
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SQLITE = {"kind": "sqlite", "symbols": ["id"], "popularity": "uses"}
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


class Serving:
    """A backend process that said it serves, on a port of its own choice."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout
        self.line = json.loads(process.stdout.readline())
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.line['port']}")

    def retrieve(self, query: str, filters: Sequence[pb.Filter] = (), **options: Any) -> pb.RetrieveResponse:
        request = pb.RetrieveRequest(query=query, limit=5, fields=["title"], filters=filters)
        answer = rpc.BackendServiceStub(self.channel).Retrieve(request, timeout=10, **options)
        assert isinstance(answer, pb.RetrieveResponse)
        return answer

    def health(self, name: str) -> int:
        request = health_pb2.HealthCheckRequest(service=name)
        return int(health_pb2_grpc.HealthStub(self.channel).Check(request, timeout=10).status)

    def end(self, number: signal.Signals) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def serving(*options: str, **environment: str) -> Iterator[Serving]:
    argv = [sys.executable, "-m", "backends", "serve", "--listen", "127.0.0.1:0", "--drain-s", "1", *options]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        try:
            made = Serving(process)
            with made.channel:
                yield made
        finally:
            process.kill()


def test_served_by_options(index: Indexing, collector: Collector) -> None:
    """`--kind` and `--index` serve an index over a socket: answers, health, and SIGTERM ends it with status 0.

    Its server span reaches the collector that the environment names, as a child of the caller's.
    """
    folder = index(SQLITE)
    with serving(
        "--kind", "sqlite", "--index", str(folder), "--name", "symbols", **collector.environment
    ) as served:
        assert (served.line["event"], served.line["kind"]) == ("serving", "sqlite")
        answer = served.retrieve("csv.reader", metadata=[("traceparent", f"00-{TRACE}-{CALLER}-01")])
        assert answer.ids[0] == "csv.reader"
        assert len(answer.scores) == len(answer.ids) == len(answer.texts[0].values)
        for name in ("", service.SERVICE):
            assert served.health(name) == health_pb2.HealthCheckResponse.SERVING
        assert served.end(signal.SIGTERM) == 0
    root = f"{service.SERVICE}/Retrieve"
    (span,) = [item for item in collector.trace(TRACE, root, 1) if item.name == root]
    assert (span.parent.hex(), span.service, span.failed) == (CALLER, "symbols", False)


def test_served_by_a_file(index: Indexing, tmp_path: Path) -> None:
    """`--config` serves what a file says, its paths starting beside it; SIGINT ends it with status 0 too."""
    folder = index(SQLITE)
    config = tmp_path / "symbols.yaml"
    config.write_text(yaml.safe_dump({"kind": "sqlite", "index": folder.name}), encoding="utf-8")
    with serving("--config", str(config)) as served:
        assert served.retrieve("json").ids[0] == "json"
        with pytest.raises(grpc.RpcError) as refused:
            served.retrieve("x", filters=[pb.Filter(field="nothing", equals=pb.Value(text="y"))])
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert served.end(signal.SIGINT) == 0


def ended(*options: str) -> Result:
    return CliRunner().invoke(command.app, ["serve", *options])


def told(result: Result) -> str:
    """The one line that a failure says; a SystemExit with a text prints it and ends with status 1."""
    assert isinstance(result.exception, SystemExit)
    line = str(result.exception.code)
    assert result.exit_code == 1
    assert "\n" not in line
    return line


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own logging stays as it is."""
    monkeypatch.setattr(telemetry, "start_logging", lambda level: None)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ([], "'tantivy', 'vectors', 'sqlite', "),
        (["--kind", "sqlit"], "Input tag 'sqlit'"),
        (["--kind", "sqlite"], "options: sqlite.index: "),
        (["--kind", "sqlite", "--index", "/nowhere"], "/nowhere holds no index that can be read"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml: "),
    ],
)
def test_options_that_serve_nothing(options: list[str], fault: str) -> None:
    """Whatever is wrong with the options is one line that names it, and status 1."""
    assert fault in told(ended(*options))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "engine.yaml: "),
        (b"- kind", "engine.yaml: "),
        (b"kind: \xff", "engine.yaml: 'utf-8' codec can't decode"),
        (b"kind: sqlite\nindex: i\nsymbol: [id]", "engine.yaml: sqlite.symbol: unknown key"),
    ],
)
def test_files_that_serve_nothing(tmp_path: Path, content: bytes, fault: str) -> None:
    """Whatever is wrong with the file is one line with the file's name, and status 1."""
    config = tmp_path / "engine.yaml"
    config.write_bytes(content)
    line = told(ended("--config", str(config)))
    assert line.startswith(str(tmp_path))
    assert fault in line


def test_a_file_that_is_not_yaml(tmp_path: Path) -> None:
    """A file that is no YAML is named with the place where it ends to be."""
    config = tmp_path / "engine.yaml"
    config.write_text("kind: [sqlite", encoding="utf-8")
    result = ended("--config", str(config))
    assert result.exit_code == 1
    assert f"{config}: while parsing" in str(result.exception)
    assert "line 1" in str(result.exception)


def test_every_fault_of_a_file_is_told(tmp_path: Path) -> None:
    """Two faults are two lines."""
    config = tmp_path / "engine.yaml"
    config.write_text("kind: sqlite\nthreads: 0\n", encoding="utf-8")
    lines = str(ended("--config", str(config)).exception).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["sqlite.index", "sqlite.threads"]


def test_a_port_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that another process listens on is one line that says so."""
    config = tmp_path / "engine.yaml"
    config.write_text(yaml.safe_dump(MEMORY), encoding="utf-8")
    monkeypatch.setattr(telemetry, "start", lambda name, metrics: Untraced())
    holder = grpc.server(ThreadPoolExecutor(1))
    port = holder.add_insecure_port("127.0.0.1:0")
    holder.start()
    try:
        assert "is the port taken?" in told(ended("--config", str(config), "--listen", f"127.0.0.1:{port}"))
    finally:
        holder.stop(None).wait()


class Untraced:
    """Telemetry that a test does not start."""

    def shutdown(self) -> None:
        """Nothing to end."""


def test_served_over_tls(tmp_path: Path) -> None:
    """With a certificate, for callers with one of theirs; health in the clear on a port of its own."""
    authority, config = Authority(), tmp_path / "memory.yaml"
    config.write_text(yaml.safe_dump(MEMORY))
    files = Mount(tmp_path / "tls").pair(authority.issue(), ca=authority.pem)
    named = (
        "--tls-certificate",
        files["certificate"],
        "--tls-key",
        files["key"],
        "--tls-client-ca",
        files["ca"],
    )
    probed = free_port()
    health = ("--health-listen", f"127.0.0.1:{probed}")
    with serving("--config", str(config), *map(str, named), *health) as made:
        with pytest.raises(grpc.RpcError):
            made.retrieve("csv")
        ours = authority.issue("mixer")
        shown = grpc.ssl_channel_credentials(authority.pem, ours.key, ours.certificate)
        with grpc.secure_channel(f"127.0.0.1:{made.line['port']}", shown) as made.channel:
            assert made.retrieve("csv").ids
        with grpc.insecure_channel(f"127.0.0.1:{probed}") as made.channel:
            assert made.health(service.SERVICE) == health_pb2.HealthCheckResponse.SERVING


def test_half_a_certificate(tmp_path: Path) -> None:
    """Says what is lacking, before anything is opened."""
    config = tmp_path / "memory.yaml"
    config.write_text(yaml.safe_dump(MEMORY))
    words = ["serve", "--config", str(config), "--tls-key", str(tmp_path / "key.pem")]
    result = CliRunner().invoke(command.app, words)
    assert (result.exit_code, result.output) == (1, "TLS needs both: --tls-certificate and --tls-key\n")
