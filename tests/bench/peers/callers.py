"""One question put to a service of either kind, and what came of it in the same words for all."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import grpc

from protos.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from tests.bench.servers import QUERY


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended, the ids that came, and what the answer itself says is missing."""

    status: str
    ids: tuple[str, ...] = ()
    missing: str = ""


class Caller(Protocol):
    """A client that keeps its connection."""

    def ask(self, timeout_s: float) -> Answer:
        """Search once; never raises for what the service does."""
        ...


class GrpcCaller:
    """Of Mixer."""

    def __init__(self, port: int) -> None:
        self._stub = mixer_pb2_grpc.MixerServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))
        self._message = mixer_pb2.SearchRequest(query=QUERY, page_size=10)

    def ask(self, timeout_s: float) -> Answer:
        """The deadline goes along with the call."""
        try:
            answer = self._stub.Search(self._message, timeout=timeout_s)
        except grpc.RpcError as error:
            return Answer(error.code().name)
        missing = [
            f"{backend.backend} {mixer_pb2.Outcome.Name(backend.outcome).removeprefix('OUTCOME_').lower()}"
            for backend in answer.execution.backends
            if backend.outcome != mixer_pb2.OUTCOME_OK
        ]
        return Answer("OK", tuple(hit.id for hit in answer.hits), ", ".join(missing))


class HttpCaller:
    """Of a peer: the standard library's client, which costs the least."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def ask(self, timeout_s: float) -> Answer:
        """Give up after the timeout; the service, as ever with HTTP, does not learn of it beforehand."""
        try:
            return self._asked(timeout_s)
        except TimeoutError:
            return Answer("gave up")
        except OSError as error:
            return Answer(type(error).__name__)

    def _asked(self, timeout_s: float) -> Answer:
        try:
            return self._exchange(timeout_s)
        except ConnectionError:  # the service had closed the idle connection: any pool asks again
            return self._exchange(timeout_s)

    def _exchange(self, timeout_s: float) -> Answer:
        self._connection.timeout = timeout_s
        if self._connection.sock is not None:
            self._connection.sock.settimeout(timeout_s)
        try:
            self._connection.request("GET", f"/search?q={quote(QUERY)}")
            answer = self._connection.getresponse()
            body = answer.read()
        except OSError:
            self._connection.close()
            raise
        if answer.status != http.client.OK:
            return Answer(f"HTTP {answer.status}")
        return Answer("OK", tuple(hit["id"] for hit in json.loads(body)["hits"]))
