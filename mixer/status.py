"""A request error as a gRPC status: google.rpc.Status with what it has for wrong fields, reasons and pauses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mixer.errors import RequestError, Violation

DOMAIN = "mixer"
"""Of the reasons, as google.rpc.ErrorInfo has it."""
_MOST_VIOLATIONS, _MESSAGE_BYTES, _FIELD_BYTES = 8, 1024, 192


async def abort(context: grpc.aio.ServicerContext, error: RequestError) -> None:
    """End the call with the error's status.

    Wrong fields go along as google.rpc.BadRequest, the reason as ErrorInfo, when to try again as RetryInfo.

    Trailers hold 8 kB: what does not fit is cut, the violations that are left out are counted.
    """
    told, untold = error.violations[:_MOST_VIOLATIONS], len(error.violations[_MOST_VIOLATIONS:])
    message = _cut(str(error), _MESSAGE_BYTES) + (f" and {untold} more" if untold else "")
    status = status_pb2.Status(code=error.status.value[0], message=message)
    for detail in _details(error, told):
        status.details.add().Pack(detail)
    await context.abort_with_status(rpc_status.to_status(status))


def _details(error: RequestError, told: Sequence[Violation]) -> Iterator[Any]:
    if told:
        violation = error_details_pb2.BadRequest.FieldViolation
        wrong = [
            violation(field=_cut(v.field, _FIELD_BYTES), description=_cut(v.description, _FIELD_BYTES))
            for v in told
        ]
        yield error_details_pb2.BadRequest(field_violations=wrong)
    if error.reason:
        word, facts = error.reason.word.upper(), error.reason.facts
        yield error_details_pb2.ErrorInfo(reason=word, domain=DOMAIN, metadata=facts)
    if error.retry_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(math.ceil(error.retry_s * 1000))
        yield retry


def _cut(text: str, most: int) -> str:
    """The text within so many bytes of UTF-8."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= most else data[: most - 3].decode("utf-8", "ignore") + "…"
