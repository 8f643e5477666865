"""What stands around every call: its span, its counts, its line in the log, its errors, and the limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from opentelemetry.trace import StatusCode

from mixer.errors import InvalidRequest, Overloaded, StaleCursor, Violation
from mixer.metrics import Metrics
from mixer.record import current
from mixer.serving import Listening, Server
from tests.doubles import mixers
from tests.doubles.mixers import Tracing

METHOD = "test.v1.Service/Ask"
SECRET = "tr0ub4dor"
SERVER_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
Behavior = Callable[[bytes, Any], Awaitable[bytes]]


class Asked:
    """A server with one method, and a channel to it."""

    def __init__(self, metrics: Metrics, server: Server, channel: grpc.aio.Channel) -> None:
        self._metrics = metrics
        self.server, self.channel = server, channel

    async def ask(self, message: bytes = b"", method: str = METHOD, **call: Any) -> bytes:
        """Call the method."""
        answer: bytes = await self.channel.unary_unary(f"/{method}")(message, **call)
        return answer

    async def fails(self, **call: Any) -> grpc.aio.AioRpcError:
        """How a call of the method fails; the server is done with it, too."""
        ended = self._ended()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await asyncio.wait_for(self.ask(**call), 8.0)
        await mixers.until(lambda: self._ended() > ended)
        return failed.value

    def _ended(self) -> float:
        metrics = self._metrics.registry.collect()
        samples = [sample for metric in metrics for sample in metric.samples]
        return sum(sample.value for sample in samples if sample.name == "grpc_server_handled_total")

    def handled(self, method: str = METHOD) -> dict[str, float]:
        """Calls ended, by code."""
        service, _, name = method.rpartition("/")
        metrics = self._metrics.registry.collect()
        samples = [sample for metric in metrics for sample in metric.samples]
        return {
            sample.labels["grpc_code"]: sample.value
            for sample in samples
            if sample.name == "grpc_server_handled_total"
            and (sample.labels["grpc_service"], sample.labels["grpc_method"]) == (service, name)
            and sample.value
        }

    def value(self, name: str, **labels: str) -> float | None:
        """One sample."""
        return self._metrics.registry.get_sample_value(name, labels)


@asynccontextmanager
async def serving(behavior: Behavior, concurrent_calls: int = 8) -> AsyncIterator[Asked]:
    """The behavior behind all interceptors."""
    metrics = Metrics()
    server = Server(Listening("127.0.0.1:0", concurrent_calls=concurrent_calls, drain_s=0.1), metrics, [])
    method = grpc.unary_unary_rpc_method_handler(
        behavior, request_deserializer=bytes, response_serializer=bytes
    )
    server.grpc.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.v1.Service", {"Ask": method}),)
    )
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Asked(metrics, server, channel)
    finally:
        await server.stop()


@pytest.fixture(autouse=True)
def traced() -> Iterator[Tracing]:
    with mixers.tracing() as kept:
        yield kept


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


async def echo(message: bytes, context: Any) -> bytes:
    return message


def raising(error: BaseException) -> Behavior:
    async def behavior(message: bytes, context: Any) -> bytes:
        raise error

    return behavior


async def test_answer(traced: Tracing, log: pytest.LogCaptureFixture) -> None:
    """A call that is answered is OK in its span, its counts and its line."""
    async with serving(echo) as asked:
        assert await asked.ask(b"hello") == b"hello"
        assert asked.handled() == {"OK": 1}
        labels = {"grpc_type": "unary", "grpc_service": "test.v1.Service", "grpc_method": "Ask"}
        assert asked.value("grpc_server_started_total", **labels) == 1
        assert asked.value("grpc_server_handling_seconds_count", **labels) == 1
    span = traced.one(METHOD)
    assert dict(span.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
    }
    assert span.status.status_code is StatusCode.UNSET
    (line,) = [record for record in log.records if record.name == "mixer.call"]
    assert line.__dict__["rpc.response.status_code"] == "OK"


@pytest.mark.parametrize("way", ["abort", "set_code"])
@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
async def test_every_status(code: grpc.StatusCode, way: str, traced: Tracing) -> None:
    """The status that the caller sees is the one counted; the span is an error where the fault is the server's."""

    async def behavior(message: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if way == "abort":
            await context.abort(code, "no")
        context.set_code(code)
        return b""

    async with serving(behavior) as asked:
        assert (await asked.fails()).code() is code
        assert asked.handled() == {code.name: 1}
    span = traced.one(METHOD)
    attributes = span.attributes or {}
    assert attributes["rpc.response.status_code"] == code.name
    if code.name in SERVER_FAULTS:
        assert (span.status.status_code, attributes["error.type"]) == (StatusCode.ERROR, code.name)
    else:
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in attributes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StaleCursor("start again"), grpc.StatusCode.FAILED_PRECONDITION),
        (Overloaded("later"), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_request_error(error: Exception, code: grpc.StatusCode) -> None:
    """A request error becomes its status and its text."""
    async with serving(raising(error)) as asked:
        failed = await asked.fails()
        assert asked.handled() == {code.name: 1}
    assert (failed.code(), failed.details()) == (code, str(error))


async def test_violations_go_along() -> None:
    """Wrong fields reach the caller as google.rpc.BadRequest, each with its path."""
    wrong = [Violation("query", "is empty"), Violation("filters[2].range", "is empty")]
    async with serving(raising(InvalidRequest(wrong))) as asked:
        failed = await asked.fails()
    status, bad = rpc_status.from_call(failed), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("query", "is empty"),
        ("filters[2].range", "is empty"),
    ]


