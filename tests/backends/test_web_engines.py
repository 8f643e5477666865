"""OpenSearch, Elasticsearch and Solr over HTTP: what is said, what is read, and all that can go wrong between."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from pydantic import ValidationError

from backends.base import (
    Backend,
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    Query,
)
from backends.index import IndexFault
from backends.opensearch import OpenSearch
from backends.solr import Solr
from tests.backends.conftest import opened
from tests.doubles import sockets
from tests.doubles.asking import opening
from tests.doubles.web_engines import WebEngine, settings, web_engine

SECRET = "hunter2"
KINDS = ["opensearch", "elasticsearch", "solr"]
ASKED = Query("read csv", 10, fields=("title", "kind", "year", "title_bm25"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def server(kind: str) -> AsyncIterator[WebEngine]:
    async with web_engine(kind) as server:
        yield server


@pytest.fixture
async def engine(kind: str, server: WebEngine) -> AsyncIterator[Backend]:
    async with opening(settings(kind, server.url)) as made:
        yield made


def parameters(server: WebEngine) -> dict[str, Any]:
    """What the last search asked for."""
    body = server.searches()[-1].body
    return dict(body)


async def test_answer_is_read(engine: Backend, kind: str) -> None:
    """A recorded answer becomes columns: lists joined, missing texts empty, missing numbers NaN, no score 0."""
    hits = await engine.retrieve(ASKED, timeout_s=10.0)
    assert hits.ids == ["a", "b"]
    assert hits.scores.tolist() == [2.0794413, 0.2876821]
    assert hits.texts == {"title": ["read csv", "write csv"], "kind": ["f, g", ""]}
    np.testing.assert_array_equal(hits.numbers["year"], [2001, np.nan])
    np.testing.assert_array_equal(hits.numbers["title_bm25"], [0.6931471, 0.0])
    versions = {"opensearch": "2.19.1", "elasticsearch": "8.17.0", "solr": "9.10.1"}
    assert hits.index.server_version == f"{kind}/{versions[kind]}"


async def test_server_is_given_the_time_that_is_left(engine: Backend, server: WebEngine, kind: str) -> None:
    """The server's own timeout is the caller's, less what has passed."""
    await engine.retrieve(ASKED, timeout_s=30.0)
    asked = parameters(server)
    told = asked["timeAllowed"] if kind == "solr" else asked["timeout"].removesuffix("ms")
    assert 1000 < int(told) <= 30_000


async def test_index_is_looked_at_once(engine: Backend, server: WebEngine) -> None:
    """Many first searches at once read the index's state once; another within its time, not again."""
    await asyncio.gather(*(engine.retrieve(ASKED, timeout_s=10.0) for _ in range(5)))
    others = [heard.path for heard in server.heard if heard.path != server.search]
    assert len(server.searches()) == 5
    assert len(others) == len(set(others))


async def test_nothing_asked_for_nothing(engine: Backend, server: WebEngine) -> None:
    """A query without words, or for no hits, asks no search."""
    assert len(await engine.retrieve(Query("  ", 10), timeout_s=10.0)) == 0
    assert len(await engine.retrieve(Query("csv", 0), timeout_s=10.0)) == 0
    assert server.searches() == []


async def test_trace_goes_along(engine: Backend, server: WebEngine) -> None:
    """The server is told the caller's trace in W3C's words."""
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(0)))
    with trace.use_span(span):
        await engine.retrieve(ASKED, timeout_s=10.0)
    headers = {name.lower(): value for name, value in server.searches()[0].headers.items()}
    assert headers["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-00"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, BackendRefused),
        (401, BackendError),
        (403, BackendError),
        (404, BackendError),
        (408, BackendTimeout),
        (429, BackendError),
        (500, BackendError),
        (502, BackendUnreachable),
        (503, BackendUnreachable),
        (504, BackendTimeout),
    ],
)
async def test_status_is_translated(
    engine: Backend, server: WebEngine, status: int, error: type[BackendError]
) -> None:
    """Every status is one of our errors, in our words: neither the server's nor the user's. None is tried again."""

    async def fails(request: web.Request) -> web.Response:
        return web.json_response({"error": {"type": SECRET, "reason": SECRET}}, status=status)

    server.handlers[server.search] = fails
    with pytest.raises(BackendError, match=str(status)) as caught:
        await engine.retrieve(Query(SECRET, 10), timeout_s=10.0)
    assert type(caught.value) is error
    assert SECRET not in str(caught.value)
    assert len(server.searches()) == 1


