"""A request error as a gRPC status: google.rpc.Status, with google.rpc.BadRequest where fields are wrong."""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mixer.errors import RequestError

_MOST_VIOLATIONS, _MESSAGE_BYTES, _FIELD_BYTES = 8, 1024, 192


async def abort(context: grpc.aio.ServicerContext, error: RequestError) -> None:
    """End the call with the error's status; wrong fields go along as google.rpc.BadRequest.

    Trailers hold 8 kB: what does not fit is cut, the violations that are left out are counted.
    """
    told, untold = error.violations[:_MOST_VIOLATIONS], len(error.violations[_MOST_VIOLATIONS:])
    message = _cut(str(error), _MESSAGE_BYTES) + (f" and {untold} more" if untold else "")
    status = status_pb2.Status(code=error.status.value[0], message=message)
    if told:
        violation = error_details_pb2.BadRequest.FieldViolation
        wrong = [
            violation(field=_cut(v.field, _FIELD_BYTES), description=_cut(v.description, _FIELD_BYTES))
            for v in told
        ]
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=wrong))
    await context.abort_with_status(rpc_status.to_status(status))


def _cut(text: str, most: int) -> str:
    """The text within so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= most else data[: most - 3].decode("utf-8", "ignore") + "…"
