"""What stands between callers and the service, as the settings have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixer import keys
from mixer.access import OPEN, Access, access_of
from mixer.caller import Scope
from mixer.errors import TenantLimited
from mixer.metrics import Metrics
from mixer.settings import SettingsError, parse
from mixer.tenants import LimitTenants
from tests.doubles import engines, mixers

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
FILE = "backends: {a: {kind: memory, fields: {}}}\nmixes: {default: {backends: {a: {}}}}\n"


def access(**sections: Any) -> Access:
    return access_of(mixers.settings({"a": MEMORY}, **sections), Metrics())


def test_an_open_server_has_nothing_in_the_way() -> None:
    """What is not asked for costs nothing."""
    assert access() == OPEN == Access((), OPEN.may_force, True, ())
    assert OPEN.may_force({})


def test_proof_comes_before_limits(tmp_path: Path) -> None:
    """Limits are those of whoever proved to call; files of keys are followed."""
    (tmp_path / "keys.yaml").write_text(keys.new("acme", [Scope.SEARCH]).line)
    made = access(auth={"keys": str(tmp_path / "keys.yaml")}, tenants={"acme": {"per_day": 1}})
    assert [type(layer).__name__ for layer in made.layers] == ["Authenticate", "LimitTenants"]
    assert len(made.files) == 1
    assert not made.may_force({})


def test_workers_share_the_limits() -> None:
    """Each lets through its part."""
    made = access(tenants={"default": {"per_second": 1, "burst": 8}}, server={"workers": 4})
    (limited,) = made.layers
    assert isinstance(limited, LimitTenants)
    for _ in range(2):
        limited.admit("")
    with pytest.raises(TenantLimited):
        limited.admit("")


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("server: {tls: {certificate: a.pem}}", "server.tls.key: Field required"),
        (
            "server: {tls: {certificate: a, key: b, require_client: true}}",
            "server.tls: require_client needs client_ca: who signs callers' certificates",
        ),
        (
            "server: {tls: {certificate: a, key: b, client_ca: c}}",
            "server.tls: client_ca is of no use without require_client: true",
        ),
        ("auth: {}", "auth: lets nobody in: name keys, jwt or both"),
        ("auth: {key: a}", "auth.key: unknown key"),
        ("tenants: {a b: {}}", "tenants.a b"),
        ("tenants: {a: {burst: 2}}", "tenants.a: burst is of no use without per_second"),
        ("tenants: {a: {per_second: 0}}", "tenants.a.per_second: Input should be greater than 0"),
        (
            "feature_log: {sinks: [{kind: kafka, servers: h, topic: t, options: {sasl.password: zq7}}]}",
            "sasl.password must not stand in a file; set MIXER_KAFKA_PASSWORD instead",
        ),
    ],
)
def test_faults(lines: str, told: str) -> None:
    """Each is named by its field, with its line and the mend; no value is repeated."""
    with pytest.raises(SettingsError) as caught:
        parse(FILE + lines + "\n", "mixer.yaml")
    assert told in str(caught.value)
    assert str(caught.value).startswith("mixer.yaml:3: ")
    assert "zq7" not in str(caught.value)


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    """As every path of the settings."""
    lines = (
        "server: {tls: {certificate: tls/a, key: /b, client_ca: c, require_client: true}}\n"
        "auth: {keys: k, jwt: {issuer: i, audience: a, jwks: j}}\n"
    )
    made = parse(FILE + lines, folder=tmp_path)
    assert made.server.tls
    assert made.auth
    assert made.auth.jwt
    tls = made.server.tls
    assert (tls.certificate, tls.key, tls.client_ca) == (tmp_path / "tls/a", Path("/b"), tmp_path / "c")
    assert (made.auth.keys, made.auth.jwt.jwks) == (tmp_path / "k", tmp_path / "j")
