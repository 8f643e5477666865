"""How commands reach a server that asks for TLS and proof."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from mixer import keys
from mixer.caller import Scope
from mixer.cli_server import HERE, Reach
from tests.commands import run, said
from tests.doubles import engines, mixers
from tests.doubles.certificates import Authority, Mount

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


@dataclass
class Guarded:
    """A server that asks its callers for a certificate and a key, and what they need."""

    target: str
    options: list[object]
    key: str

    async def run(self, *words: object) -> Result:
        """A command, in a thread of its own."""
        return await asyncio.to_thread(run, *words, "--target", self.target, "--timeout-s", 20)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    authority, made = Authority(), keys.new("acme", list(Scope))
    (tmp_path / "keys.yaml").write_text(made.line)
    files = Mount(tmp_path / "server").pair(authority.issue(), client_ca=authority.pem)
    ours = Mount(tmp_path / "ours").pair(authority.issue("me"), ca=authority.pem)
    settings = mixers.settings(
        {"a": MEMORY},
        server={"tls": {**files, "require_client": True}},
        auth={"keys": str(tmp_path / "keys.yaml")},
    )
    options = ["--tls-ca", ours["ca"], "--tls-cert", ours["certificate"], "--tls-key", ours["key"]]
    async with mixers.running(settings) as mixer:
        yield Guarded(mixer.target, options, made.key)


async def test_commands_prove_who_they_are(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the files that are named, and a key in the variable that is named, or in the usual one."""
    monkeypatch.setenv("OURS", guarded.key)
    named = [*guarded.options, "--api-key-env", "OURS"]
    assert "a csv file" in said(await guarded.run("search", "csv file", *named))
    assert json.loads(said(await guarded.run("explain", "--search", "csv file", "--json", *named)))
    monkeypatch.setenv("MIXER_API_KEY", guarded.key)
    assert "a csv file" in said(await guarded.run("search", "csv file", *guarded.options))


async def test_options_may_stand_in_the_environment(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a shell is set up once."""
    for name, value in zip(guarded.options[::2], guarded.options[1::2], strict=True):
        monkeypatch.setenv(f"MIXER_{str(name).strip('-').replace('-', '_').upper()}", str(value))
    monkeypatch.setenv("MIXER_TOKEN", guarded.key)
    assert "a csv file" in said(await guarded.run("search", "csv file"))


async def test_what_lacks_is_said(guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, which never holds the key."""
    monkeypatch.setenv("WRONG", guarded.key + "x")
    cases: list[tuple[list[object], str]] = [
        (guarded.options, "UNAUTHENTICATED: no credential"),
        ([*guarded.options, "--api-key-env", "WRONG"], "UNAUTHENTICATED: the API key is none"),
        ([*guarded.options, "--api-key-env", "NOWHERE"], "NOWHERE is not set"),
        (guarded.options[:4], "certificate and key go together"),
        (["--tls-ca", tmp_path / "none.pem"], "none.pem"),
        ([], "UNAVAILABLE"),
        (["--tls"], "UNAVAILABLE"),
    ]
    for options, expected in cases:
        result = await guarded.run("search", "csv file", *options)
        assert result.exit_code == 1
        assert expected in result.stderr
        assert guarded.key not in result.output


@pytest.mark.parametrize(
    "command", [("search",), ("explain",), ("train",), ("evaluate",), ("models", "decay")], ids=" ".join
)
def test_all_that_call_a_server_take_the_options(command: tuple[str, ...]) -> None:
    """There is one place that declares them."""
    text = said(run(*command, "--help"))
    for option in ("tls-ca", "tls-cert", "tls-key", "tls-name", "api-key-env", "token-env"):
        assert re.search(rf"--{option}\b", text), option


def test_a_server_of_our_own_needs_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the environment is for others."""
    monkeypatch.setenv("MIXER_API_KEY", "k")
    assert HERE.options == {"tls": None, "api_key": "", "token": ""}
    assert Reach().options["api_key"] == "k"


def test_a_key_is_printed_once() -> None:
    """With the line for the server's file, by which its holder is let in."""
    text = said(run("keys", "new", "--tenant", "acme", "--scopes", "search,debug"))
    key, line = re.findall(r": (mixer_\S+|\"[0-9a-f]{64}\": .*)", text)
    caller = keys.read([line.encode()]).caller(key)
    assert caller
    assert (caller.tenant, set(caller.scopes)) == ("acme", {Scope.SEARCH, Scope.DEBUG})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--tenant", "acme", "--scopes", "search,all"], "--scopes search,all: take search, feedback"),
        (["--tenant", "a b"], "--tenant: String should match"),
    ],
)
def test_a_key_that_cannot_be(words: list[str], expected: str) -> None:
    """Says what is taken."""
    result = run("keys", "new", *words)
    assert result.exit_code == 1
    assert expected in result.stderr


def test_check_config_reads_certificates_and_keys(tmp_path: Path) -> None:
    """What the server would not start with is found before; a password in a URL is not repeated."""
    issued = Authority().issue()
    files = Mount(tmp_path / "tls").pair(issued)
    (tmp_path / "keys.yaml").write_text("- mine")
    made = mixers.settings({"a": MEMORY}).model_dump(mode="json", exclude_none=True)
    made["server"]["tls"] = {"certificate": str(files["certificate"]), "key": "tls/none"}
    made["auth"] = {"keys": "keys.yaml"}
    made["backends"]["b"] = {"kind": "remote", "target": "x:1", "tls": {"ca": "keys.yaml"}}
    config = tmp_path / "mixer.yaml"
    config.write_text(yaml.safe_dump(made))
    result = run("check-config", "-c", config)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["auth", "server.tls", "backends.b.tls"]
    assert "none" in lines[1]
    (tmp_path / "keys.yaml").write_text(keys.new("acme", [Scope.SEARCH]).line)
    made["server"]["tls"]["key"] = str(files["key"])
    del made["backends"]["b"]
    config.write_text(yaml.safe_dump(made))
    assert "sound" in said(run("check-config", "-c", config))
