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
 |   +- Unauthenticated       UNAUTHENTICATED       the caller did not prove who it is
 |   +- Forbidden             PERMISSION_DENIED     the caller's credential lacks a scope
 +- ServerError              the caller may try again later
     +- Overloaded            RESOURCE_EXHAUSTED    too many calls at once
     +- TenantLimited         RESOURCE_EXHAUSTED    more calls than the tenant may make
     +- DeadlineTooShort      DEADLINE_EXCEEDED     no time left to ask a backend
     +- AllBackendsFailed     UNAVAILABLE
     +- PageUnavailable       UNAVAILABLE           a backend the page before was made with is not answering
     +- EventsNotWritten      UNAVAILABLE           the event log cannot be written
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import grpc


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request: its path, and what to do about it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why, for programs: a word of ours, and facts about it."""

    word: str
    facts: Mapping[str, str] = field(default_factory=dict)


class RequestError(Exception):
    """A request that gets a status instead of an answer; its text is fit for the caller."""

    status: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    violations: Sequence[Violation] = ()
    reason: Reason | None = None
    retry_s: float | None = None
    """When the same request may succeed, in seconds from now, where that is known."""


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


class Unauthenticated(ClientError):
    """The caller did not prove who it is."""

    status = grpc.StatusCode.UNAUTHENTICATED

    def __init__(self, word: str, message: str) -> None:
        """`word` says why, for programs and metrics."""
        super().__init__(message)
        self.reason = Reason(word)


class Forbidden(ClientError):
    """The caller is known, and may not do this."""

    status = grpc.StatusCode.PERMISSION_DENIED

    def __init__(self, scope: str) -> None:
        """Takes the scope that its credential lacks."""
        super().__init__(f"this credential has no scope {scope!r}; ask whoever issued it for one that has")
        self.reason = Reason("scope_lacking", {"scope": scope})


class Overloaded(ServerError):
    """More calls at once than the server takes."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED


class TenantLimited(ServerError):
    """More calls than the tenant may make."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED

    def __init__(self, message: str, reason: Reason, retry_s: float) -> None:
        """Takes which limit it is, and when there is room again."""
        super().__init__(message)
        self.reason, self.retry_s = reason, retry_s


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