async def test_text_that_is_no_unicode() -> None:
    """An error whose text cannot be sent is still answered with its status."""
    error = InvalidRequest([Violation("query\ud800", "is \udfff\n\x00")])
    async with serving(raising(error)) as asked:
        assert (await asked.fails()).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_mistake_is_internal(log: pytest.LogCaptureFixture) -> None:
    """Any other error is INTERNAL: told to the log, and not to the caller."""
    async with serving(raising(ZeroDivisionError(SECRET))) as asked:
        failed = await asked.fails()
        assert asked.handled() == {"INTERNAL": 1}
    assert failed.code() is grpc.StatusCode.INTERNAL
    assert SECRET not in str(failed)
    assert "ZeroDivisionError" not in str(failed)
    assert [record.message for record in log.records if record.exc_info] == ["unexpected error"]


async def test_cancellation_out_of_nowhere() -> None:
    """A cancellation that the caller did not ask for is answered: the caller is not left hanging."""
    async with serving(raising(asyncio.CancelledError())) as asked:
        assert (await asked.fails()).code() is grpc.StatusCode.CANCELLED
        assert asked.handled() == {"CANCELLED": 1}


class Waiting:
    """A behavior that never answers."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def __call__(self, message: bytes, context: Any) -> bytes:
        self.begun.set()
        await asyncio.Event().wait()
        return b""


async def test_caller_hangs_up(traced: Tracing, log: pytest.LogCaptureFixture) -> None:
    """A call that its caller gives up is CANCELLED, which is nobody's error."""
    waiting = Waiting()
    async with serving(waiting) as asked:
        call = asyncio.create_task(asked.ask())
        await asyncio.wait_for(waiting.begun.wait(), 8.0)
        assert asked.value("mixer_calls_in_flight") == 1
        call.cancel()
        await mixers.until(lambda: traced.named(METHOD))
        assert asked.handled() == {"CANCELLED": 1}
        assert asked.value("mixer_calls_in_flight") == 0
    span = traced.one(METHOD)
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in (span.attributes or {})
    assert [record.message for record in log.records if record.name == "mixer.call"] == ["call"]
    assert not traced.open


