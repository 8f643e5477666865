"""TLS over real sockets with real certificates: replaced under load, refused, mutual, and a plain port for probes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from backends import reloading
from backends.tls import Tls, check_pair
from mixer.access_settings import ServerTlsSettings
from mixer.client import AsyncMixerClient, MixerClient, MixerError
from mixer.metrics import Metrics
from mixer.server import SERVICE
from mixer.tls import ServerCertificate
from tests.doubles import engines, mixers
from tests.doubles.certificates import Authority, Mount

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    return Mount(tmp_path / "tls")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at all the time."""
    monkeypatch.setattr(reloading, "POLL_S", 0.02)


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    return path


def settings(mount: Mount, authority: Authority, **tls: Any) -> Any:
    files = mount.pair(authority.issue(), client_ca=authority.pem)
    named = {"certificate": files["certificate"], "key": files["key"], **tls}
    return mixers.settings({"a": MEMORY}, server={"tls": named, "health_listen": "127.0.0.1:0"})


def reach(mixer: mixers.Mixer, tls: Tls | None) -> AsyncMixerClient:
    return AsyncMixerClient(mixer.target, timeout_s=20.0, attempts=1, tls=tls)


def reloads(mixer: mixers.Mixer) -> dict[str, float | None]:
    return {
        outcome: mixer.value("mixer_tls_reloads_total", outcome=outcome) for outcome in reloading.OUTCOMES
    }


def counts(mixer: mixers.Mixer, outcome: str, number: int) -> bool:
    return reloads(mixer)[outcome] == number


async def shown(target: str, ca: bytes) -> bytes:
    """The certificate that a new connection is answered with."""
    import ssl

    host, _, port = target.rpartition(":")
    trusting = ssl.create_default_context(cadata=ca.decode())
    trusting.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(host, int(port), ssl=trusting)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(True)
        return ssl.DER_cert_to_PEM_cert(der).encode()
    finally:
        writer.transport.abort()


async def test_search_over_tls(mount: Mount, authority: Authority, ca: Path) -> None:
    """A client that trusts the authority is answered; one that does not, or speaks no TLS, is not."""
    async with mixers.running(settings(mount, authority)) as mixer:
        async with reach(mixer, Tls(ca=ca)) as client:
            assert (await client.search("csv file")).hits
        with MixerClient(mixer.target, tls=Tls(ca=ca), timeout_s=20.0) as waiting:
            assert (await asyncio.to_thread(waiting.search, "csv file")).hits
        for tls in (None, Tls()):
            async with reach(mixer, tls) as client:
                with pytest.raises(MixerError, match="UNAVAILABLE"):
                    await client.search("csv file")


async def test_another_name_in_the_certificate(mount: Mount, authority: Authority, ca: Path) -> None:
    """The name is checked, and may be given where it is not that of the target."""
    made = settings(mount, authority)
    mount.pair(authority.issue("mixer.example"), client_ca=authority.pem)
    async with mixers.running(made) as mixer:
        target = f"dns:///localhost:{mixer.server.port}"
        for name, answered in (("mixer.example", True), ("", False)):
            tls = Tls(ca=ca, server_name=name)
            async with AsyncMixerClient(target, timeout_s=20.0, attempts=1, tls=tls) as client:
                if answered:
                    assert (await client.search("csv file")).hits
                else:
                    with pytest.raises(MixerError, match="UNAVAILABLE"):
                        await client.search("csv file")


async def test_probes_need_no_tls(mount: Mount, authority: Authority) -> None:
    """The port for health answers in the clear, says what the server says, and nothing else."""
    async with (
        mixers.running(settings(mount, authority)) as mixer,
        grpc.aio.insecure_channel(f"127.0.0.1:{mixer.server.health_port}") as channel,
    ):
        asked = health_pb2.HealthCheckRequest(service=SERVICE)
        told = await health_pb2_grpc.HealthStub(channel).Check(asked, timeout=20)
        assert told.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/mixer.v1.MixerService/Search")(b"", timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_clients_prove_themselves(mount: Mount, authority: Authority, ca: Path, tmp_path: Path) -> None:
    """With mutual TLS a certificate of the authority is let in; none, or a stranger's, is not."""
    files = mount.pair(authority.issue(), client_ca=authority.pem)
    made = settings(mount, authority, client_ca=files["client_ca"], require_client=True)
    ours = Mount(tmp_path / "ours").pair(authority.issue("client"))
    strange = Mount(tmp_path / "strange").pair(Authority("stranger").issue("client"))
    async with mixers.running(made) as mixer:
        async with reach(mixer, Tls.model_validate({"ca": ca, **ours})) as client:
            assert (await client.search("csv file")).hits
        for tls in (Tls(ca=ca), Tls.model_validate({"ca": ca, **strange})):
            async with reach(mixer, tls) as client:
                with pytest.raises(MixerError, match="UNAVAILABLE"):
                    await client.search("csv file")


