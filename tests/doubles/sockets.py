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
    """Carries bytes to a service, at `host:port` or the path of its socket, and back until it is held or cut."""

    def __init__(self, target: str) -> None:
        self._far = target
        self._ends: list[asyncio.StreamWriter] = []
        self._flows = asyncio.Event()
        self._flows.set()
        self.target = ""

    def hold(self) -> None:
        """Keep every connection and carry nothing more."""
        self._flows.clear()

    def cut(self) -> None:
        """Break every connection, at both ends, with no goodbye."""
        for end in self._ends:
            end.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        far_reader, far_writer = await _reached(self._far)
        self._ends += [writer, far_writer]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pipe(reader, far_writer), self._pipe(far_reader, writer))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


async def _reached(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if target.startswith("/"):
        return await asyncio.open_unix_connection(target)
    host, _, port = target.rpartition(":")
    return await asyncio.open_connection(host, int(port))


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
