"""Servers that answer as OpenSearch, Elasticsearch and Solr did when they were recorded, or as a test tells them to.

The replies of OpenSearch 2.19.1 and Solr 9.10.1 are those of the nodes that tests/integration starts, cut to what is
read; those of Elasticsearch have the shape that its reference gives.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_SHARDS = {"total": 1, "successful": 1, "skipped": 0, "failed": 0}
_SEGMENT = {"num_docs": 2, "deleted_docs": 0, "search": True}
_SHARD = {"routing": {"primary": True}, "segments": {"_0": _SEGMENT}}


def _known(kind: str) -> dict[str, Any]:
    return {kind: {"type": kind, "searchable": True, "aggregatable": kind != "text"}}


OPENSEARCH: dict[str, Any] = {
    "/": {"version": {"distribution": "opensearch", "number": "2.19.1", "build_type": "tar"}},
    "/books/_stats/docs": {"indices": {"books": {"uuid": "bm_Wm2fdS5WhLy48awDUJQ"}}},
    "/books/_segments": {"indices": {"books": {"shards": {"0": [_SHARD]}}}},
    "/books/_field_caps": {
        "indices": ["books"],
        "fields": {
            "title": _known("text"),
            "kind": _known("keyword"),
            "year": _known("integer"),
            "embedding": {"knn_vector": {"type": "knn_vector", "searchable": False, "aggregatable": True}},
        },
    },
    "/books/_search": {
        "took": 3,
        "timed_out": False,
        "_shards": _SHARDS,
        "hits": {
            "max_score": 2.0794413,
            "hits": [
                {
                    "_index": "books",
                    "_id": "a",
                    "_score": 2.0794413,
                    "fields": {"year": [2001], "kind": ["f", "g"], "title": ["read csv"]},
                    "matched_queries": {"title_bm25": 0.6931471},
                },
                {"_index": "books", "_id": "b", "_score": 0.2876821, "fields": {"title": ["write csv"]}},
            ],
        },
    },
}
ELASTICSEARCH: dict[str, Any] = copy.deepcopy(OPENSEARCH) | {
    "/": {"version": {"number": "8.17.0", "build_flavor": "default", "build_type": "docker"}}
}
ELASTICSEARCH["/books/_field_caps"]["fields"]["embedding"] = _known("dense_vector")

_HEADER = {"status": 0, "QTime": 3}
_FIELD = {"indexed": True, "stored": True, "docValues": False, "useDocValuesAsStored": True}
SOLR: dict[str, Any] = {
    "/admin/info/system": {"mode": "std", "lucene": {"solr-spec-version": "9.10.1"}},
    "/books/admin/luke": {
        "index": {
            "numDocs": 2,
            "maxDoc": 2,
            "deletedDocs": 0,
            "version": 6,
            "userData": {"commitTimeMSec": "1795594538739"},
            "lastModified": "2026-11-25T08:15:38.739Z",
        }
    },
    "/books/schema/fields": {
        "fields": [
            {"name": "id", "type": "string", **_FIELD},
            {"name": "title", "type": "text_general", **_FIELD},
            {"name": "kind", "type": "string", **_FIELD},
            {"name": "year", "type": "pint", **_FIELD, "docValues": True},
            {"name": "embedding", "type": "knn_vector", **_FIELD, "stored": False},
        ]
    },
    "/books/schema/fieldtypes": {
        "fieldTypes": [
            {"name": "string", "class": "solr.StrField"},
            {"name": "text_general", "class": "solr.TextField"},
            {"name": "pint", "class": "solr.IntPointField"},
            {"name": "knn_vector", "class": "solr.DenseVectorField"},
        ]
    },
    "/books/select": {
        "responseHeader": _HEADER,
        "response": {
            "numFound": 2,
            "start": 0,
            "maxScore": 2.0794413,
            "docs": [
                {
                    "id": "a",
                    "title": "read csv",
                    "kind": ["f", "g"],
                    "year": 2001,
                    "title_bm25": 0.6931471,
                    "score": 2.0794413,
                },
                {"id": "b", "title": "write csv", "title_bm25": 0.0, "score": 0.2876821},
            ],
        },
    },
}
REPLIES = {"opensearch": OPENSEARCH, "elasticsearch": ELASTICSEARCH, "solr": SOLR}
SEARCH = {"opensearch": "/books/_search", "elasticsearch": "/books/_search", "solr": "/books/select"}


@dataclass(frozen=True, slots=True)
class Heard:
    """A request, and its body as JSON or form."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class WebEngine:
    """A server that answers by path, and what it heard; `handlers` go before `replies`."""

    def __init__(self, kind: str) -> None:
        self.url = ""
        self.search = SEARCH[kind]
        self.replies: dict[str, Any] = copy.deepcopy(REPLIES[kind])
        self.handlers: dict[str, Handler] = {}
        self.heard: list[Heard] = []

    def searches(self) -> list[Heard]:
        return [heard for heard in self.heard if heard.path == self.search]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the path is to be answered with; 404 where nothing is."""
        body: Any = None
        if request.can_read_body:
            is_json = request.content_type == "application/json"
            body = await request.json() if is_json else list((await request.post()).items())
        heard = Heard(request.method, request.path, dict(request.query), dict(request.headers), body)
        self.heard.append(heard)
        if request.path in self.handlers:
            return await self.handlers[request.path](request)
        if request.path not in self.replies:
            return web.json_response({"error": "not found"}, status=404)
        return web.json_response(self.replies[request.path])


@asynccontextmanager
async def web_engine(kind: str, tls: SSLContext | None = None) -> AsyncIterator[WebEngine]:
    """A server of this kind on the loopback."""
    made = WebEngine(kind)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"{'https' if tls else 'http'}://{host}:{port}"
    try:
        yield made
    finally:
        await runner.cleanup()


def settings(kind: str, url: str, **more: Any) -> dict[str, Any]:
    """Settings over the books that the replies tell of."""
    common = {
        "fields": {"title": {"type": "text"}, "kind": {"type": "keyword"}, "year": {"type": "number"}},
        "search": {"mode": "words"},
    }
    if kind == "solr":
        own: dict[str, Any] = {"kind": "solr", "url": url, "collection": "books"}
        scores = {"title_bm25": "{!edismax qf=title v=$text}"}
    else:
        own = {"kind": "opensearch", "flavor": kind, "urls": [url], "index": "books"}
        scores = {"title_bm25": {"match": {"title": "{query}"}}}  # type: ignore[dict-item]
    return {**common, **own, "scores": scores, **more}