def text(body: str, content_type: str = "application/json") -> Callable[..., Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=body, content_type=content_type)

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        text("{"),
        text("[]"),
        text("null"),
        text("3"),
        text("{}"),
        text("<html>busy</html>", "text/html"),
        text('{"hits": {"hits": [{}]}, "timed_out": false, "_shards": {"failed": 0}}'),
        text('{"hits": {"hits": 3}, "timed_out": false, "_shards": {"failed": 0}}'),
        text('{"responseHeader": {}, "response": {"docs": [{"id": "a"}]}}'),
        text('{"responseHeader": {}, "response": {"docs": [{"id": "a", "score": "x"}]}}'),
        text(""),
    ],
)
async def test_garbage_is_named(engine: Backend, server: WebEngine, answer: Any) -> None:
    """An answer that cannot be decoded, or is none of a search, is garbage and no crash."""
    server.handlers[server.search] = answer
    with pytest.raises(BackendGarbage):
        await engine.retrieve(ASKED, timeout_s=10.0)


async def test_garbage_about_the_index(engine: Backend, server: WebEngine) -> None:
    """What the server says of its index may be garbage too."""
    for path in list(server.replies):
        if path != server.search:
            server.replies[path] = {"odd": [SECRET]}
    with pytest.raises(BackendGarbage):
        await engine.retrieve(ASKED, timeout_s=10.0)


@pytest.mark.parametrize(
    ("kind", "path", "change", "said"),
    [
        ("opensearch", "/", {"version": {"number": "8.17.0"}}, "the server is elasticsearch: set `flavor`"),
        ("elasticsearch", "/", {"version": {"distribution": "opensearch"}}, "the server is opensearch"),
        ("opensearch", "/books/_field_caps", {"fields": {}}, "`title`: there is no field title; `kind`"),
        ("solr", "/books/schema/fields", {"fields": []}, "`title`: there is no field title; `kind`"),
        ("solr", "/admin/info/system", {"mode": "solrcloud"}, "on SolrCloud set `version` to documents"),
    ],
    indirect=["kind"],
)
async def test_server_is_held_against_the_settings(
    engine: Backend, server: WebEngine, path: str, change: dict[str, Any], said: str
) -> None:
    """Where the server or its fields are others than the settings have them, every search says how."""
    server.replies[path] |= change
    with pytest.raises(BackendError, match=said):
        await engine.retrieve(ASKED, timeout_s=10.0)


async def test_version_follows_what_the_server_tells(server: WebEngine, kind: str) -> None:
    """The version is another once the server tells of other documents, and the same for the same."""
    async with opening(settings(kind, server.url, version_every_s=0.001)) as made:
        first = (await made.retrieve(ASKED, timeout_s=10.0)).index
        await asyncio.sleep(0.1)
        assert (await made.retrieve(ASKED, timeout_s=10.0)).index == first
        if kind == "solr":
            server.replies["/books/admin/luke"]["index"]["version"] = 7
        else:
            shard = server.replies["/books/_segments"]["indices"]["books"]["shards"]["0"][0]
            shard["segments"]["_1"] = {"num_docs": 1, "deleted_docs": 0, "search": True}
        await asyncio.sleep(0.1)
        second = (await made.retrieve(ASKED, timeout_s=10.0)).index
    assert second.version != first.version
    assert second.schema == first.schema


async def test_version_of_none(server: WebEngine, kind: str) -> None:
    """With `version: none` nothing is asked of how the index changes, and there is a version all the same."""
    async with opening(settings(kind, server.url, version="none")) as made:
        assert (await made.retrieve(ASKED, timeout_s=10.0)).index.version
    asked = {heard.path for heard in server.heard}
    assert not asked & {"/books/_segments", "/books/_stats/docs", "/books/admin/luke"}


@pytest.mark.parametrize("kind", ["opensearch", "solr"], indirect=True)
def test_missing_library_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the engine's library, what to install is said at start."""
    monkeypatch.setitem(sys.modules, {"opensearch": "opensearchpy", "solr": "aiohttp"}[kind], None)
    with pytest.raises(IndexFault, match=rf"pip install '\.\[{kind}\]'"):
        opened(settings(kind, "http://localhost"))


