"""What the README tells strangers to type: the real grpcurl against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from mixer.demo.processes import free_port, mixer
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
