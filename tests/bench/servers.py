"""The processes that the benchmark measures or needs: `python -m tests.bench.servers KIND ...`, port on stdout.

`backends`: three that answer at once with 100 hits of 10 numeric columns. `floor`: asks the three and answers with
what came, no merging, ranking or tracing. `mixer`: the real thing. `collector`: receives spans and forgets them.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import yaml

from backends import wire
from backends.base import Hits, Index
from mixer.server import serve as serve_mixer
from mixer.serving import run_loop, stop_signal
from mixer.settings import parse
from protos.backends.v1 import backend_pb2, backend_pb2_grpc
from protos.mixer.v1 import mixer_pb2, mixer_pb2_grpc

HITS, COLUMNS, BACKENDS = 100, 10, 3


def canned(backend: int) -> bytes:
    """One backend's answer: half of its documents are also another's."""
    random = np.random.default_rng(backend)
    ids = [f"doc-{number:05d}" for number in random.permutation(200)[:HITS]]
    numbers = {f"n{column}": random.random(HITS) for column in range(COLUMNS)}
    scores = np.sort(random.random(HITS))[::-1].copy()
    hits = Hits(ids, scores, numbers, {}, Index("v1", 1.0, "canned/1"))
    return wire.to_response(hits).SerializeToString()


async def backends() -> None:
    """Serve the canned backends, one port each."""
    servers = []
    for backend in range(BACKENDS):
        answer = canned(backend)

        async def retrieve(request: bytes, context: Any, answer: bytes = answer) -> bytes:
            return answer

        server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(retrieve)
        service = backend_pb2.DESCRIPTOR.services_by_name["BackendService"].full_name
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"Retrieve": handler}),)
        )
        print(server.add_insecure_port("127.0.0.1:0"), flush=True)
        await server.start()
        servers.append(server)
    await stop_signal().wait()


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


def settings(targets: list[str], port: int, model: str) -> str:
    """A mix of these backends as YAML; with a model folder, ranked by it."""
    names = [f"b{number}" for number in range(len(targets))]
    features: list[dict[str, Any]] = [
        {"name": f"n{column}", "source": "number", "field": f"n{column}"} for column in range(COLUMNS)
    ]
    for name in names:
        features += [
            {"name": f"{name}_{value}", "source": "backend", "backend": name, "value": value}
            for value in ("score", "rank")
        ]
    tree = {
        "server": {"listen": f"127.0.0.1:{port}", "admin_listen": "127.0.0.1:0"},
        "telemetry": {"log_level": "warning"},
        "backends": {
            name: {"kind": "remote", "target": target} for name, target in zip(names, targets, strict=True)
        },
        "models": {"bench": {"path": model}} if model else {},
        "mixes": {
            "default": {
                "backends": {name: {"limit": HITS} for name in names},
                "features": features,
                "model": "bench" if model else "",
            }
        },
    }
    return yaml.safe_dump(tree, sort_keys=False)


async def collector() -> None:
    """Receive spans and forget them."""
    server = grpc.aio.server()

    async def export(request: bytes, context: Any) -> bytes:
        return b""

    handler = grpc.unary_unary_rpc_method_handler(export)
    name = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"Export": handler}),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await stop_signal().wait()


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "mixer":
        run_loop(serve_mixer(parse(Path(rest[0]).read_text(encoding="utf-8"))))
    elif kind == "floor":
        run_loop(floor(json.loads(rest[0])))
    else:
        run_loop(backends() if kind == "backends" else collector())
