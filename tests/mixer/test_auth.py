"""Who may ask, over real sockets: keys, tokens, scopes, files that change, forced traces, tenants apart."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from pydantic import ValidationError

from backends import reloading
from mixer import keys
from mixer.access_settings import AuthSettings
from mixer.caller import Scope
from mixer.client import AsyncMixerClient, Event, EventKind, MixerError
from mixer.interceptors import FORCE_SAMPLE
from mixer.keys import NewKey
from mixer.telemetry import Forced
from protos.mixer.v1 import mixer_pb2 as pb
from tests.doubles import engines, mixers

MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}
KEY = ec.generate_private_key(ec.SECP256R1())
SEARCH = f"/{mixers.ROOT}"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at all the time."""
    monkeypatch.setattr(reloading, "POLL_S", 0.02)


@dataclass
class Issuer:
    """A file of keys, a file of a token's public key, and who holds what."""

    folder: Path
    made: dict[str, NewKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        (self.folder / "jwt.pem").write_bytes(KEY.public_key().public_bytes(serialization.Encoding.PEM, form))

    def key(self, name: str, *scopes: Scope, tenant: str = "acme") -> str:
        """A key by this name, in the file from now on."""
        self.made[name] = keys.new(tenant, scopes)
        self.write()
        return self.made[name].key

    def drop(self, name: str) -> None:
        """The key counts no more."""
        del self.made[name]
        self.write()

    def write(self) -> None:
        draft = self.folder / "draft"
        draft.write_text("\n".join(each.line for each in self.made.values()))
        draft.rename(self.folder / "keys.yaml")

    @property
    def settings(self) -> dict[str, Any]:
        issued = {"issuer": "i", "audience": "mixer", "jwks": str(self.folder / "jwt.pem")}
        return {"keys": str(self.folder / "keys.yaml"), "jwt": issued}


def token(**claims: Any) -> str:
    made = {"iss": "i", "aud": "mixer", "exp": int(time.time()) + 600, "tenant": "acme", **claims}
    return jwt.encode(made, KEY, "ES256")


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    made = Issuer(tmp_path)
    made.key("first", Scope.SEARCH)
    return made


@asynccontextmanager
async def guarded(issuer: Issuer, **sections: Any) -> AsyncIterator[mixers.Mixer]:
    auth = {**issuer.settings, **sections.pop("auth", {})}
    async with mixers.running(mixers.settings({"a": MEMORY}, auth=auth, **sections)) as mixer:
        yield mixer


def client(mixer: mixers.Mixer, **proof: Any) -> AsyncMixerClient:
    return AsyncMixerClient(mixer.target, timeout_s=20.0, attempts=1, **proof)


async def answer(mixer: mixers.Mixer, metadata: Sequence[tuple[str, str]], **message: Any) -> Any:
    """The answer of a search with this metadata, or the error's status."""
    async with grpc.aio.insecure_channel(mixer.target) as channel:
        call = channel.unary_unary(SEARCH, pb.SearchRequest.SerializeToString, pb.SearchResponse.FromString)
        try:
            request = pb.SearchRequest(query="csv file", **message)
            return await call(request, timeout=20, metadata=tuple(metadata))
        except grpc.aio.AioRpcError as error:
            return error.code()


async def refused(mixer: mixers.Mixer, **proof: str) -> MixerError:
    async with client(mixer, **proof) as asking:
        with pytest.raises(MixerError) as caught:
            await asking.search("csv file")
    return caught.value


async def test_who_proves_it_is_answered(issuer: Issuer) -> None:
    """By a key in either header, or by a token; the word `Bearer` in any case."""
    key = issuer.made["first"].key
    async with guarded(issuer) as mixer:
        for metadata in (
            [("x-api-key", key)],
            [("authorization", f"Bearer {key}")],
            [("authorization", f"bearer  {key}")],
            [("authorization", f"Bearer {token()}")],
            [("x-api-key", key), ("authorization", "Bearer nonsense")],
        ):
            assert (await answer(mixer, metadata)).hits
        for proof in ({"api_key": key}, {"token": token()}, {"token": key}):
            async with client(mixer, **proof) as asking:
                assert (await asking.search("csv file")).hits


@pytest.mark.parametrize(
    ("proof", "reason", "words"),
    [
        ({}, "no_credential", "no credential; send an API key as metadata x-api-key"),
        ({"api_key": "mixer_none"}, "unknown_key", "the API key is none of this server's"),
        ({"token": "mixer_none"}, "unknown_key", "the API key is none of this server's"),
        ({"token": token(exp=1)}, "token_expired", "the token is over"),
        ({"token": token(aud="x")}, "token_for_others", "for another audience"),
        ({"token": token() + "x"}, "bad_token", "not one that this server takes"),
        ({"token": "a.b.c"}, "bad_token", "not one that this server takes"),
    ],
)
async def test_who_does_not_is_not(
    issuer: Issuer, proof: dict[str, str], reason: str, words: str, logged: StringIO
) -> None:
    """UNAUTHENTICATED, in a sentence and a word; counted and logged by that word. What was sent is not repeated."""
    async with guarded(issuer) as mixer:
        error = await refused(mixer, **proof)
        assert error.code is grpc.StatusCode.UNAUTHENTICATED
        assert words in error.message
        assert error.reason == reason.upper()
        assert not [sent for sent in proof.values() if sent in str(error)]
        assert mixer.value("mixer_auth_refused_total", reason=reason) == 1.0
        await mixers.until(lambda: mixers.call_lines(logged.getvalue()))
    (line,) = mixers.call_lines(logged.getvalue())
    assert line["mixer.refused"] == reason


@pytest.mark.parametrize("value", ["", "Basic dTpw", "Bearer", "Bearer ", "Token x"])
async def test_other_kinds_of_proof(issuer: Issuer, value: str) -> None:
    """Are none."""
    async with guarded(issuer) as mixer:
        assert await answer(mixer, [("authorization", value)]) is grpc.StatusCode.UNAUTHENTICATED


async def test_scopes_open_methods(issuer: Issuer, tmp_path: Path) -> None:
    """Each method has its scope, debug answers one of their own; PERMISSION_DENIED names the one that lacks."""
    held = {scope: issuer.key(scope, scope) for scope in (Scope.SEARCH, Scope.FEEDBACK, Scope.EXPLAIN)}
    held[Scope.DEBUG] = issuer.key("debug", Scope.SEARCH, Scope.DEBUG)
    allowed = {
        Scope.SEARCH: {"search"},
        Scope.FEEDBACK: {"feedback"},
        Scope.EXPLAIN: {"explain"},
        Scope.DEBUG: {"search", "debug"},
    }
    async with guarded(issuer, feedback={"folder": str(tmp_path / "events")}) as mixer:
        for scope, key in held.items():
            async with client(mixer, api_key=key) as asking:
                for named, call in (
                    ("search", asking.search("csv file")),
                    ("debug", asking.search("csv file", features=True)),
                    ("feedback", asking.feedback([Event("q", EventKind.CLICK, "1")])),
                    ("explain", asking.explain(search="csv file")),
                ):
                    if named in allowed[scope]:
                        await call
                        continue
                    with pytest.raises(MixerError) as caught:
                        await call
                    lacking = "search" if named == "debug" and scope is not Scope.SEARCH else named
                    assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
                    assert f"no scope '{lacking}'" in caught.value.message
                    assert caught.value.reason == "SCOPE_LACKING"
        assert mixer.value("mixer_auth_refused_total", reason="scope_lacking") == 11.0


async def test_without_auth_all_may_debug() -> None:
    """A server that asks for no proof answers everything, whatever is sent."""
    async with mixers.running(mixers.settings({"a": MEMORY})) as mixer, client(mixer, api_key="x") as asking:
        assert (await asking.search("csv file", features=True)).hits


async def test_health_is_open(issuer: Issuer) -> None:
    """Probes have no keys."""
    async with guarded(issuer) as mixer, grpc.aio.insecure_channel(mixer.target) as channel:
        told = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert told.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("open_", [True, False])
async def test_reflection_may_be_closed(issuer: Issuer, open_: bool) -> None:
    """It tells what anybody can read in the repository; who does not want that says so."""
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async with (
        guarded(issuer, auth={"reflection": open_}) as mixer,
        grpc.aio.insecure_channel(mixer.target) as channel,
    ):
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]))
        if open_:
            assert (await call.read()).list_services_response.service
            call.cancel()
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_keys_come_and_go(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """Without a restart; a file that is wrong leaves the keys as they were."""
    async with guarded(issuer) as mixer:

        def reloads(outcome: str) -> float | None:
            return mixer.value("mixer_auth_reloads_total", outcome=outcome)

        new = issuer.key("second", Scope.SEARCH)
        await mixers.until(lambda: reloads("swapped") == 1)
        assert (await answer(mixer, [("x-api-key", new)])).hits
        (issuer.folder / "keys.yaml").write_text(f"{new}: {{tenant: acme}}")
        await mixers.until(lambda: reloads("refused") == 1)
        assert (await answer(mixer, [("x-api-key", new)])).hits
        issuer.drop("second")
        await mixers.until(lambda: reloads("swapped") == 2)
        assert (await refused(mixer, api_key=new)).reason == "UNKNOWN_KEY"
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        (issuer.folder / "jwt.pem").write_bytes(other.public_bytes(serialization.Encoding.PEM, form))
        await mixers.until(lambda: reloads("swapped") == 3)
        assert (await refused(mixer, token=token())).reason == "BAD_TOKEN"
    assert new not in caplog.text
    assert not [record for record in caplog.records if new in repr(record.__dict__)]


async def test_a_wrong_file_is_no_start(issuer: Issuer) -> None:
    """There are no earlier keys to go on with."""
    (issuer.folder / "keys.yaml").write_text("- none")
    with pytest.raises(ValueError, match="keys: is not a mapping"):
        async with guarded(issuer):
            pass
    (issuer.folder / "keys.yaml").unlink()
    with pytest.raises(FileNotFoundError):
        async with guarded(issuer):
            pass


def test_settings_that_let_nobody_in() -> None:
    """Are a fault: an open server has no `auth` at all."""
    with pytest.raises(ValidationError, match="lets nobody in"):
        AuthSettings()


async def test_the_tenant_cannot_be_forged(issuer: Issuer) -> None:
    """Slices, limits and features see the tenant of the credential, whatever the caller writes into the context."""
    other = issuer.key("other", Scope.SEARCH, tenant="other")
    tier = {"name": "tenant", "by": "context", "key": "tenant", "values": ["acme", "other"]}
    auth = issuer.settings
    made = mixers.settings(
        {"a": MEMORY}, {"slices": [tier]}, auth=auth, tenants={"acme": {"per_second": 1, "burst": 1}}
    )
    with mixers.tracing() as traced:
        async with mixers.running(made) as mixer, client(mixer, api_key=other) as asking:
            for _ in range(3):
                await asking.search("csv file", context={"tenant": "acme"})
    told = [dict(span.attributes or {}) for span in traced.named(mixers.ROOT)]
    assert [(each["mixer.tenant"], each["mixer.slice.tenant"]) for each in told] == [("other", "other")] * 3


async def test_limits_are_the_tenants(issuer: Issuer) -> None:
    """All credentials of one tenant share its limits; another tenant's are its own."""
    second, other = issuer.key("second", Scope.SEARCH), issuer.key("other", Scope.SEARCH, tenant="other")
    rules = {"default": {"per_day": 1}, "acme": {"per_day": 2}}
    async with guarded(issuer, tenants=rules) as mixer:
        first = issuer.made["first"].key
        codes = []
        for proof in (first, second, first, other, other):
            found = await answer(mixer, [("x-api-key", proof)])
            codes.append(found if isinstance(found, grpc.StatusCode) else grpc.StatusCode.OK)
        ok, over = grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED
        assert codes == [ok, ok, over, ok, over]
        assert await answer(mixer, []) is grpc.StatusCode.UNAUTHENTICATED
        counted = {
            (tenant, outcome): mixer.value("mixer_tenant_requests_total", tenant=tenant, outcome=outcome)
            for tenant in ("acme", "other")
            for outcome in ("admitted", "over_quota")
        }
    assert list(counted.values()) == [2.0, 1.0, 1.0, 1.0]


async def test_answers_of_other_tenants_are_unknown(issuer: Issuer) -> None:
    """A query id that was overheard explains nothing; the tenant's own does."""
    scopes = (Scope.SEARCH, Scope.EXPLAIN)
    ours, theirs = issuer.key("ours", *scopes), issuer.key("theirs", *scopes, tenant="other")
    async with guarded(issuer, explain={"recent": 10}) as mixer:
        async with client(mixer, api_key=ours) as asking:
            found = await asking.search("csv file")
            assert (await asking.explain(found.query_id)).placements
        async with client(mixer, api_key=theirs) as asking:
            with pytest.raises(MixerError) as caught:
                await asking.explain(found.query_id)
        assert caught.value.code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("sent", "forced", "traced"),
    [
        ([], None, False),
        ([(FORCE_SAMPLE, "1")], "forced", True),
        ([(FORCE_SAMPLE, "0")], None, False),
        ([(FORCE_SAMPLE, "1"), ("traceparent", f"00-{'a' * 32}-{'b' * 16}-00")], "forced", True),
    ],
)
async def test_forced_traces(
    issuer: Issuer, sent: list[tuple[str, str]], forced: str | None, traced: bool
) -> None:
    """Who has the scope has a call traced whatever the ratio, also below a caller that does not sample."""
    key = issuer.key("forcing", Scope.SEARCH, Scope.FORCE_SAMPLE)
    with mixers.tracing(Forced(ParentBased(ALWAYS_OFF))) as kept:
        async with guarded(issuer) as mixer:
            found = await answer(mixer, [("x-api-key", key), *sent])
            counted = mixer.value("mixer_forced_samples_total", outcome="forced")
    assert bool(found.trace_id) is traced
    assert len(kept.named(mixers.ROOT)) == int(traced)
    assert counted == float(forced == "forced")
    if traced:
        assert (kept.one(mixers.ROOT).attributes or {})["mixer.force_sample"] == "forced"


