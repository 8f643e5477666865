"""Redis, and what speaks its protocol (Valkey, KeyDB, Dragonfly): a hash or a JSON text a row. Extra: `redis`.

    kind: redis
    url: redis://redis:6379/0      # rediss:// for TLS, unix:///run/redis.sock?db=0
    username: mixer                # with `password_env`; none for the default user
    password_env: REDIS_PASSWORD   # the environment variable that holds the password
    key: "doc:{id}"                # or "user:{context.user}"
    fields: [ctr_7d, sales]
    layout: hash                   # HSET doc:1 ctr_7d 0.25 sales 7; or `json`: SET doc:1 '{"ctr_7d": 0.25, "sales": 7}'
    script: true                   # hashes by one script; false pipelines an HMGET a key
    connections: 16

All keys of a request are one round trip: of hashes one EVALSHA that reads them all, of JSON one MGET. A pipeline of
HMGETs is one round trip too, but takes more than twice the CPU here (200 documents of 5 fields: 2.2 ms for 0.9 ms); it
is for servers that allow no scripts. One node is asked: a cluster needs a proxy, or keys that share a hash tag.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, PositiveInt

from backends.base import BackendError, BackendTimeout, BackendUnreachable
from backends.spans import db_span
from backends.stores.base import Rows, StoreFault, StoreSettings, no_rows, numbers, password_from

if TYPE_CHECKING:
    from redis.asyncio import Redis as Client

_SCHEMES = ("redis", "rediss", "unix")
_SCRIPT = """
local rows = {}
for place, key in ipairs(KEYS) do
  local row = redis.pcall('HMGET', key, unpack(ARGV))
  rows[place] = row.err and row.err or row
end
return rows
"""
"""A key of another type than a hash costs its own row: its error takes the row's place."""
_WRONG_TYPE = "WRONGTYPE"


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"begins with none of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}")
    if parts.password or "password=" in parts.query:
        raise ValueError("holds a password; name the environment variable that does in password_env")
    return url


class RedisSettings(StoreSettings):
    """See the top of the file."""

    kind: Literal["redis"]
    url: Annotated[str, AfterValidator(_without_password)]
    username: str = ""
    password_env: str = ""
    layout: Literal["hash", "json"] = "hash"
    script: bool = True
    connections: PositiveInt = 16


class Redis:
    """A store of hashes or JSON texts."""

    Settings = RedisSettings

    def __init__(self, settings: RedisSettings) -> None:
        """Connects when first asked. Raises: StoreFault."""
        self._settings, self._fields = settings, settings.fields
        self._client = _client(settings)
        self._read_hashes = self._client.register_script(_SCRIPT)
        self._ask = self._ask_json if settings.layout == "json" else self._ask_hashes
        self._operation = {"json": "MGET", "hash": "EVALSHA" if settings.script else "HMGET"}[settings.layout]
        parts = urlsplit(settings.url)
        self._server = parts.hostname or parts.path, parts.port
        self._collection = settings.key

    async def fetch(self, keys: Sequence[str], timeout_s: float) -> Rows:
        """See `Store`. A connection whose reply is not awaited any more is closed: no late reply answers another."""
        from redis import exceptions

        with db_span("redis", self._operation, self._collection, *self._server):
            try:
                async with asyncio.timeout(timeout_s):
                    return await self._ask([key.encode("utf-8", "surrogatepass") for key in keys])
            except TimeoutError as error:
                raise BackendTimeout(f"no answer within {timeout_s:g} s") from error
            except exceptions.AuthenticationError as error:
                raise BackendError("the server refused the user or the password") from error
            except exceptions.ConnectionError as error:
                raise BackendUnreachable("no connection, or the server is down") from error
            except exceptions.RedisError as error:
                raise BackendError(f"the server failed with {_code(error)}") from error

    async def close(self) -> None:
        """See `Store`."""
        await self._client.aclose()

    async def _ask_hashes(self, keys: Sequence[bytes]) -> Rows:
        if self._settings.script:
            return self._rows(await self._read_hashes(keys=keys, args=self._fields))
        pipeline = self._client.pipeline(transaction=False)
        for key in keys:
            pipeline.execute_command("HMGET", key, *self._fields)
        return self._rows(await pipeline.execute(raise_on_error=False))

    async def _ask_json(self, keys: Sequence[bytes]) -> Rows:
        """What is no JSON object has nothing that can be read."""
        return self._rows([self._json_row(told) for told in await self._client.mget(keys)])

    def _json_row(self, told: bytes | str | None) -> Sequence[Any]:
        if told is None:
            return [None] * len(self._fields)
        try:
            return list(map(orjson.loads(told).get, self._fields))
        except (orjson.JSONDecodeError, AttributeError):
            return [_UNREADABLE] * len(self._fields)

    def _rows(self, replies: Sequence[Any]) -> Rows:
        """Of replies that are a list a key, or the error that reading it was."""
        width = len(self._fields)
        values, found = no_rows(len(replies), width)
        rows = [reply if isinstance(reply, list) else self._odd_row(reply) for reply in replies]
        values, unreadable = numbers(rows, width)
        nothing = [None] * width
        found[:] = [row != nothing for row in rows]
        return Rows(values, found, unreadable)

    def _odd_row(self, reply: object) -> list[Any]:
        """Of a key that holds something else. Raises: BackendError for any other error."""
        code = _code(reply)
        if code != _WRONG_TYPE:
            raise BackendError(f"the server failed with {code}")
        return [_UNREADABLE] * len(self._fields)


_UNREADABLE = "unreadable"


def _client(settings: RedisSettings) -> Client:
    """Every attempt is within the time of a fetch, so the client's own timeouts are off; a connection that went stale
    is opened again once."""
    try:
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError as error:
        raise StoreFault("kind redis is not installed: pip install '.[redis]' in Mixer's checkout") from error
    pool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=settings.connections,
        timeout=None,
        username=settings.username or None,
        password=password_from(settings.password_env),
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=None,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


def _code(error: object) -> str:
    """The word by which Redis names an error; its other words may hold a key."""
    told = error.decode(errors="replace") if isinstance(error, bytes) else str(error)
    word = told.split(" ", 1)[0]
    return word if word.isupper() and word.isalpha() else type(error).__name__
