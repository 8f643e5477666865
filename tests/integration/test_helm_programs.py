"""What the chart does by running: it keeps the keys a cluster holds; `helm test` tells good from bad."""

from __future__ import annotations

import base64
import json
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
import yaml

from mixer import settings
from mixer.server import running
from tests.integration.chart import Manifest, manifests, of_kind, settings_file

CLUSTER: dict[str, Manifest] = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [{"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}],
    },
    "/api/v1/namespaces/search/secrets/mixer": {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "mixer", "namespace": "search"},
        "data": {"MIXER_CURSOR_KEY": base64.b64encode(b"held").decode()},
    },
}
"""As much of a Kubernetes API as helm reads to look up one Secret."""

NOT_FOUND = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}


class Pages(BaseHTTPRequestHandler):
    """Answers each path with its JSON, and 404 elsewhere."""

    pages: ClassVar[dict[str, Manifest]]

    def do_GET(self) -> None:
        found = self.pages.get(self.path.partition("?")[0])
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(found or NOT_FOUND).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextmanager
def serving_http(pages: dict[str, Manifest]) -> Iterator[str]:
    handler = type("Handler", (Pages,), {"pages": pages})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_generated_key_is_kept_on_upgrade() -> None:
    """A key that the cluster holds is used again; one it lacks is made; one that is given wins."""
    with serving_http(CLUSTER) as url:
        args = ("--dry-run=server", f"--kube-apiserver={url}", "--show-only=templates/secret.yaml")
        kept = manifests(*args)[0]["stringData"]
        given = manifests(*args, "--set=secrets.cursorKey=mine")[0]["stringData"]
    assert kept["MIXER_CURSOR_KEY"] == "held"
    assert len(kept["MIXER_REDACTION_KEY"]) == 48
    assert given["MIXER_CURSOR_KEY"] == "mine"


def served(found: list[Manifest], mix: dict[str, object]) -> settings.Settings:
    """The settings of the rendered chart on free ports, the mix as it is told to be."""
    raw = yaml.safe_load(settings_file(found, "mixer"))
    raw["server"] |= {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"}
    raw |= {"models": {"gone": {"path": "/nowhere"}}}
    raw["backends"] |= {"away": {"kind": "remote", "target": "127.0.0.1:1"}}
    raw["mixes"]["default"] |= mix
    return settings.parse(yaml.safe_dump(raw))


LACKING: dict[str, object] = {"backends": {"words": {"limit": 10}, "away": {}}}


@pytest.mark.parametrize(
    ("mix", "args", "code", "said"),
    [
        ({}, (), 0, "'bread': 2 hits, model none"),
        ({}, ("--set=tests.minHits=3",), 1, "'bread': 2 hits"),
        ({}, ("--set=tests.query=cake",), 0, "'cake': 0 hits"),
        ({}, ("--set=tests.mix=movies",), 1, "NOT_FOUND: mix: no mix has that name"),
        ({"model": "gone"}, (), 1, "health of mixer.v1.MixerService NOT_SERVING"),
        (LACKING, (), 1, "made without: "),
        (LACKING, ("--set=tests.allowDegraded=true",), 0, "away: ERROR 0 hits"),
    ],
)
async def test_helm_test_passes_only_a_mixer_that_answers(
    mix: dict[str, object], args: tuple[str, ...], code: int, said: str
) -> None:
    """The program of the `helm test` pod really searches, and passes what serves, finds enough and leaves none out."""
    found = manifests(*args)
    arguments = of_kind(found, "Pod")["mixer-test"]["spec"]["containers"][0]["args"]
    async with running(served(found, mix)) as (server, _app):
        ports = {"mixer": (50051, server.port), "mixer-admin": (9464, server.admin_port)}
        for host, (told, port) in ports.items():
            where = f"{host}.search.svc:{told}"
            assert any(where in each for each in arguments)
            arguments = [each.replace(where, f"127.0.0.1:{port}") for each in arguments]
        program = await create_subprocess_exec(sys.executable, "-c", *arguments, stdout=PIPE, stderr=PIPE)
        printed, complained = await program.communicate()
    assert said in printed.decode(), complained.decode()
    assert program.returncode == code, printed.decode()
