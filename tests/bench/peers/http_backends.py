"""The canned backends over HTTP, as a search engine answers: one JSON object a hit. Encoded once.

Served by `uvicorn tests.bench.peers.http_backends:app`.
"""

from __future__ import annotations

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from protos.backends.v1 import backend_pb2
from tests.bench import servers


def body(backend: int) -> bytes:
    """What the gRPC backend of this number answers, number for number."""
    hits = backend_pb2.RetrieveResponse.FromString(servers.canned(backend))
    rows = [
        {"id": id_, "score": score, "fields": {column.name: column.values[row] for column in hits.numbers}}
        for row, (id_, score) in enumerate(zip(hits.ids, hits.scores, strict=True))
    ]
    encoded: bytes = orjson.dumps({"hits": rows})
    return encoded


BODIES = {f"b{backend}": body(backend) for backend in range(servers.BACKENDS)}


async def search(request: Request) -> Response:
    return Response(BODIES[request.path_params["backend"]], media_type="application/json")


app = Starlette(routes=[Route("/{backend}/search", search)])
