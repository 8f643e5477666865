"""The processes that the benchmark needs beside Mixer: `python -m tests.bench.servers KIND ...`, ports on stdout.

`backends`: a group of them that answer at once with hits of 10 numeric columns. `floor`: asks all of its backends and
answers with what came, no merging, ranking or tracing. `collector`: keeps the spans it gets and counts them when asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from backends import wire
from backends.base import Hits, Index
from mixer.serving import run_loop, stop_signal
from protos.backends.v1 import backend_pb2, backend_pb2_grpc
from protos.mixer.v1 import mixer_pb2, mixer_pb2_grpc

HITS, COLUMNS, BACKENDS = 100, 10, 3
QUERY = "the quick brown fox"


SPANS_COUNT = "/tests.bench.Spans/Count"


@dataclass(frozen=True, slots=True)
class Group:
    """Backends that answer together: how many, and the hits of each.

    With a `pool`, each draws its hits from that many documents, so that they overlap; with 0 it has its own.
    """

    backends: int = BACKENDS
    hits: int = HITS
    pool: int = 0

    def ids(self, backend: int) -> list[str]:
        """What one backend returns, best first."""
        drawn = np.random.default_rng(backend).permutation(self.pool or self.hits)[: self.hits]
        first = 0 if self.pool else backend * self.hits
        return [f"doc-{number:05d}" for number in (first + drawn).tolist()]

    @property
    def candidates(self) -> int:
        """Distinct documents over all backends: what Mixer has to rank."""
        return len({id_ for backend in range(self.backends) for id_ in self.ids(backend)})

    def __str__(self) -> str:
        """The sizes, as a table tells them."""
        return f"{self.backends} x {self.hits}"


SHARED = Group(pool=2 * HITS)
"""Half of what one backend returns is also another's."""


def canned(backend: int, group: Group = SHARED) -> bytes:
    """One backend's answer."""
    random = np.random.default_rng((backend, 1))
    numbers = {f"n{column}": random.random(group.hits) for column in range(COLUMNS)}
    scores = np.sort(random.random(group.hits))[::-1].copy()
    hits = Hits(group.ids(backend), scores, numbers, {}, Index("v1", 1.0, "canned/1"))
    return wire.to_response(hits).SerializeToString()


async def backends(group: Group) -> None:
    """Serve the canned backends, one port each."""
    service = backend_pb2.DESCRIPTOR.services_by_name["BackendService"].full_name
    answers = [canned(backend, group) for backend in range(group.backends)]
    started = [await answering({f"/{service}/Retrieve": constant(answer)}) for answer in answers]
    await stop_signal().wait()
    await asyncio.gather(*(server.stop(None) for server in started))


async def answering(methods: Mapping[str, Callable[[bytes, Any], Any]]) -> grpc.aio.Server:
    """A server of bytes for bytes by full method name, on a free port that it prints."""
    server = grpc.aio.server()
    for path, method in methods.items():
        service, name = path.strip("/").split("/")
        handlers = {name: grpc.unary_unary_rpc_method_handler(method)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    return server


def constant(answer: bytes) -> Callable[[bytes, Any], Any]:
    """A method that always says the same."""

    async def method(request: bytes, context: Any) -> bytes:
        return answer

    return method


class Floor(mixer_pb2_grpc.MixerServiceServicer):
    """Asks all, decodes, answers with ten ids: the least that any mixer does."""

    def __init__(self, targets: list[str]) -> None:
        self._stubs = [
            backend_pb2_grpc.BackendServiceStub(grpc.aio.insecure_channel(target)) for target in targets
        ]
        self._fields = [f"n{column}" for column in range(COLUMNS)]

    async def Search(  # noqa: N802
        self, request: mixer_pb2.SearchRequest, context: Any
    ) -> mixer_pb2.SearchResponse:
        asked = backend_pb2.RetrieveRequest(query=request.query, limit=HITS, fields=self._fields)
        replies = await asyncio.gather(*(stub.Retrieve(asked, timeout=0.5) for stub in self._stubs))
        return mixer_pb2.SearchResponse(hits=[mixer_pb2.Hit(id=id_) for id_ in replies[0].ids[:10]])


async def floor(targets: list[str]) -> None:
    """Serve the floor."""
    server = grpc.aio.server()
    mixer_pb2_grpc.add_MixerServiceServicer_to_server(Floor(targets), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await stop_signal().wait()


def embedded(group: Group = SHARED) -> list[dict[str, Any]]:
    """The backends of a group as ones in Mixer's own process: every document has every word of the query."""
    return [
        {
            "kind": "memory",
            "fields": {"title": {"type": "text"}, **{f"n{c}": {"type": "number"} for c in range(COLUMNS)}},
            "documents": [
                {
                    "id": id_,
                    "title": QUERY,
                    **{f"n{column}": (row * 7 + column) % 100 for column in range(COLUMNS)},
                }
                for row, id_ in enumerate(group.ids(backend))
            ],
        }
        for backend in range(group.backends)
    ]


def settings(
    targets: list[str], port: int, model: str, hits: int = HITS, admin_port: int = 0, workers: int = 1
) -> str:
    """A mix of these backends, or where there are none of embedded ones, as YAML; with a model, ranked by it."""
    backends = [{"kind": "remote", "target": target} for target in targets] or embedded()
    names = [f"b{number}" for number in range(len(backends))]
    server: dict[str, Any] = {"listen": f"127.0.0.1:{port}", "admin_listen": f"127.0.0.1:{admin_port}"}
    mix = {
        "backends": {name: {"limit": hits} for name in names},
        "features": features(names),
        "model": "bench" if model else "",
    }
    tree = {
        "server": {**server, "workers": workers} if workers > 1 else server,
        "limits": {"candidates": max(2000, hits * len(names))},
        "telemetry": {"log_level": "warning"},
        "backends": dict(zip(names, backends, strict=True)),
        "models": {"bench": {"path": model}} if model else {},
        "mixes": {"default": mix},
    }
    return yaml.safe_dump(tree, sort_keys=False)


def features(backends: list[str]) -> list[dict[str, Any]]:
    """Every column, and the score and rank of every backend."""
    columns = [f"n{column}" for column in range(COLUMNS)]
    numbers = [{"name": name, "source": "number", "field": name} for name in columns]
    values = [
        {"name": f"{name}_{value}", "source": "backend", "backend": name, "value": value}
        for name in backends
        for value in ("score", "rank")
    ]
    return numbers + values


async def collector() -> None:
    """Keep spans; decode and count them, by service, only when asked, when nothing is being measured."""
    kept: list[bytes] = []

    async def export(request: bytes, context: Any) -> bytes:
        kept.append(request)
        return b""

    async def count(request: bytes, context: Any) -> bytes:
        return json.dumps(counted(kept)).encode()

    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = await answering({f"/{name}/Export": export, SPANS_COUNT: count})
    await stop_signal().wait()
    await server.stop(None)


def counted(messages: list[bytes]) -> Counter[str]:
    """Spans by the service.name that sent them."""
    counts: Counter[str] = Counter()
    for message in messages:
        for sent in ExportTraceServiceRequest.FromString(message).resource_spans:
            named = {item.key: item.value.string_value for item in sent.resource.attributes}
            counts[named.get("service.name", "")] += sum(len(scope.spans) for scope in sent.scope_spans)
    return counts


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "backends":
        run_loop(backends(Group(**json.loads(rest[0]))))
    elif kind == "floor":
        run_loop(floor(json.loads(rest[0])))
    else:
        run_loop(collector())
