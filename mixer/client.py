"""A typed client of Mixer, for threads and for asyncio.

with MixerClient("localhost:50051") as mixer:
    result = mixer.search("read a csv file into dicts")
    for hit in result.hits:
        print(hit.rank, hit.id, hit.score)
    recent = mixer.search("csv", filters=[Filter("kind", Equals("function")), Filter("uses", Range(min=10))])
    mixer.feedback([Event(result.query_id, EventKind.CLICK, result.hits[0].id, position=1)])
    why = mixer.explain(search="read a csv file into dicts", ids=["csv.reader"])

MixerClient("mixer.example.com:443", tls=Tls(ca="ca.pem"), api_key=os.environ["MIXER_API_KEY"])
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from opentelemetry import propagate

from backends.base import Equals, Filter, Range, Terms
from backends.tls import Tls, read
from mixer.errors import Violation
from mixer.events import Event, EventKind, EventOutcome
from mixer.results import (
    BackendReport,
    ExplainResult,
    Hit,
    Placement,
    SearchResult,
    Source,
    StoreReport,
    explained_from,
    result_from,
)
from protos.mixer.v1 import mixer_pb2 as pb
from protos.mixer.v1 import mixer_pb2_grpc as rpc

__all__ = [
    "AsyncMixerClient",
    "BackendReport",
    "Equals",
    "Event",
    "EventKind",
    "EventOutcome",
    "ExplainResult",
    "Filter",
    "Hit",
    "MixerClient",
    "MixerError",
    "Placement",
    "Range",
    "SearchResult",
    "Source",
    "StoreReport",
    "Terms",
    "Tls",
]

_SERVICE = pb.DESCRIPTOR.services_by_name["MixerService"].full_name
_MESSAGE_BYTES = 64 * 1024 * 1024


class MixerError(Exception):
    """A call that got a status instead of an answer."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        violations: Sequence[Violation] = (),
        reason: str = "",
        retry_s: float | None = None,
    ) -> None:
        """`violations` name each wrong field and its mend, `reason` is a word for programs, such as RATE_LIMITED.

        `retry_s` is when the same call may succeed, in seconds from now, where the server knows.
        """
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.violations = tuple(violations)
        self.reason = reason
        self.retry_s = retry_s

    @property
    def can_retry(self) -> bool:
        """Whether the same call may succeed later."""
        return self.code in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
        )

    @classmethod
    def of(cls, error: grpc.RpcError) -> MixerError:
        """The error that gRPC raised, with the details that Mixer sent along."""
        status = rpc_status.from_call(error)
        bad, why, retry = (
            error_details_pb2.BadRequest(),
            error_details_pb2.ErrorInfo(),
            error_details_pb2.RetryInfo(),
        )
        for detail in status.details if status else ():
            any(detail.Unpack(kind) for kind in (bad, why, retry))
        wrong = [Violation(v.field, v.description) for v in bad.field_violations]
        retry_s = retry.retry_delay.ToMilliseconds() / 1000 if retry.HasField("retry_delay") else None
        return cls(error.code(), error.details() or "", wrong, why.reason, retry_s)


def channel_options(attempts: int) -> list[tuple[str, Any]]:
    """Spread over all addresses, leave out servers that are not ready, and try again where one is unavailable."""
    retry = {
        "maxAttempts": attempts,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    method = {"name": [{"service": _SERVICE}], **({"retryPolicy": retry} if attempts > 1 else {})}
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": _SERVICE},
        "methodConfig": [method],
    }
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MESSAGE_BYTES),
    ]


def search_request(
    query: str,
    *,
    mix: str = "",
    page_size: int = 0,
    offset: int = 0,
    cursor: str = "",
    filters: Sequence[Filter] = (),
    context: Mapping[str, str | float] | None = None,
    features: bool = False,
    request_id: str = "",
) -> pb.SearchRequest:
    """The message for a search; see MixerClient.search."""
    return pb.SearchRequest(
        query=query,
        mix=mix,
        page_size=page_size,
        offset=offset,
        cursor=cursor,
        filters=map(_filter, filters),
        context={key: _value(value) for key, value in (context or {}).items()},
        debug=pb.DEBUG_LEVEL_FEATURES if features else pb.DEBUG_LEVEL_UNSPECIFIED,
        request_id=request_id,
    )


def feedback_request(events: Iterable[Event]) -> pb.FeedbackRequest:
    """The message for events."""
    return pb.FeedbackRequest(events=map(_event, events))


def explain_request(
    query_id: str = "",
    *,
    search: str = "",
    hits: int = 0,
    ids: Sequence[str] = (),
    model: str = "",
    **options: Any,
) -> pb.ExplainRequest:
    """The message for an explanation; see MixerClient.explain."""
    asked = {"search": search_request(search, **options)} if search else {"query_id": query_id}
    return pb.ExplainRequest(**asked, hits=hits, ids=ids, model=model)


def _channel(over: Any, target: str, attempts: int, tls: Tls | None) -> Any:
    """A channel of `over`: grpc, or grpc.aio. Raises: OSError, ValueError where the files of `tls` cannot be used."""
    options = channel_options(attempts)
    if tls is None:
        return over.insecure_channel(target, options)
    return over.secure_channel(target, read(tls), [*options, *tls.options])


