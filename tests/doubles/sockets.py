"""Ends of a connection that do not do what is hoped for."""

from __future__ import annotations

import asyncio
import contextlib
import random
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
    """Carries bytes to a service, at `host:port` or the path of its socket, and back until it is held or cut.

    What it does to answers can be changed at any time.
    """

    def __init__(self, target: str) -> None:
        self._far = target
        self._ends: list[asyncio.StreamWriter] = []
        self._flows = asyncio.Event()
        self._flows.set()
        self.target = ""
        self.latency_s = self.jitter_s = 0.0
        """Before each piece of an answer; up to the jitter more, drawn by chance."""
        self.loss = 0.0
        """Share of the pieces that come late, as if they had to be sent again."""
        self.bytes_per_s = float("inf")
        self.piece_bytes = 65536
        """1 drips."""
        self.reset_in: int | None = None
        """After so many bytes more of answers every connection breaks, once."""
        self.is_down = False
        """Connections come about and break at once."""

    def hold(self) -> None:
        """Keep every connection and carry nothing more."""
        self._flows.clear()

    def flow(self) -> None:
        """Carry on, with what was held back first."""
        self._flows.set()

    def cut(self) -> None:
        """Break every connection, at both ends, with no goodbye."""
        for end in self._ends:
            end.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.is_down:
            writer.transport.abort()
            return
        far_reader, far_writer = await _reached(self._far)
        self._ends += [writer, far_writer]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pipe(reader, far_writer), self._answer(far_reader, writer))

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(self.piece_bytes):
            await self._delay(len(data))
            await self._flows.wait()
            if self.reset_in is not None and (left := self.reset_in - len(data)) <= 0:
                await self._break(writer, data[:left])
                return
            if self.reset_in is not None:
                self.reset_in -= len(data)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _delay(self, size: int) -> None:
        lost_s = _SENT_AGAIN_S if random.random() < self.loss else 0.0
        held_s = self.latency_s + random.random() * self.jitter_s + size / self.bytes_per_s + lost_s
        if held_s:
            await asyncio.sleep(held_s)

    async def _break(self, writer: asyncio.StreamWriter, head: bytes) -> None:
        writer.write(head)
        self.reset_in = None
        await asyncio.sleep(_ON_ITS_WAY_S)
        self.cut()


_SENT_AGAIN_S = 0.2
"""The least time after which TCP sends again what was lost."""
_ON_ITS_WAY_S = 0.02


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
            carried.flow()
            carried.cut()
