"""Backends asked over TLS: real certificates, replaced while calls are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from backends import reloading, service
from backends.base import Backend, BackendUnreachable, Hits, Query
from backends.memory import Memory
from backends.remote import Remote, RemoteSettings
from mixer.access_settings import ServerTlsSettings
from mixer.metrics import Metrics
from mixer.serving import Listening, Server
from tests.doubles import engines, mixers
from tests.doubles.certificates import Authority, Mount

ASKED = Query("csv", 3)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at all the time."""
    monkeypatch.setattr(reloading, "POLL_S", 0.02)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def served(files: dict[str, Path], backend: Backend | None = None) -> AsyncIterator[Server]:
    """A backend that asks its callers for a certificate, where there is a `client_ca` among the files."""
    tls = ServerTlsSettings.model_validate({**files, "require_client": "client_ca" in files})
    server = Server(Listening("127.0.0.1:0", drain_s=0.1, tls=tls), Metrics(), [service.SERVICE])
    service.add_to(server.grpc, backend or engines.memory())
    await server.start()
    await server.ready()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def remote(server: Server, tls: dict[str, Any] | None) -> AsyncIterator[Remote]:
    made = {"kind": "remote", "target": f"127.0.0.1:{server.port}", "tls": tls}
    opened = Remote(RemoteSettings.model_validate(made))
    try:
        yield opened
    finally:
        await opened.close()


async def test_asked_over_tls(authority: Authority, tmp_path: Path) -> None:
    """Who proves itself to a service that it trusts is answered; in the clear, or of a stranger, nobody is."""
    files = Mount(tmp_path / "server").pair(authority.issue(), client_ca=authority.pem)
    ours = Mount(tmp_path / "ours").pair(authority.issue("mixer"), ca=authority.pem)
    async with served(files) as server:
        async with remote(server, ours) as good:
            assert len((await good.retrieve(ASKED, 20.0)).ids) == 3
        strange = {**ours, **Mount(tmp_path / "strange").pair(Authority().issue("mixer"))}
        distrusting = {**ours, **Mount(tmp_path / "other").put(ca=Authority().pem)}
        for tls in (None, {"ca": ours["ca"]}, strange, distrusting):
            async with remote(server, tls) as bad:
                with pytest.raises(BackendUnreachable):
                    await bad.retrieve(ASKED, 20.0)


async def test_the_name_of_the_service(authority: Authority, tmp_path: Path) -> None:
    """May be given where the target is not what the certificate is for."""
    issued = authority.issue("lexical.search.svc")
    files = Mount(tmp_path / "server").pair(issued)
    ca = Mount(tmp_path / "ours").put(ca=authority.pem)
    async with served(files) as server:
        named = {"kind": "remote", "target": f"localhost:{server.port}"}
        for name, answers in (("lexical.search.svc", True), ("", False)):
            asked = Remote(RemoteSettings.model_validate({**named, "tls": {**ca, "server_name": name}}))
            try:
                if answers:
                    assert len(await asked.retrieve(ASKED, 20.0))
                else:
                    with pytest.raises(BackendUnreachable):
                        await asked.retrieve(ASKED, 20.0)
            finally:
                await asked.close()


class Held(Memory):
    """Answers when let go."""

    reached: asyncio.Event
    opened: asyncio.Event

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        if query.text == "held":
            self.reached.set()
            await self.opened.wait()
        return await super().retrieve(query, timeout_s)


def reconnected(asked: Remote, before: Any) -> bool:
    return asked._channel is not before


async def test_replaced_while_calls_are_in_flight(authority: Authority, tmp_path: Path) -> None:
    """Other files make a new connection; a call on the old one is answered there, and none fails."""
    held = engines.memory(kind=Held)
    assert isinstance(held, Held)
    held.reached, held.opened = asyncio.Event(), asyncio.Event()
    files = Mount(tmp_path / "server").pair(authority.issue(), client_ca=authority.pem)
    mount = Mount(tmp_path / "ours")
    ours = mount.pair(authority.issue("mixer"), ca=authority.pem)
    async with served(files, held) as server, remote(server, ours) as asked:
        waiting = asyncio.create_task(asked.retrieve(Query("held", 3), 20.0))
        await held.reached.wait()
        before = asked._channel
        for _ in range(3):
            mount.pair(authority.issue("mixer"), ca=authority.pem)
            await mixers.until(partial(reconnected, asked, before))
            before = asked._channel
            for _ in range(5):
                assert len(await asked.retrieve(ASKED, 20.0)) == 3
        assert not waiting.done()
        held.opened.set()
        await waiting


async def test_broken_files_change_nothing(authority: Authority, tmp_path: Path) -> None:
    """The connection stands that is good; at the start there must be one."""
    files = Mount(tmp_path / "server").pair(authority.issue(), client_ca=authority.pem)
    mount, issued = Mount(tmp_path / "ours"), authority.issue("mixer")
    ours = mount.pair(issued, ca=authority.pem)
    async with served(files) as server, remote(server, ours) as asked:
        await asked.retrieve(ASKED, 20.0)
        assert asked._credentials
        before = asked._channel
        mount.put(certificate=issued.certificate, key=authority.issue().key, ca=authority.pem)
        await mixers.until(lambda: asked._credentials and asked._credentials._missed)
        assert len(await asked.retrieve(ASKED, 20.0)) == 3
        assert asked._channel is before
        with pytest.raises(ValueError, match="do not belong together"):
            Remote(RemoteSettings.model_validate({"kind": "remote", "target": "x:1", "tls": ours}))


@pytest.mark.parametrize("half", ["certificate", "key"])
def test_half_a_pair(half: str) -> None:
    """Is a fault of the settings."""
    with pytest.raises(ValidationError, match="go together"):
        RemoteSettings.model_validate({"kind": "remote", "target": "x:1", "tls": {half: "a.pem"}})


def test_paths_start_at_the_file() -> None:
    """As every path of the settings."""
    made = {"kind": "remote", "target": "x:1", "tls": {"ca": "ca.pem"}}
    settings = RemoteSettings.model_validate(made, context={"folder": Path("/etc/mixer")})
    assert settings.tls
    assert settings.tls.ca == Path("/etc/mixer/ca.pem")