async def test_who_may_not_force_is_answered_all_the_same(issuer: Issuer, logged: StringIO) -> None:
    """Untraced, and log and metric say so; a call without any credential counts as refused too."""
    with mixers.tracing(Forced(ParentBased(ALWAYS_OFF))) as kept:
        async with guarded(issuer) as mixer:
            found = await answer(mixer, [("x-api-key", issuer.made["first"].key), (FORCE_SAMPLE, "1")])
            nobody = await answer(mixer, [(FORCE_SAMPLE, "1")])
            counted = mixer.value("mixer_forced_samples_total", outcome="refused")
    assert found.hits
    assert not found.trace_id
    assert nobody is grpc.StatusCode.UNAUTHENTICATED
    assert counted == 2.0
    assert kept.named(mixers.ROOT) == []
    assert [line["mixer.force_sample"] for line in mixers.call_lines(logged.getvalue())] == ["refused"] * 2


async def test_without_auth_all_may_force() -> None:
    """As with debug answers."""
    with mixers.tracing(Forced(ParentBased(ALWAYS_OFF))):
        async with mixers.running(mixers.settings({"a": MEMORY})) as mixer:
            assert (await answer(mixer, [(FORCE_SAMPLE, "1")])).trace_id
            assert not (await answer(mixer, [])).trace_id
