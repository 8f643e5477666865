"""The crowd's own client, held against gRPC's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.bench.http2 import Connection, NoAnswer

METHOD = "/some.Service/Echo"


@asynccontextmanager
async def connected(method: str = METHOD) -> AsyncIterator[Connection]:
    async def echo(message: bytes, context: Any) -> bytes:
        if message == b"hang":
            await asyncio.sleep(60.0)
        return message

    server = grpc.aio.server()
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("some.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(method), "127.0.0.1", port)
    try:
        yield connection
    finally:
        connection.close()
        await server.stop(None)


async def test_every_message_is_answered() -> None:
    """One after the other, on one connection, whole: short ones, those of many frames, more than a window holds."""
    async with connected() as connection:
        for size in (0, 1, 1_000, 60_000, 3, 60_000, 60_000):
            message = bytes(size)
            assert await connection.ask(message) == message


async def test_a_call_that_fails_is_no_answer() -> None:
    """A method that nobody serves."""
    async with connected("/some.Service/Other") as connection:
        with pytest.raises(NoAnswer, match="the call failed"):
            await connection.ask(b"x")


async def test_a_connection_that_is_lost_is_no_answer() -> None:
    """The caller does not wait for ever."""
    async with connected() as connection:
        asked = asyncio.create_task(connection.ask(b"hang"))
        await asyncio.sleep(0.05)
        connection.close()
        with pytest.raises(NoAnswer, match="lost"):
            await asked
