"""What engines behind a server of their own have in common: their settings, credentials, time, and how fresh they are.

fields:
  title: {type: text}
  year: {type: number, field: release_year}   # the server's name of it, where that is another
user: mixer
password_env: SEARCH_PASSWORD   # the environment variable that holds it; a secret never stands in a file
ca_file: ca.pem                 # certificates that the server's is held against, in place of the system's
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Annotated, Generic, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from backends.base import (
    BackendError,
    BackendRefused,
    BackendTimeout,
    BackendUnreachable,
    EngineSettings,
    FloatColumn,
)
from backends.cancelling import is_cancelling
from backends.index import IndexFault, beside_settings
from backends.schema import FieldType, Schema

State = TypeVar("State")

_READ_S = 10.0
_PATIENCE = 5
_WORDS = 64
_CHARS = 4096
_APART = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_PIECE = re.compile(rf"[^\W{_APART}]+|[^\x00-\x7f\s]")
"""A word; a single sign of scripts that write without spaces, or of no script: each may become a clause."""


def _is_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is no URL that starts with http:// or https:// and names a host")
    if parts.username or parts.password:
        raise ValueError("holds credentials: use `user` and `password_env`")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_is_url)]


class ServedField(EngineSettings):
    """A field by its type, and by the server's name where that is another."""

    type: FieldType
    field: str = ""


class ServedSettings(EngineSettings):
    """See the top of the file."""

    fields: Annotated[dict[str, ServedField], Field(min_length=1)]
    user: str = ""
    password_env: str = ""
    ca_file: Annotated[Path, AfterValidator(beside_settings)] | None = None
    connections: PositiveInt = 64
    """The most at once to a server; more searches wait for one within their time."""
    max_hits: PositiveInt = 10_000
    """No search asks for more."""
    version_every_s: PositiveFloat = 1.0
    """How often the version of the index is read while there are searches."""

    @field_validator("fields")
    @classmethod
    def _names_are_plain(cls, fields: dict[str, ServedField]) -> dict[str, ServedField]:
        _schema(fields)
        return fields

    @model_validator(mode="after")
    def _password_has_a_user(self) -> ServedSettings:
        if bool(self.user) != bool(self.password_env):
            raise ValueError("`user` and `password_env` go together")
        return self

    @property
    def declared(self) -> Schema:
        """The fields as filters see them."""
        return _schema(self.fields)

    def check_names(self, boosts: Iterable[str] | None, scores: Iterable[str]) -> None:
        """Of a search by words its `boosts`, None for any other, and of `scores`. Raises: ValueError."""
        texts = self.named("text")
        if boosts is not None and not texts:
            raise ValueError("search by words needs a field of type text")
        if unknown := sorted(set(boosts or ()) - set(texts)):
            raise ValueError(f"search.boosts names no text field: {', '.join(unknown)}")
        if clash := sorted(set(scores) & {"id", *self.fields}):
            raise ValueError(f"scores has names of fields: {', '.join(clash)}")

    def named(self, *types: FieldType) -> dict[str, str]:
        """The fields of these types, each with the server's name of it."""
        return {name: held.field or name for name, held in self.fields.items() if held.type in types}


def _schema(fields: dict[str, ServedField]) -> Schema:
    return Schema.model_validate({"fields": {name: {"type": held.type} for name, held in fields.items()}})


def secret(setting: str, variable: str) -> str:
    """What the environment variable holds that a setting names; empty where it names none. Raises: IndexFault."""
    held = os.environ.get(variable, "") if variable else ""
    if variable and not held:
        raise IndexFault(f"{setting}: the environment variable {variable} is not set")
    return held


def digest(value: object) -> str:
    """16 hex digits that change whenever a value of JSON does."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def column(values: Sequence[float | None]) -> FloatColumn:
    """Missing as NaN."""
    return np.array(values, dtype=np.float64)


def tls(settings: ServedSettings) -> ssl.SSLContext | None:
    """What the server's certificate is held against, None for the usual. Raises: IndexFault where it cannot be read."""
    if settings.ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise IndexFault(f"ca_file: {settings.ca_file} holds no certificates that can be read") from error


@asynccontextmanager
async def within(timeout_s: float) -> AsyncIterator[None]:
    """What is awaited in it has so much time. Raises: BackendTimeout."""
    if timeout_s <= 0:
        raise BackendTimeout("no time was left to ask")
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise BackendTimeout(f"no answer within {timeout_s:g} s") from error


def shortened(text: str, fields: int) -> str:
    """As much of a query as a server takes that makes a clause of every word in each of so many fields.

    Up to 64 words stand as they are; of more, each counts once.
    """
    most = max(1, min(_WORDS, 1000 // max(fields, 1)))
    text = text[:_CHARS]
    if sum(1 for _ in _PIECE.finditer(text)) <= most:
        return text
    text = " ".join(dict.fromkeys(text.split()))
    pieces = [piece.end() for piece in _PIECE.finditer(text)]
    return text[: pieces[most - 1]] if len(pieces) > most else text


class Live(Generic[State]):
    """What a server says of its index, read again where that was a while ago; all who wait share one reading."""

    def __init__(self, read: Callable[[], Awaitable[State]], every_s: float) -> None:
        """`read` raises BackendErrors only."""
        self._read, self._every_s = read, every_s
        self._state: State | None = None
        self._read_at_s = 0.0
        self._reading: asyncio.Task[State] | None = None

    async def get(self) -> State:
        """What was read last. Older than `every_s`, it is read anew beside the searches; much older, before them.

        Raises: BackendError where it had to be read and could not be.
        """
        age_s = monotonic() - self._read_at_s
        if self._state is not None and age_s < self._every_s:
            return self._state
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._renew())
            self._reading.add_done_callback(_heard)
        if self._state is not None and age_s < self._every_s * _PATIENCE:
            return self._state
        return await self._waited(self._reading)

    async def _waited(self, reading: asyncio.Task[State]) -> State:
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            if reading.cancelled() and not is_cancelling():
                raise BackendUnreachable("the backend is closed") from None
            raise

    async def close(self) -> None:
        """End a reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _renew(self) -> State:
        async with within(_READ_S):
            began_s = monotonic()
            self._state = await self._read()
            self._read_at_s = began_s
        return self._state


def _heard(reading: asyncio.Task[State]) -> None:
    """What failed beside the searches is said by the first that has to wait for it."""
    if not reading.cancelled():
        reading.exception()


def refused(status: int, what: str) -> BackendError:
    """What a status of HTTP means, in our words."""
    match status:
        case 400 | 413 | 414 | 422:
            return BackendRefused(f"the server refused what it was asked ({status})")
        case 401 | 403:
            return BackendError(f"the server does not let us read {what} ({status})")
        case 404:
            return BackendError(f"the server has no {what} (404)")
        case 408 | 504:
            return BackendTimeout(f"the server ran out of time ({status})")
        case 429:
            return BackendError("the server is overloaded (429)")
        case 502 | 503:
            return BackendUnreachable(f"the server is down ({status})")
    return BackendError(f"the server failed with {status}")
