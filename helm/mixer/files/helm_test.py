"""What `helm test` runs in the image: health, /readyz, and a real search whose answer it prints.

Status 1 unless Mixer serves, answers, finds enough, and left nobody out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from urllib.request import urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.mixer.v1 import mixer_pb2, mixer_pb2_grpc

PATIENCE_S = 10.0


def main() -> int:
    """Try everything in turn, and say what came of it."""
    asked = arguments()
    try:
        with open_channel(asked) as channel:
            serves = is_serving(channel, asked.service) and is_ready(asked.ready)
            return 0 if serves and finds(channel, asked) else 1
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}")
        return 1


def arguments() -> argparse.Namespace:
    """Where Mixer is, how to get in, what to ask and what to expect."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--service", default="")
    parser.add_argument("--ready", required=True)
    parser.add_argument("--query", required=True)
    parser.add_argument("--mix", default="")
    parser.add_argument("--min-hits", type=int, default=0)
    parser.add_argument("--allow-degraded", action="store_true")
    parser.add_argument("--tls", type=Path, help="folder with ca.crt, or a tls.crt that signs itself")
    parser.add_argument("--client", type=Path, help="folder with tls.crt and tls.key of this caller")
    return parser.parse_args()


def open_channel(asked: argparse.Namespace) -> grpc.Channel:
    """A channel, by TLS where told so."""
    if not asked.tls:
        return grpc.insecure_channel(asked.target)
    roots = next(path for name in ("ca.crt", "tls.crt") if (path := asked.tls / name).exists())
    own = [(asked.client / name).read_bytes() for name in ("tls.key", "tls.crt") if asked.client]
    return grpc.secure_channel(asked.target, grpc.ssl_channel_credentials(roots.read_bytes(), *own))


def is_serving(channel: grpc.Channel, service: str) -> bool:
    """What grpc.health.v1 says."""
    request = health_pb2.HealthCheckRequest(service=service)
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(request, timeout=PATIENCE_S, wait_for_ready=True)
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print("health of", service or "the server", status)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def is_ready(url: str) -> bool:
    """What HTTP says."""
    with urlopen(url, timeout=PATIENCE_S) as response:
        print(url, response.status)
        return bool(response.status == 200)


def finds(channel: grpc.Channel, asked: argparse.Namespace) -> bool:
    """One search, told in full."""
    key = os.environ.get("MIXER_API_KEY")
    request = mixer_pb2.SearchRequest(query=asked.query, mix=asked.mix)
    search = mixer_pb2_grpc.MixerServiceStub(channel).Search
    found = search(request, timeout=PATIENCE_S, metadata=[("x-api-key", key)] if key else None)
    how = found.execution
    for backend in how.backends:
        outcome = mixer_pb2.Outcome.Name(backend.outcome).removeprefix("OUTCOME_")
        print(
            f"{backend.backend}: {outcome} {backend.hits} hits, {backend.elapsed_ms:.1f} ms {backend.detail}".rstrip()
        )
    print(
        f"{asked.query!r}: {len(found.hits)} hits, model {how.model.version or 'none'}, {how.elapsed_ms:.1f} ms"
    )
    for hit in found.hits:
        print(f"  {hit.rank}. {hit.id}")
    if how.degraded:
        print("made without:", ", ".join(how.degraded_reasons))
    return len(found.hits) >= asked.min_hits and (asked.allow_degraded or not how.degraded)


if __name__ == "__main__":
    sys.exit(main())