async def searching(mixer: mixers.Mixer, tls: Tls, failed: list[MixerError], stop: asyncio.Event) -> int:
    """Connections of their own, one after another, until told to stop; how many were answered."""
    answered = 0
    while not stop.is_set():
        async with reach(mixer, tls) as client:
            for _ in range(3):
                try:
                    await client.search("csv file")
                    answered += 1
                except MixerError as error:
                    failed.append(error)
    return answered


async def test_replaced_under_load(mount: Mount, authority: Authority, ca: Path) -> None:
    """New connections get the new certificate; no call fails while they are replaced, old connections go on."""
    failed: list[MixerError] = []
    stop = asyncio.Event()
    async with mixers.running(settings(mount, authority)) as mixer, reach(mixer, Tls(ca=ca)) as old:
        await old.search("csv file")
        tasks = [asyncio.create_task(searching(mixer, Tls(ca=ca), failed, stop)) for _ in range(3)]
        for swaps in range(1, 5):
            issued = authority.issue()
            mount.pair(issued, client_ca=authority.pem)
            await mixers.until(partial(counts, mixer, "swapped", swaps))
            assert await shown(mixer.target, authority.pem) == issued.certificate
            expires = mixer.value("mixer_tls_certificate_expires_timestamp_seconds")
            assert expires == issued.ends.timestamp()
        stop.set()
        answered = await asyncio.gather(*tasks)
        assert (await old.search("csv file")).hits
        assert reloads(mixer) == {"swapped": 4.0, "refused": 0.0, "unreadable": 0.0}
    assert failed == []
    assert min(answered) > 0


async def test_a_broken_one_changes_nothing(
    mount: Mount, authority: Authority, ca: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Half-written, mismatched, over, or gone: the last good pair stands, and each is counted once and said."""
    made, other = settings(mount, authority), authority.issue()
    over = authority.issue(lasts=timedelta(days=-1))
    broken = [
        {"certificate": other.certificate[:200], "key": other.key},
        {"certificate": other.certificate, "key": other.key[:100]},
        {"certificate": other.certificate, "key": authority.issue().key},
        {"certificate": over.certificate, "key": over.key},
    ]
    async with mixers.running(made) as mixer:
        before = await shown(mixer.target, authority.pem)
        for number, contents in enumerate(broken, 1):
            mount.put(**contents)
            await mixers.until(partial(counts, mixer, "refused", number))
            assert await shown(mixer.target, authority.pem) == before
        mount.put(certificate=other.certificate)
        await mixers.until(lambda: reloads(mixer)["unreadable"] == 1)
        assert await shown(mixer.target, authority.pem) == before
        mount.pair(other)
        await mixers.until(lambda: reloads(mixer)["swapped"] == 1)
        assert await shown(mixer.target, authority.pem) == other.certificate
        assert (reloads(mixer)["refused"], reloads(mixer)["unreadable"]) == (4.0, 1.0)
    whys = [record.__dict__["why"] for record in caplog.records if record.msg == "files not reloaded"]
    assert "do not belong together" in whys[2]
    assert "is over since" in whys[3]
    assert not [why for why in whys if "PRIVATE" in why]


async def test_no_start_without_a_certificate(authority: Authority, mount: Mount) -> None:
    """A server that could only be refused by its callers says so at start."""
    files = mount.pair(authority.issue(lasts=timedelta(days=-1)))
    made = mixers.settings({"a": MEMORY}, server={"tls": files})
    with pytest.raises(ValueError, match="is over since"):
        async with mixers.running(made):
            pass
    files["key"].unlink()
    with pytest.raises(FileNotFoundError):
        async with mixers.running(made):
            pass


def test_chain_ends_with_its_first(authority: Authority) -> None:
    """What is told of a chain's end is that of the certificate that ends first."""
    issued = authority.issue(lasts=timedelta(days=90))
    assert check_pair(issued.certificate + authority.pem, issued.key) < issued.ends


def test_a_key_with_a_password_is_refused(authority: Authority) -> None:
    """No one is there to type it; the fault does not show the key."""
    from cryptography.hazmat.primitives import serialization as form

    issued = authority.issue()
    key = form.load_pem_private_key(issued.key, None)
    locked = key.private_bytes(
        form.Encoding.PEM, form.PrivateFormat.PKCS8, form.BestAvailableEncryption(b"word")
    )
    with pytest.raises(ValueError, match="without a password") as caught:
        check_pair(issued.certificate, locked)
    assert caught.value.__suppress_context__


def test_handshakes_read_no_file(mount: Mount, authority: Authority) -> None:
    """gRPC asks for the configuration at every handshake, on its own thread: it is at hand."""
    files = mount.pair(authority.issue())
    made = ServerCertificate(ServerTlsSettings.model_validate(files), Metrics())
    for path in files.values():
        path.unlink()
    assert made.credentials
