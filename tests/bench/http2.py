"""Just enough of HTTP/2 (RFC 9113), and of gRPC over it, to ask one method again and again.

A client of gRPC takes several times as much from the cores, which the callers are to leave to those who answer.
"""

from __future__ import annotations

import asyncio
import struct
from typing import cast

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_ACKNOWLEDGED = _END_STREAM = 1
_END_HEADERS = 4
_HEAD = struct.Struct(">BHBBI")
"""Of a frame: its length in two parts, its kind, its flags, its stream."""
_TABLE_SIZE, _ENABLE_PUSH, _INITIAL_WINDOW = 1, 2, 4
_MOST, _USUAL_WINDOW = 2**31 - 1, 65_535
_MESSAGE = struct.Struct(">BI")
"""Before a message: whether it is compressed, its length."""


class NoAnswer(Exception):
    """The call failed, or the connection was lost."""


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """One frame."""
    return _HEAD.pack(len(body) >> 16, len(body) & 0xFFFF, kind, flags, stream) + body


class Connection(asyncio.Protocol):
    """A connection of its own, with one call at a time; messages are bytes."""

    def __init__(self, method: str) -> None:
        """Asks `/service/Method`."""
        self._headers = _headers(method)
        self._stream = -1
        self._unread, self._got = b"", b""
        self._answer: asyncio.Future[bytes] | None = None

    async def ask(self, message: bytes) -> bytes:
        """The answer to a message. Raises: NoAnswer."""
        self._stream, self._got = self._stream + 2, b""
        self._answer = asyncio.get_running_loop().create_future()
        sent = _MESSAGE.pack(0, len(message)) + message
        self._transport.write(
            frame(_HEADERS, _END_HEADERS, self._stream, self._headers)
            + frame(_DATA, _END_STREAM, self._stream, sent)
        )
        return await self._answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast(asyncio.Transport, transport)
        chosen = ((_TABLE_SIZE, 0), (_ENABLE_PUSH, 0), (_INITIAL_WINDOW, _MOST))
        settings = b"".join(struct.pack(">HI", key, value) for key, value in chosen)
        window = struct.pack(">I", _MOST - _USUAL_WINDOW)
        self._transport.write(_PREFACE + frame(_SETTINGS, 0, 0, settings) + frame(_WINDOW, 0, 0, window))

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        unread, start = self._unread + data, 0
        while len(unread) - start >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(unread, start)
            end = start + _HEAD.size + (high << 16) + low
            if end > len(unread):
                break
            self._read(kind, flags, stream, unread[start + _HEAD.size : end])
            start = end
        self._unread = unread[start:]

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio."""
        self._fail("the connection was lost")

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()

    def _read(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == _DATA:
            self._got += body
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            self._ended()
        elif kind in (_SETTINGS, _PING) and not flags & _ACKNOWLEDGED:
            self._transport.write(frame(kind, _ACKNOWLEDGED, 0, body if kind == _PING else b""))
        elif kind in (_RESET, _GO_AWAY):
            self._fail("the server gave the call up")

    def _ended(self) -> None:
        """A call that failed ends without a message."""
        if len(self._got) < _MESSAGE.size:
            self._fail("the call failed")
        elif self._answer and not self._answer.done():
            self._answer.set_result(self._got[_MESSAGE.size :])

    def _fail(self, why: str) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(NoAnswer(why))


def _headers(method: str) -> bytes:
    """A header block (RFC 7541) that needs no table of its own: indexes of the static one, and plain texts."""
    post, http, path, authority, content_type = b"\x83", b"\x86", b"\x04", b"\x01", b"\x0f\x10"
    named = (path, method), (authority, "localhost"), (content_type, "application/grpc")
    known = b"".join(name + _text(value) for name, value in named)
    return post + http + known + b"\x00" + _text("te") + _text("trailers")


def _text(value: str) -> bytes:
    return bytes([len(value)]) + value.encode()
