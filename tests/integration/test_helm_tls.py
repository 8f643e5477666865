"""TLS and API keys by the chart's values: the settings they make, and `helm test` against a real guarded Mixer."""

from __future__ import annotations

import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
import yaml

from mixer import keys, settings
from mixer.caller import Scope
from mixer.server import running
from tests.doubles.certificates import Authority, Mount
from tests.integration.chart import (
    Manifest,
    containers,
    manifests,
    of_kind,
    pods,
    refusal,
    settings_file,
    values,
)
from tests.mixer.test_app import MEMORY

TLS = values("tls")
KEYS = "secrets.cursorKey=k,secrets.redactionKey=k"


def test_values_guard_the_port_and_the_kubelet_asks_beside_it() -> None:
    """Certificate, clients' authority and keys are files of Secrets that are mounted; probes have a plain port."""
    found = manifests(TLS)
    loaded = settings.parse(settings_file(found, "mixer"))
    assert loaded.server.tls
    assert loaded.auth
    tls = loaded.server.tls
    files = [tls.certificate, tls.key, tls.client_ca, loaded.auth.keys]
    mounts = {mount["mountPath"] for mount in containers(pods(found)["mixer"])[0]["volumeMounts"]}
    assert {str(file.parent) for file in files if file} == {"/etc/mixer/tls", "/etc/mixer/auth"} <= mounts
    assert tls.require_client
    assert loaded.server.health_listen == "0.0.0.0:50052"


def test_the_certificate_is_of_all_names() -> None:
    """Clients of every service find it by the names that they call."""
    certificate = of_kind(manifests(TLS), "Certificate")["mixer"]["spec"]
    for name in ("mixer.search.svc", "mixer-headless.search.svc", "mixer.search", "search.example.com"):
        assert name in certificate["dnsNames"]
    mounted = {v["name"]: v for v in pods(manifests(TLS))["mixer"]["volumes"]}["tls"]
    assert certificate["secretName"] == mounted["secret"]["secretName"]


def test_the_test_pod_holds_no_server_key() -> None:
    """It verifies the server by what is public of its certificate."""
    volumes = {volume["name"]: volume for volume in pods(manifests(TLS))["mixer-test"]["volumes"]}
    assert [item["key"] for item in volumes["tls"]["secret"]["items"]] == ["ca.crt", "tls.crt"]


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("tls.enabled=true", "set tls.existingSecret or tls.certManager"),
        ("tls.enabled=true,tls.certManager.enabled=true", "tls.certManager.issuerRef"),
        ("tls.enabled=true,tls.certManager.enabled=true,tls.existingSecret=x", "take one"),
        ("tls.existingSecret=Upper", "/tls/existingSecret"),
        ("auth.keysKey=a/b", "/auth/keysKey"),
    ],
)
def test_half_a_guard_is_refused(assignment: str, said: str) -> None:
    """A certificate from nowhere or from two places, and names that no Secret can have."""
    assert said in refusal(f"--set={assignment}")


def test_probes_that_would_fail_are_refused() -> None:
    """Settings with TLS of their own and no plain health port would never become ready."""
    tls = "config.server.tls.certificate=/x/a,config.server.tls.key=/x/b"
    base = "config.backends.x.kind=memory,config.mixes.default.backends.x.limit=1"
    assert "health_listen" in refusal(f"--set={base}", f"--set={tls}")
    manifests(f"--set={base},{KEYS}", f"--set={tls}", "--set=config.server.health_listen=0.0.0.0:9")


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The Secrets of the value set as they are mounted, and those of the test's pod under `test`."""
    authority = Authority()
    for name in ("tls", "test"):
        issued = authority.issue("mixer-test" if name == "test" else "localhost")
        files = {"tls.crt": issued.certificate, "tls.key": issued.key, "ca.crt": authority.pem}
        Mount(tmp_path / name).put(**files)
    made = keys.new("search", [Scope.SEARCH])
    Mount(tmp_path / "auth").put(**{"keys.yaml": made.line.encode()})
    (tmp_path / "key").write_text(made.key, encoding="utf-8")
    return tmp_path


def guarded(found: list[Manifest], secrets: Path) -> settings.Settings:
    """The settings of the rendered chart on free ports, with its Secrets, over documents in memory."""
    raw = yaml.safe_load(settings_file(found, "mixer").replace("/etc/mixer", str(secrets)))
    raw["server"] |= dict.fromkeys(("listen", "admin_listen", "health_listen"), "127.0.0.1:0")
    raw["backends"] = {"titles": MEMORY}
    return settings.parse(yaml.safe_dump(raw))


@pytest.mark.parametrize(
    ("lacking", "code", "said"),
    [
        ("", 0, "'csv': "),
        ("key", 1, "UNAUTHENTICATED"),
        ("client", 1, "DEADLINE_EXCEEDED"),
    ],
)
async def test_helm_test_gets_in_by_what_it_is_given(
    secrets: Path, monkeypatch: pytest.MonkeyPatch, lacking: str, code: int, said: str
) -> None:
    """With certificate and key of its own the program of `helm test` searches a guarded Mixer; else it is kept out."""
    monkeypatch.setenv(
        "MIXER_API_KEY", "" if lacking == "key" else (secrets / "key").read_text(encoding="utf-8")
    )
    found = manifests(TLS, "--set=tests.query=csv")
    arguments = of_kind(found, "Pod")["mixer-test"]["spec"]["containers"][0]["args"]
    async with running(guarded(found, secrets)) as (server, _app):
        replaced = {
            "mixer.search.svc:50051": f"127.0.0.1:{server.port}",
            "mixer-admin.search.svc:9464": f"127.0.0.1:{server.admin_port}",
            "/etc/mixer/tls": str(secrets / "tls"),
            "/etc/mixer/client": str(secrets / "test"),
        }
        for old, new in replaced.items():
            assert any(old in each for each in arguments)
            arguments = [each.replace(old, new) for each in arguments]
        if lacking == "client":
            arguments = [each for each in arguments if not each.startswith("--client")]
        program = await create_subprocess_exec(sys.executable, "-c", *arguments, stdout=PIPE, stderr=PIPE)
        printed, complained = await program.communicate()
    assert said in printed.decode(), complained.decode()
    assert program.returncode == code, printed.decode()
