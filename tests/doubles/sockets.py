"""Ends of a connection that do not do what is hoped for."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager


@contextmanager
def refusing() -> Iterator[str]:
    """An address at which every connection is refused; it is bound, so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@contextmanager
def black_hole() -> Iterator[str]:
    """An address at which connections come about and nothing is ever read or written."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen(64)
        yield f"127.0.0.1:{held.getsockname()[1]}"


class Cable:
    """Carries bytes to a service and back until it is cut."""

    def __init__(self, target: str) -> None:
        self._host, _, self._port = target.rpartition(":")
        self._ends: list[asyncio.StreamWriter] = []
        self.target = ""

    def cut(self) -> None:
        """Break every connection, at both ends, with no goodbye."""
        for end in self._ends:
            end.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        far_reader, far_writer = await asyncio.open_connection(self._host, int(self._port))
        self._ends += [writer, far_writer]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def cable(target: str) -> AsyncIterator[Cable]:
    """A cable to this target."""
    carried = Cable(target)
    server = await asyncio.start_server(carried.carry, "127.0.0.1", 0)
    async with server:
        carried.target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield carried
        finally:
            carried.cut()
