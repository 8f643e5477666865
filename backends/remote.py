"""Any service that speaks `backends.v1`, over gRPC.

kind: remote
target: dns:///lexical:50061     # any gRPC target; several addresses share the calls, round robin
max_message_bytes: 67108864      # the longest answer taken
keepalive_s: 30                  # ping an idle connection this often; the server must allow it
health_check: true               # leave out addresses that report NOT_SERVING
tls: {ca: ca.pem, certificate: mixer.pem, key: mixer.key, server_name: lexical}   # each where needed
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine, Iterable
from typing import Any, Literal, NoReturn, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry import propagate
from opentelemetry.context import Context, get_current
from pydantic import PositiveFloat, PositiveInt

from backends import wire
from backends.base import (
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    EngineSettings,
    Hits,
    Punctual,
    Query,
)
from backends.cancelling import is_cancelling
from backends.filters import FilterRefused
from backends.reloading import Reloading
from backends.tls import Tls
from protos.backends.v1 import backend_pb2 as pb

_METHOD = "/backends.v1.BackendService/Retrieve"
_LAST_CALLS_S = 60.0
"""For calls in flight when their connection is replaced; their own deadlines are shorter."""
_DETAILS = "grpc-status-details-bin"
_FILTER_PATH = re.compile(r"filters\[(\d{1,9})\]")
_REFUSALS = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.UNIMPLEMENTED}
)


class RemoteSettings(EngineSettings):
    """Where the service is and how to keep a connection to it."""

    kind: Literal["remote"]
    target: str
    max_message_bytes: PositiveInt = 64 * 1024 * 1024
    keepalive_s: PositiveFloat = 30.0
    health_check: bool = True
    tls: Tls | None = None
    """None asks in the clear. Files that change make a new connection; calls in flight end on the one before."""
    reconnect_max_s: PositiveFloat = 5.0
    """The longest wait between two attempts to connect; gRPC's own is two minutes."""


class Remote(Punctual):
    """A backend in another process. Connects when first asked, on the loop that asks; gRPC keeps the time."""

    Settings = RemoteSettings

    def __init__(self, settings: RemoteSettings) -> None:
        """Opens nothing yet. Raises: OSError, ValueError where files of TLS cannot be used."""
        self._settings = settings
        self._channel: grpc.aio.Channel | None = None
        self._ask: Any = None
        self._credentials = _credentials(settings)
        self._beside: set[asyncio.Task[None]] = set()
        self._closed = False

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """See `Backend`. Cancelling the task cancels the call; the caller's trace goes along."""
        if timeout_s <= 0:
            # gRPC takes a timeout of zero for none at all.
            raise BackendTimeout("no time was left to ask")
        request = _request(query)
        call = self._opened()(request, timeout=timeout_s, metadata=_carried.along())
        try:
            return _hits(await call)
        except grpc.aio.AioRpcError as error:
            _translate(error, query, timeout_s)
        except asyncio.CancelledError:
            if self._closed and not is_cancelling():
                raise BackendUnreachable("the connection was closed") from None
            raise

    async def close(self) -> None:
        """See `Backend`. Calls in flight end as unreachable."""
        self._closed = True
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close(None)

    def _opened(self) -> Any:
        """What puts a call to the service."""
        if self._closed:
            raise BackendUnreachable("the backend is closed")
        if self._channel is None:
            self._connect()
            if self._credentials:
                self._run(self._credentials.follow(self._reconnect))
        return self._ask

    def _connect(self) -> None:
        target, options = self._settings.target, _options(self._settings)
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            self._channel = grpc.aio.secure_channel(target, self._credentials.value, options=options)
        self._ask = self._channel.unary_unary(_METHOD, pb.RetrieveRequest.SerializeToString, bytes)

    def _reconnect(self) -> None:
        """Ask over a new connection from now on; the old one ends with its last call."""
        before = self._channel
        self._connect()
        if before is not None:
            self._run(before.close(_LAST_CALLS_S))

    def _run(self, task: Coroutine[Any, Any, None]) -> None:
        """Beside the calls, until the backend is closed at the latest."""
        started = asyncio.create_task(task)
        self._beside.add(started)
        started.add_done_callback(self._beside.discard)


class _Carried:
    """What the caller's trace sends along with calls: made once for all backends that are asked within one context."""

    def __init__(self) -> None:
        self._last: tuple[Context | None, tuple[tuple[str, str], ...]] = None, ()

    def along(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the current context."""
        current, (context, metadata) = get_current(), self._last
        if current is not context:
            carrier: dict[str, str] = {}
            propagate.inject(carrier, current)
            metadata = tuple(carrier.items())
            self._last = current, metadata
        return metadata


_carried = _Carried()


def _credentials(settings: RemoteSettings) -> Reloading[grpc.ChannelCredentials] | None:
    tls = settings.tls
    return Reloading(f"tls of {settings.target}", tls.paths, tls.credentials) if tls else None


def _options(settings: RemoteSettings) -> list[tuple[str, Any]]:
    service: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if settings.health_check:
        service["healthCheckConfig"] = {"serviceName": ""}
    return [
        *(settings.tls.options if settings.tls else ()),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
        ("grpc.initial_reconnect_backoff_ms", min(200, round(settings.reconnect_max_s * 1000))),
        ("grpc.max_reconnect_backoff_ms", round(settings.reconnect_max_s * 1000)),
        ("grpc.service_config", json.dumps(service)),
    ]


def _request(query: Query) -> pb.RetrieveRequest:
    try:
        return wire.to_request(query)
    except UnicodeEncodeError as error:
        raise BackendRefused("the query or a filter is not valid Unicode") from error


def _hits(answer: bytes) -> Hits:
    """Raises: BackendGarbage."""
    try:
        return wire.from_response(answer)
    except DecodeError as error:
        raise BackendGarbage("the answer cannot be decoded") from error
    except wire.Malformed as error:
        raise BackendGarbage(str(error)) from error


def _translate(error: grpc.aio.AioRpcError, query: Query, timeout_s: float) -> NoReturn:
    """Say in our words what a status means; the foreign words stay in `__cause__`."""
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise BackendTimeout(f"no answer within {timeout_s:g} s") from error
    if code is grpc.StatusCode.UNAVAILABLE:
        raise BackendUnreachable("no connection, or the service is down") from error
    if code in _REFUSALS:
        raise _refusal(error, query) from error
    raise BackendError(f"the service failed with {code.name}") from error


def _refusal(error: grpc.aio.AioRpcError, query: Query) -> BackendRefused:
    """Name the filter at fault, by its place, where the service says which; its words are not repeated."""
    for path in _violated(error):
        found = _FILTER_PATH.match(path)
        position = int(found[1]) if found else len(query.filters)
        if position < len(query.filters):
            return FilterRefused(position, query.filters[position].field, "refused by the service")
    return BackendRefused(f"the service refused the query with {error.code().name}")


def _violated(error: grpc.aio.AioRpcError) -> list[str]:
    details, bad = status_pb2.Status(), error_details_pb2.BadRequest()
    metadata = cast(Iterable[tuple[str, bytes]], error.trailing_metadata() or ())
    packed = [value for key, value in metadata if key == _DETAILS]
    try:
        details.ParseFromString(packed[0] if packed else b"")
        unpacked = [detail for detail in details.details if detail.Unpack(bad)]
    except DecodeError:
        return []
    return [violation.field for violation in bad.field_violations] if unpacked else []