async def test_refusal_to_tell_of_the_index(engine: Backend, server: WebEngine) -> None:
    """Where the server will not tell of its index, that is the operator's fault and not the query's."""

    async def refuses(request: web.Request) -> web.Response:
        return web.json_response({"error": SECRET}, status=400)

    for path in set(server.replies) - {server.search}:
        server.handlers[path] = refuses
    with pytest.raises(BackendError, match="does not tell") as caught:
        await engine.retrieve(ASKED, timeout_s=10.0)
    assert type(caught.value) is BackendError


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"timed_out": True}, BackendTimeout, "in part"),
        ({"_shards": {"total": 5, "successful": 3, "failed": 2}}, BackendError, "2 of 5 shards failed"),
        (
            {"_clusters": {"total": 3, "successful": 2, "skipped": 1}},
            BackendError,
            "2 of 3 clusters answered whole",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["opensearch", "elasticsearch"], indirect=True)
async def test_part_is_no_answer(
    engine: Backend, server: WebEngine, change: dict[str, Any], error: type[BackendError], said: str
) -> None:
    """An answer that a part of the index is missing from never passes for the whole."""
    server.replies[server.search] |= change
    with pytest.raises(BackendError, match=said) as caught:
        await engine.retrieve(ASKED, timeout_s=10.0)
    assert type(caught.value) is error


@pytest.mark.parametrize("kind", ["solr"], indirect=True)
async def test_partial_results_are_no_answer(engine: Backend, server: WebEngine) -> None:
    """What Solr found until its time was up never passes for the whole."""
    server.replies[server.search]["responseHeader"] |= {"partialResults": True}
    with pytest.raises(BackendTimeout, match="in part"):
        await engine.retrieve(ASKED, timeout_s=10.0)


async def never(request: web.Request) -> web.Response:
    await asyncio.sleep(3600.0)
    return web.Response()


async def drips(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"content-type": "application/json"})
    await answer.prepare(request)
    while True:
        await answer.write(b" ")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("slow", [never, drips])
async def test_slow_server_times_out(engine: Backend, server: WebEngine, slow: Any) -> None:
    """A server that never answers, or never ends, costs the timeout and no more."""
    server.handlers[server.search] = slow
    await engine.retrieve(Query("", 1), timeout_s=10.0)
    async with asyncio.timeout(10.0):
        with pytest.raises(BackendTimeout):
            await engine.retrieve(ASKED, timeout_s=0.1)


async def test_black_hole_times_out(kind: str) -> None:
    """A peer that takes the connection and says nothing costs the timeout and no more."""
    with sockets.black_hole() as target:
        async with opening(settings(kind, f"http://{target}")) as made, asyncio.timeout(10.0):
            with pytest.raises(BackendTimeout):
                await made.retrieve(ASKED, timeout_s=0.1)


async def test_nobody_listens(kind: str) -> None:
    """A port without a server is unreachable, long before the timeout."""
    with sockets.refusing() as target:
        async with opening(settings(kind, f"http://{target}")) as made, asyncio.timeout(10.0):
            with pytest.raises(BackendUnreachable):
                await made.retrieve(ASKED, timeout_s=60.0)


async def resets(request: web.Request) -> web.Response:
    assert request.transport is not None
    peer = request.transport.get_extra_info("socket")
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
    return web.Response()


async def breaks_off(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"content-length": "100", "content-type": "application/json"})
    await answer.prepare(request)
    await answer.write(b'{"hits"')
    assert request.transport is not None
    request.transport.abort()
    return answer


@pytest.mark.parametrize("fault", [resets, breaks_off])
async def test_broken_connection(engine: Backend, server: WebEngine, fault: Any) -> None:
    """A connection that breaks before the answer, or within it, is unreachable; the next search is answered."""
    server.handlers[server.search] = fault
    with pytest.raises(BackendUnreachable):
        await engine.retrieve(ASKED, timeout_s=10.0)
    del server.handlers[server.search]
    assert len(await engine.retrieve(ASKED, timeout_s=10.0)) == 2


async def test_close_ends_calls_in_flight(engine: Backend, server: WebEngine) -> None:
    """A call that waits when the connection is closed ends as unreachable, and so does every later one."""
    reached = asyncio.Event()

    async def hangs(request: web.Request) -> web.Response:
        reached.set()
        return await never(request)

    server.handlers[server.search] = hangs
    task = asyncio.create_task(engine.retrieve(ASKED, timeout_s=60.0))
    async with asyncio.timeout(10.0):
        await reached.wait()
        await engine.close()
        with pytest.raises(BackendUnreachable):
            await task
        with pytest.raises(BackendUnreachable):
            await engine.retrieve(ASKED, timeout_s=10.0)


