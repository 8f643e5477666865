"""Serves any backend as `backends.v1.BackendService`."""

from __future__ import annotations

import logging
from dataclasses import replace

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from backends import wire
from backends.base import (
    Backend,
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    Query,
)
from backends.filters import FilterRefused
from protos.backends.v1 import backend_pb2 as pb
from protos.backends.v1 import backend_pb2_grpc

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["BackendService"].full_name
"""Full name, for health and reflection."""

_CODES: dict[type[BackendError], grpc.StatusCode] = {
    BackendTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    BackendUnreachable: grpc.StatusCode.UNAVAILABLE,
    BackendGarbage: grpc.StatusCode.DATA_LOSS,
}


class Service(backend_pb2_grpc.BackendServiceServicer):
    """The servicer over one backend."""

    def __init__(self, backend: Backend, max_limit: int = 10_000, default_timeout_s: float = 10.0) -> None:
        """`max_limit` clamps every query; `default_timeout_s` is for callers without a deadline."""
        self._backend = backend
        self._max_limit = max_limit
        self._default_timeout_s = default_timeout_s

    async def Retrieve(  # noqa: N802
        self, request: pb.RetrieveRequest, context: grpc.aio.ServicerContext
    ) -> pb.RetrieveResponse:
        """Answer within what is left of the caller's deadline, or end with a status."""
        try:
            query = self._clamped(wire.from_request(request))
            return wire.to_response(await self._backend.retrieve(query, self._time_left_s(context)))
        except Exception as error:
            status = _status(error)
        await context.abort(status.code, status.details, status.trailing_metadata)
        raise AssertionError("abort raises")

    def _clamped(self, query: Query) -> Query:
        return replace(query, limit=max(0, min(query.limit, self._max_limit)))

    def _time_left_s(self, context: grpc.aio.ServicerContext) -> float:
        left_s = context.time_remaining()
        return self._default_timeout_s if left_s is None else left_s


def add_to(
    server: grpc.aio.Server, backend: Backend, max_limit: int = 10_000, default_timeout_s: float = 10.0
) -> None:
    """Register the service of a backend with a server."""
    service = Service(backend, max_limit, default_timeout_s)
    backend_pb2_grpc.add_BackendServiceServicer_to_server(service, server)


def _status(error: Exception) -> grpc.Status:
    """What the caller is told; of an error that is not ours, nothing, since its text may hold anything."""
    match error:
        case wire.Malformed():
            return _refusal(error.field, error.reason)
        case FilterRefused():
            return _refusal(f"filters[{error.position}].field", str(error))
        case BackendRefused():
            return _refusal("query", str(error))
        case BackendError():
            return _plain(_CODES.get(type(error), grpc.StatusCode.INTERNAL), str(error))
    log.error("backend crashed", exc_info=error)
    return _plain(grpc.StatusCode.INTERNAL, "internal error")


def _plain(code: grpc.StatusCode, message: str) -> grpc.Status:
    return rpc_status.to_status(status_pb2.Status(code=code.value[0], message=message))


def _refusal(field: str, reason: str) -> grpc.Status:
    violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=reason)
    detail = Any()
    detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
    return rpc_status.to_status(status_pb2.Status(code=code, message=f"{field}: {reason}", details=[detail]))