async def test_time_runs_out(traced: Tracing) -> None:
    """A call whose deadline passes is DEADLINE_EXCEEDED for the server as for the caller."""
    async with serving(Waiting()) as asked:
        assert (await asked.fails(timeout=0.2)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await mixers.until(lambda: traced.named(METHOD))
        assert asked.handled() == {"DEADLINE_EXCEEDED": 1}
    assert traced.one(METHOD).status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("method", ["test.v1.Service/Aks", "no.such.Service/Ask", f"{SECRET}/{SECRET}"])
async def test_unknown_method(method: str) -> None:
    """A method that is not served is counted under no name of the caller's."""
    async with serving(echo) as asked:
        failed = await asked.fails(method=method)
        assert failed.code() is grpc.StatusCode.UNIMPLEMENTED
        assert asked.handled("unknown/unknown") == {"UNIMPLEMENTED": 1}
        assert asked.handled(method) == {}


async def test_unknown_method_of_a_stream() -> None:
    """A stream to a method that is not served ends as unimplemented, too."""
    async with serving(echo) as asked:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            async for _ in asked.channel.stream_stream("/no.such.Service/Ask")(iter([b""])):
                pass
        assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert asked.handled("unknown/unknown") == {"UNIMPLEMENTED": 1}


async def test_message_that_cannot_be_read(traced: Tracing) -> None:
    """Bytes that are no message are the caller's mistake, counted and traced like any other call."""
    message = b"\xff\x00garbage"
    async with serving(echo) as asked:
        failed = await asked.fails(message=message, method="grpc.health.v1.Health/Check")
        assert failed.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert asked.handled("grpc.health.v1.Health/Check") == {"INVALID_ARGUMENT": 1}


async def test_health_checks_are_quiet(traced: Tracing, log: pytest.LogCaptureFixture) -> None:
    """Health checks are counted, and neither traced nor logged."""
    async with serving(echo) as asked:
        await health_pb2_grpc.HealthStub(asked.channel).Check(health_pb2.HealthCheckRequest())
        assert asked.handled("grpc.health.v1.Health/Check") == {"OK": 1}
    assert not traced.spans
    assert not [record for record in log.records if record.name == "mixer.call"]


async def test_health_checks_pass_the_limit() -> None:
    """A server that is full still says that it lives."""
    waiting = Waiting()
    async with serving(waiting, concurrent_calls=1) as asked:
        call = asyncio.create_task(asked.ask())
        await asyncio.wait_for(waiting.begun.wait(), 8.0)
        assert (await asked.fails()).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await health_pb2_grpc.HealthStub(asked.channel).Check(health_pb2.HealthCheckRequest(), timeout=8)
        call.cancel()


@pytest.mark.parametrize("end", ["answer", "error", "crash", "hang up"])
async def test_room_is_given_back(end: str) -> None:
    """However a call ends, its place is free again."""
    waiting = Waiting()
    failures: dict[str, Exception] = {"error": StaleCursor("no"), "crash": KeyError()}

    async def behavior(message: bytes, context: Any) -> bytes:
        if message == b"hang up":
            await waiting(message, context)
        if message.decode() in failures:
            raise failures[message.decode()]
        return message

    async with serving(behavior, concurrent_calls=1) as asked:
        for _ in range(3):
            waiting.begun.clear()
            call = asyncio.create_task(asked.ask(end.encode()))
            if end == "hang up":
                await asyncio.wait_for(waiting.begun.wait(), 8.0)
                call.cancel()
            await asyncio.wait([call])
            await mixers.until(lambda: asked.value("mixer_calls_in_flight") == 0)
            call.cancelled() or call.exception()
        assert await asked.ask(b"room") == b"room"


@pytest.mark.parametrize(
    "headers",
    [
        (("traceparent", "garbage"),),
        (("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"),),
        (("traceparent", "ff-" + "a" * 32 + "-" + "b" * 16 + "-01"), ("tracestate", "=,=;" * 200)),
        (("traceparent-bin", b"\xff\x00"), ("baggage", "%%%" * 300)),
    ],
)
async def test_trace_context_that_makes_no_sense(headers: Any, traced: Tracing) -> None:
    """Nonsense in the trace headers begins a new trace and costs nothing else."""
    async with serving(echo) as asked:
        assert await asked.ask(b"x", metadata=headers) == b"x"
    span = traced.one(METHOD)
    assert span.parent is None


async def test_trace_goes_on(traced: Tracing) -> None:
    """The caller's trace goes on in the server's span."""
    headers = (("traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-01"),)
    async with serving(echo) as asked:
        await asked.ask(metadata=headers)
    span = traced.one(METHOD)
    assert span.parent is not None
    assert span.parent.span_id == int("b" * 16, 16)
    assert span.context is not None
    assert span.context.trace_id == int("a" * 32, 16)


async def test_calls_do_not_mix(traced: Tracing) -> None:
    """What one call says of itself stands on its own span, though many run at once."""
    gate = asyncio.Event()

    async def behavior(message: bytes, context: Any) -> bytes:
        current().facts["mixer.query_id"] = message.decode()
        if message == b"9":
            gate.set()
        await gate.wait()
        return message

    async with serving(behavior, concurrent_calls=10) as asked:
        await asyncio.gather(*(asked.ask(str(n).encode()) for n in range(10)))
    said = {(span.attributes or {})["mixer.query_id"] for span in traced.spans}
    assert said == {str(n) for n in range(10)}
