"""Ways a request can fail, each with its gRPC status. A backend's failure is a value, never one of these.

RequestError
 +- ClientError              the caller can mend it
 |   +- InvalidRequest        INVALID_ARGUMENT      a field is wrong; names each field and the mend
 |   +- UnknownMix            NOT_FOUND
 |   +- UnknownAnswer         NOT_FOUND             no answer of that query id is remembered
 |   +- UnknownModel          NOT_FOUND
 |   +- UnfitModel            FAILED_PRECONDITION   the model cannot rank what this mix serves
 |   +- StaleCursor           FAILED_PRECONDITION   the ranked list the cursor was cut from no longer exists
 |   +- NoFeedback            UNIMPLEMENTED         this server takes no feedback
 +- ServerError              the caller may try again later
     +- Overloaded            RESOURCE_EXHAUSTED    too many calls at once
     +- DeadlineTooShort      DEADLINE_EXCEEDED     no time left to ask a backend
     +- AllBackendsFailed     UNAVAILABLE
     +- PageUnavailable       UNAVAILABLE           a backend the page before was made with is not answering
     +- EventsNotWritten      UNAVAILABLE           the event log cannot be written
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import grpc


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request: its path, and what to do about it."""

    field: str
    description: str


class RequestError(Exception):
    """A request that gets a status instead of an answer; its text is fit for the caller."""

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    violations: Sequence[Violation] = ()


class ClientError(RequestError):
    """The caller can mend it."""


class ServerError(RequestError):
    """The caller may try again later."""


class InvalidRequest(ClientError):
    """Fields of the request are wrong: all of them are named at once."""

    status = grpc.StatusCode.INVALID_ARGUMENT

    def __init__(self, violations: Sequence[Violation]) -> None:
        """Takes at least one violation."""
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations))
        self.violations = tuple(violations)


class UnknownMix(ClientError):
    """The request names a mix that is not configured."""

    status = grpc.StatusCode.NOT_FOUND


class UnknownAnswer(ClientError):
    """No answer of that query id is remembered."""

    status = grpc.StatusCode.NOT_FOUND


class UnknownModel(ClientError):
    """The request names a model that is not configured."""

    status = grpc.StatusCode.NOT_FOUND


class UnfitModel(ClientError):
    """The model that the request names cannot rank what this mix serves, or failed a check."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class StaleCursor(ClientError):
    """The ranked list the cursor was cut from no longer exists."""

    status = grpc.StatusCode.FAILED_PRECONDITION


class NoFeedback(ClientError):
    """This server takes no feedback."""

    status = grpc.StatusCode.UNIMPLEMENTED


class Overloaded(ServerError):
    """More calls at once than the server takes."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineTooShort(ServerError):
    """The deadline leaves no time to ask a backend."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED


class AllBackendsFailed(ServerError):
    """No backend answered: an error, never an empty answer."""

    status = grpc.StatusCode.UNAVAILABLE


class PageUnavailable(ServerError):
    """A backend that the page before was made with is not answering now."""

    status = grpc.StatusCode.UNAVAILABLE


class EventsNotWritten(ServerError):
    """The event log cannot be written: the events are not taken."""

    status = grpc.StatusCode.UNAVAILABLE
