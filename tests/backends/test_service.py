"""Any backend as a service."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from backends.base import (
    BackendError,
    BackendGarbage,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    Hits,
    Query,
)
from backends.memory import Memory
from protos.backends.v1 import backend_pb2 as pb
from protos.backends.v1 import backend_pb2_grpc


class Spy(Memory):
    """Remembers what it was asked."""

    limit = timeout_s = -1.0

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        self.limit, self.timeout_s = query.limit, timeout_s
        return await super().retrieve(query, timeout_s)


async def call(
    target: str, request: pb.RetrieveRequest, timeout_s: float | None = 10.0
) -> pb.RetrieveResponse:
    async with grpc.aio.insecure_channel(target) as channel:
        answer = await backend_pb2_grpc.BackendServiceStub(channel).Retrieve(request, timeout=timeout_s)
    assert isinstance(answer, pb.RetrieveResponse)
    return answer


@pytest.fixture
def spy(memory: Memory) -> Spy:
    memory.__class__ = Spy
    assert isinstance(memory, Spy)
    return memory


async def test_answers(memory: Memory, serve: Callable[..., Any]) -> None:
    """A request is answered with the backend's hits."""
    async with serve(memory) as target:
        answer = await call(target, pb.RetrieveRequest(query="csv rows", limit=1, fields=["year"]))
    assert list(answer.ids) == ["csv.reader"]
    assert [(column.name, list(column.values)) for column in answer.numbers] == [("year", [2001.0])]
    assert answer.server_version == "memory/1"


@pytest.mark.parametrize(("limit", "asked"), [(-3, 0), (5, 5), (11, 10), (2**31 - 1, 10)])
async def test_limit_is_clamped(spy: Spy, serve: Callable[..., Any], limit: int, asked: int) -> None:
    """No caller makes the backend return more than the service allows."""
    async with serve(spy, max_limit=10) as target:
        await call(target, pb.RetrieveRequest(query="csv", limit=limit))
    assert spy.limit == asked


@pytest.mark.parametrize(("timeout_s", "least", "most"), [(30.0, 10.0, 31.0), (None, 7.0, 7.0)])
async def test_deadline_is_passed(
    spy: Spy, serve: Callable[..., Any], timeout_s: float | None, least: float, most: float
) -> None:
    """The backend gets what is left of the caller's deadline, or the default where there is none."""
    async with serve(spy, default_timeout_s=7.0) as target:
        await call(target, pb.RetrieveRequest(query="csv", limit=1), timeout_s)
    assert least <= spy.timeout_s <= most


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (BackendTimeout("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (BackendRefused("no"), grpc.StatusCode.INVALID_ARGUMENT),
        (BackendUnreachable("down"), grpc.StatusCode.UNAVAILABLE),
        (BackendGarbage("odd"), grpc.StatusCode.DATA_LOSS),
        (BackendError("broken"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_failure_has_a_status(
    memory: Memory, serve: Callable[..., Any], failure: BackendError, code: grpc.StatusCode
) -> None:
    """Each of our errors has its status, and its message reaches the caller."""
    memory.failure = failure
    async with serve(memory) as target:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(target, pb.RetrieveRequest(query="csv", limit=1))
    assert caught.value.code() is code
    assert str(failure) in str(caught.value.details())


async def test_crash_tells_nothing(
    memory: Memory,
    serve: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An error that is not ours reaches the log and not the caller."""

    async def crash(query: Query, timeout_s: float) -> Hits:
        raise KeyError("hunter2")

    monkeypatch.setattr(memory, "retrieve", crash)
    async with serve(memory) as target:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(target, pb.RetrieveRequest(query="csv", limit=1))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert "hunter2" in caplog.text


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        (pb.Filter(field="kind"), "filters[0]"),
        (pb.Filter(field="kind", equals=pb.Value()), "filters[0].equals"),
        (pb.Filter(field="no_such_field", equals=pb.Value(text="x")), "filters[0].field"),
    ],
)
async def test_refusal_names_the_field(
    memory: Memory, serve: Callable[..., Any], asked: pb.Filter, path: str
) -> None:
    """INVALID_ARGUMENT carries a BadRequest with the path of the culprit, for machines."""
    async with serve(memory) as target:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(target, pb.RetrieveRequest(query="csv", limit=1, filters=[asked]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    rich, bad = status_pb2.Status(), error_details_pb2.BadRequest()
    rich.ParseFromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    assert rich.details[0].Unpack(bad)
    assert [violation.field for violation in bad.field_violations] == [path]