class MixerClient:
    """Calls Mixer and waits; safe to share between threads."""

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        timeout_s: float = 2.0,
        attempts: int = 3,
        tls: Tls | None = None,
        api_key: str = "",
        token: str = "",
    ) -> None:
        """`timeout_s` is the deadline of a call with all its attempts.

        `tls` is read now; without it all is sent in the clear, an `api_key` and a `token` (JWT) too.
        Raises: OSError, ValueError where the files of `tls` cannot be used.
        """
        self._channel = _channel(grpc, target, attempts, tls)
        self._stub = rpc.MixerServiceStub(self._channel)
        self._timeout_s, self._metadata = timeout_s, _Metadata(api_key, token)

    def search(self, query: str, *, timeout_s: float | None = None, **options: Any) -> SearchResult:
        """One page for a query.

        Options: mix, page_size, offset, cursor (of the page before), filters, context (facts for the model),
        features (return what the model saw), request_id. Raises: MixerError.
        """
        message = search_request(query, **options)
        try:
            return result_from(
                self._stub.Search(message, timeout=timeout_s or self._timeout_s, metadata=self._metadata())
            )
        except grpc.RpcError as error:
            raise MixerError.of(error) from error

    def feedback(
        self, events: Iterable[Event], *, timeout_s: float | None = None
    ) -> tuple[EventOutcome, ...]:
        """What became of each event, now that it is on disk; the same events may be sent again. Raises: MixerError."""
        message = feedback_request(events)
        try:
            return _outcomes(
                self._stub.Feedback(message, timeout=timeout_s or self._timeout_s, metadata=self._metadata())
            )
        except grpc.RpcError as error:
            raise MixerError.of(error) from error

    def explain(self, query_id: str = "", *, timeout_s: float | None = None, **options: Any) -> ExplainResult:
        """Why the hits of an answer stand where they stand.

        The answer is one that the server remembers, by its query id; or, with `search` and the options of `search`,
        one that is asked anew. Options: hits (from the top of the page), ids (these documents instead, wherever they
        stand), model (of the server's settings: how it would rank the same candidates). Raises: MixerError.
        """
        message = explain_request(query_id, **options)
        try:
            return explained_from(
                self._stub.Explain(message, timeout=timeout_s or self._timeout_s, metadata=self._metadata())
            )
        except grpc.RpcError as error:
            raise MixerError.of(error) from error

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self.close()
        return False


class AsyncMixerClient:
    """Calls Mixer from an event loop."""

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        timeout_s: float = 2.0,
        attempts: int = 3,
        tls: Tls | None = None,
        api_key: str = "",
        token: str = "",
    ) -> None:
        """`timeout_s` is the deadline of a call with all its attempts.

        `tls` is read now; without it all is sent in the clear, an `api_key` and a `token` (JWT) too.
        Raises: OSError, ValueError where the files of `tls` cannot be used.
        """
        self._channel = _channel(grpc.aio, target, attempts, tls)
        self._stub = rpc.MixerServiceStub(self._channel)
        self._timeout_s, self._metadata = timeout_s, _Metadata(api_key, token)

    async def search(self, query: str, *, timeout_s: float | None = None, **options: Any) -> SearchResult:
        """One page for a query; options and errors as in MixerClient.search."""
        message = search_request(query, **options)
        try:
            return result_from(
                await self._stub.Search(
                    message, timeout=timeout_s or self._timeout_s, metadata=self._metadata()
                )
            )
        except grpc.RpcError as error:
            raise MixerError.of(error) from error

    async def feedback(
        self, events: Iterable[Event], *, timeout_s: float | None = None
    ) -> tuple[EventOutcome, ...]:
        """What became of each event; see MixerClient.feedback."""
        message = feedback_request(events)
        try:
            return _outcomes(
                await self._stub.Feedback(
                    message, timeout=timeout_s or self._timeout_s, metadata=self._metadata()
                )
            )
        except grpc.RpcError as error:
            raise MixerError.of(error) from error

    async def explain(
        self, query_id: str = "", *, timeout_s: float | None = None, **options: Any
    ) -> ExplainResult:
        """Why the hits of an answer stand where they stand; options and errors as in MixerClient.explain."""
        message = explain_request(query_id, **options)
        try:
            return explained_from(
                await self._stub.Explain(
                    message, timeout=timeout_s or self._timeout_s, metadata=self._metadata()
                )
            )
        except grpc.RpcError as error:
            raise MixerError.of(error) from error

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        await self.close()
        return False


class _Metadata:
    """What goes along with every call: who calls, and the caller's trace."""

    def __init__(self, api_key: str, token: str) -> None:
        self._credentials = {
            **({"x-api-key": api_key} if api_key else {}),
            **({"authorization": f"Bearer {token}"} if token else {}),
        }

    def __call__(self) -> tuple[tuple[str, str], ...]:
        carrier = dict(self._credentials)
        propagate.inject(carrier)
        return tuple(carrier.items())


def _value(value: str | float) -> pb.Value:
    return pb.Value(text=value) if isinstance(value, str) else pb.Value(number=value)


def _filter(item: Filter) -> pb.Filter:
    condition = item.condition
    if isinstance(condition, Equals):
        return pb.Filter(field=item.field, equals=_value(condition.value))
    if isinstance(condition, Range):
        return pb.Filter(field=item.field, range=pb.Range(min=condition.min, max=condition.max))
    return pb.Filter(field=item.field, terms=pb.Terms(values=map(_value, condition.values)))


def _event(event: Event) -> pb.Event:
    whole_s = int(event.happened_s)
    return pb.Event(
        event_id=event.event_id,
        query_id=event.query_id,
        kind=f"EVENT_KIND_{event.kind.name}",
        id=event.id,
        position=event.position,
        time=Timestamp(seconds=whole_s, nanos=int((event.happened_s - whole_s) * 1e9)),
        value=event.value,
    )


def _outcomes(message: pb.FeedbackResponse) -> tuple[EventOutcome, ...]:
    names = (pb.EventOutcome.Name(outcome) for outcome in message.outcomes)
    return tuple(EventOutcome[name.removeprefix("EVENT_OUTCOME_")] for name in names)
