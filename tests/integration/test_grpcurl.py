"""What the README tells strangers to type: the real grpcurl against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixer import keys
from mixer.caller import Scope
from mixer.demo.processes import free_port, mixer
from tests.doubles.certificates import Authority, Mount
from tests.integration.chart import tool

SETTINGS = """
server: {{listen: "127.0.0.1:{port}", admin_listen: "", drain_s: 1}}
backends:
  titles:
    kind: memory
    fields: {{title: {{type: text}}}}
    documents: [{{id: "1", title: Read a csv file}}, {{id: "2", title: Write csv}}]
mixes:
  default: {{backends: {{titles: {{}}}}, fields: [title]}}
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("grpcurl"), free_port()
    config = folder / "mixer.yaml"
    config.write_text(SETTINGS.format(port=port), encoding="utf-8")
    with mixer(config, port, folder, {}):
        yield f"127.0.0.1:{port}"


def grpcurl(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [tool("grpcurl"), "-plaintext", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def called(*arguments: str) -> Any:
    done = grpcurl(*arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_searches_without_the_proto_files(target: str) -> None:
    """By reflection alone a stranger can search and reads hits and execution."""
    answer = called("-d", '{"query": "csv", "page_size": 1}', target, "mixer.v1.MixerService/Search")
    assert [hit["id"] for hit in answer["hits"]] == ["1"]
    assert answer["execution"]["backends"][0]["outcome"] == "OUTCOME_OK"
    assert answer["next_cursor"]


def test_it_reads_health(target: str) -> None:
    """The standard health service answers for the server and for the service."""
    for service in ("", "mixer.v1.MixerService"):
        asked = json.dumps({"service": service})
        assert called("-d", asked, target, "grpc.health.v1.Health/Check") == {"status": "SERVING"}


def test_wrong_fields_are_named(target: str) -> None:
    """A bad request comes back with google.rpc.BadRequest details that grpcurl can show."""
    done = grpcurl("-d", '{"query": "", "page_size": 5000}', target, "mixer.v1.MixerService/Search")
    assert done.returncode != 0
    assert "InvalidArgument" in done.stderr
    assert "page_size" in done.stderr
    assert "google.rpc.BadRequest" in done.stderr


GUARDED = """
server:
  listen: "127.0.0.1:{port}"
  health_listen: "127.0.0.1:{health}"
  admin_listen: ""
  drain_s: 1
  tls: {{certificate: tls/certificate, key: tls/key, client_ca: tls/ca, require_client: true}}
auth: {{keys: keys.yaml}}
tenants: {{acme: {{per_day: 3}}}}
backends:
  titles:
    kind: memory
    fields: {{title: {{type: text}}}}
    documents: [{{id: "1", title: Read a csv file}}, {{id: "2", title: Write csv}}]
mixes:
  default: {{backends: {{titles: {{}}}}, fields: [title]}}
"""


def test_it_proves_who_it_is(tmp_path: Path) -> None:
    """As the README has it: mutual TLS, a key, a tenant's quota. The server is waited for by its port for probes."""
    authority, made = Authority(), keys.new("acme", [Scope.SEARCH])
    Mount(tmp_path / "tls").pair(authority.issue(), ca=authority.pem)
    ours = Mount(tmp_path / "ours").pair(authority.issue("me"), ca=authority.pem)
    (tmp_path / "keys.yaml").write_text(made.line)
    config, port, health = tmp_path / "mixer.yaml", free_port(), free_port()
    config.write_text(GUARDED.format(port=port, health=health), encoding="utf-8")
    proof = ("-cacert", ours["ca"], "-cert", ours["certificate"], "-key", ours["key"])
    key = ("-H", f"x-api-key: {made.key}")
    words = ("-d", '{"query": "csv"}', f"localhost:{port}", "mixer.v1.MixerService/Search")

    def asked(*options: str) -> tuple[int, str]:
        command = [tool("grpcurl"), *options, *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        return done.returncode, done.stdout + done.stderr

    with mixer(config, health, tmp_path, {}):
        status, told = asked(*map(str, proof), *key)
        assert (status, [hit["id"] for hit in json.loads(told)["hits"]]) == (0, ["1", "2"])
        assert "Unauthenticated" in asked(*map(str, proof))[1]
        assert asked("-cacert", str(ours["ca"]), *key)[0]
        assert asked("-plaintext", *key)[0]
        for _ in range(2):
            assert asked(*map(str, proof), *key)[0] == 0
        told = asked(*map(str, proof), *key)[1]
        assert "ResourceExhausted" in told
        assert "google.rpc.RetryInfo" in told
