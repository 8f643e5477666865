"""Connections to PostgreSQL: a bounded pool, work that keeps its time, and foreign errors in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from backends.base import BackendError, BackendTimeout, BackendUnreachable
from backends.cancelling import is_cancelling

if TYPE_CHECKING:
    import psycopg
    from psycopg_pool import AsyncConnectionPool

    Connection = psycopg.AsyncConnection[tuple[Any, ...]]

Answer = TypeVar("Answer")

_DOWN_S = 0.25
"""After an attempt to connect failed, and nothing is connected, nobody makes another for so long."""
_DOWN = "no connection: the server is down or refuses this user"
_GONE = ("08", "57P01", "57P02", "57P03")
_CANCELLED = "57014"
_DENIED = "42501"
_CHANGED = ("42", "0A000", "XX000")
"""Of a statement that no longer fits its table."""


class Pool:
    """Opens when first asked, on the loop that asks."""

    def __init__(
        self, conninfo: str, password: str, size: int, connect_timeout_s: int, prepared: bool
    ) -> None:
        """Connects to nothing yet; `password` is empty where the server wants none."""
        self._conninfo, self._size = conninfo, size
        self._options: dict[str, Any] = {
            "autocommit": False,
            "connect_timeout": connect_timeout_s,
            "prepare_threshold": 5 if prepared else None,
        } | ({"password": password} if password else {})
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._left: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Task[Connection]] = set()
        self._closed = False
        self._down_until_s = 0.0

    async def run(self, work: Coroutine[Any, Any, Answer], timeout_s: float) -> Answer:
        """Do the work in a task of its own, which is left behind when its time is up or the caller is cancelled.

        What is left behind has its statement cancelled on the server and gives its connection back, or closes it
        where the server does not answer within seconds.
        """
        task = asyncio.create_task(work)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise BackendTimeout(f"no answer within {timeout_s:g} s") from error
        finally:
            if not task.done():
                self._leave(task)

    @asynccontextmanager
    async def connection(self, timeout_s: float) -> AsyncIterator[Connection]:
        """A connection, this task's alone. Raises: BackendTimeout, BackendUnreachable."""
        pool = await self._opened()
        connection = await self._taken(pool, timeout_s)
        try:
            yield connection
        finally:
            await pool.putconn(connection)

    async def renew(self) -> None:
        """Throw out idle connections that are broken: where one is, the others are likely to be."""
        await (await self._opened()).check()

    async def close(self) -> None:
        """Take no more work; what was left behind ends at once."""
        self._closed = True
        for task in self._left:
            task.cancel()
        await asyncio.gather(*self._left, return_exceptions=True)
        if self._pool is not None:
            await self._pool.close()

    async def _taken(self, pool: AsyncConnectionPool[Connection], timeout_s: float) -> Connection:
        from psycopg_pool import PoolClosed, PoolTimeout

        if monotonic() < self._down_until_s:
            raise BackendUnreachable(_DOWN)
        asked = asyncio.create_task(pool.getconn(max(timeout_s, 0.0)))
        self._waiting.add(asked)
        try:
            return await asked
        except PoolTimeout as error:
            raise BackendTimeout(f"no connection of {self._size} was free within {timeout_s:g} s") from error
        except PoolClosed as error:
            raise BackendUnreachable("the backend is closed") from error
        except asyncio.CancelledError:
            if is_cancelling():
                asked.cancel()
                raise
            raise BackendUnreachable(_DOWN) from None
        finally:
            self._waiting.discard(asked)

    async def _opened(self) -> AsyncConnectionPool[Connection]:
        if self._closed:
            raise BackendUnreachable("the backend is closed")
        if self._pool is None:
            from psycopg_pool import AsyncConnectionPool

            self._pool = AsyncConnectionPool(
                self._conninfo,
                kwargs=self._options,
                min_size=1,
                max_size=self._size,
                open=False,
                configure=_configure,
                # One attempt: who asks later makes another.
                reconnect_timeout=0,
                reconnect_failed=self._unreachable,
                name="postgres",
            )
            await self._pool.open()
        return self._pool

    async def _unreachable(self, pool: AsyncConnectionPool[Connection]) -> None:
        """An attempt to connect failed: nobody need wait out their time for it, unless others are connected."""
        if pool.get_stats().get("pool_size", 0) == 0:
            self._down_until_s = monotonic() + _DOWN_S
            for asked in self._waiting:
                asked.cancel()

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._left.add(task)
        task.add_done_callback(self._end)
        task.cancel()

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # asked for, so that the loop does not log it as lost


def translated(error: psycopg.Error, connection: Connection) -> BackendError:
    """Our words for what PostgreSQL says; its own stay in `__cause__`."""
    state = error.sqlstate or ""
    if state == _CANCELLED:
        return BackendTimeout("the statement was cancelled when its time was up")
    if connection.closed or state.startswith(_GONE):
        return BackendUnreachable("the connection broke")
    if state == _DENIED:
        return BackendError("this user may not read the table")
    return BackendError(f"the server failed with SQLSTATE {state or 'unknown'}")


def is_stale(error: psycopg.Error) -> bool:
    """Whether the table may have changed under its statements."""
    return (error.sqlstate or "").startswith(_CHANGED)


async def _configure(connection: Connection) -> None:
    await connection.set_read_only(True)