async def test_cancelled_search_is_given_up(engine: Backend, server: WebEngine) -> None:
    """Cancelling the task closes the connection, by which the server learns of it."""
    reached, given_up = asyncio.Event(), asyncio.Event()

    async def hangs(request: web.Request) -> web.Response:
        reached.set()
        while request.transport is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        given_up.set()
        return web.Response()

    server.handlers[server.search] = hangs
    task = asyncio.create_task(engine.retrieve(ASKED, timeout_s=60.0))
    async with asyncio.timeout(10.0):
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await given_up.wait()


async def test_dead_node_is_passed_over(server: WebEngine, kind: str) -> None:
    """Of several nodes, one that is down costs no search its answer."""
    if kind == "solr":
        return
    with sockets.refusing() as target:
        raw = settings(kind, server.url) | {"urls": [f"http://{target}", server.url]}
        async with opening(raw) as made:
            for _ in range(4):
                assert len(await made.retrieve(ASKED, timeout_s=10.0)) == 2


@pytest.mark.parametrize("kind", ["opensearch", "solr"], indirect=True)
async def test_password_comes_from_the_environment(
    server: WebEngine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings name a variable; its value goes to the server, and stands nowhere else."""
    raw = settings(kind, server.url, user="mixer", password_env="BOOKS_PASSWORD")
    monkeypatch.delenv("BOOKS_PASSWORD", raising=False)
    with pytest.raises(IndexFault, match="password_env: the environment variable BOOKS_PASSWORD is not set"):
        opened(raw)
    monkeypatch.setenv("BOOKS_PASSWORD", SECRET)
    async with opening(raw) as made:
        await made.retrieve(ASKED, timeout_s=10.0)
    headers = {name.lower(): value for name, value in server.searches()[0].headers.items()}
    assert headers["authorization"] == "Basic bWl4ZXI6aHVudGVyMg=="


@pytest.mark.parametrize("kind", ["elasticsearch"], indirect=True)
async def test_api_key_comes_from_the_environment(
    server: WebEngine, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does an API key."""
    monkeypatch.setenv("BOOKS_KEY", SECRET)
    async with opening(settings(kind, server.url, api_key_env="BOOKS_KEY")) as made:
        await made.retrieve(ASKED, timeout_s=10.0)
    headers = {name.lower(): value for name, value in server.searches()[0].headers.items()}
    assert headers["authorization"] == f"ApiKey {SECRET}"


def certified(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for the loopback that vouches for itself, and a server's side of it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "engine")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, private)
    return pem, context


async def test_tls(kind: str, tmp_path: Path) -> None:
    """Over TLS the server must have a certificate of `ca_file`; one that nobody vouches for is not asked."""
    pem, context = certified(tmp_path)
    async with web_engine(kind, context) as server:
        async with opening(settings(kind, server.url, ca_file=pem)) as made:
            assert len(await made.retrieve(ASKED, timeout_s=10.0)) == 2
        async with opening(settings(kind, server.url)) as made:
            with pytest.raises(BackendUnreachable):
                await made.retrieve(ASKED, timeout_s=10.0)
    with pytest.raises(IndexFault, match="ca_file"):
        opened(settings(kind, server.url, ca_file=tmp_path / "absent.pem"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {"mode": "words", "boosts": {"kind": 2}}}, "search.boosts names no text field: kind"),
        ({"fields": {"year": {"type": "number"}}, "scores": {}}, "needs a field of type text"),
        ({"fields": {"no-name": {"type": "text"}}}, "field names are letters"),
        ({"user": "mixer"}, "`user` and `password_env` go together"),
    ],
)
def test_settings_that_make_no_sense(kind: str, change: dict[str, Any], said: str) -> None:
    """What cannot be meant is refused at start, with its mend."""
    with pytest.raises(ValidationError, match=said):
        opened(settings(kind, "http://localhost") | change)


@pytest.mark.parametrize("url", ["localhost:9200", "ftp://localhost", f"http://mixer:{SECRET}@localhost"])
def test_url_is_plain(kind: str, url: str) -> None:
    """An address starts with http and holds no credentials."""
    with pytest.raises(ValidationError, match=r"is no URL|holds credentials"):
        opened(settings(kind, url))


@pytest.mark.parametrize("engine", [OpenSearch, Solr])
def test_settings_to_paste(engine: Any) -> None:
    """What the top of an engine's file shows can be pasted: the whole, and each search in place of the first one."""
    shown = sys.modules[engine.__module__].__doc__ or ""
    blocks = re.findall(r"(?:^    .*\n)+", shown, re.MULTILINE)
    whole, *searches = [yaml.safe_load(dedent(block)) for block in blocks]
    modes = [engine.Settings.model_validate({**whole, **search}).search.mode for search in ({}, *searches)]
    assert modes[:2] == ["words", "vectors"]
