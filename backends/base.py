"""What a search engine is to Mixer: a question, an answer in columns, and the ways it can fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

FloatColumn = NDArray[np.float64]


class EngineSettings(BaseModel):
    """Base of every engine's settings: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Equals:
    """The field is this text or number."""

    value: str | float


@dataclass(frozen=True, slots=True)
class Range:
    """The number lies between two inclusive ends; None is open."""

    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The field is any of these texts or numbers."""

    values: tuple[str | float, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on a document field, or on `id`."""

    field: str
    condition: Equals | Range | Terms


@dataclass(frozen=True, slots=True)
class Query:
    """What a backend is asked: the user's words, the most hits to return, and the fields wanted back."""

    text: str
    limit: int
    filters: tuple[Filter, ...] = ()
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Index:
    """The index an answer was read from; `version` changes whenever an answer could change."""

    version: str = ""
    fresh_at_s: float = 0.0
    """Unix time when the documents were last brought up to date; 0 where unknown."""
    server_version: str = ""
    schema: str = ""
    """Changes whenever a field comes, goes or becomes of another type; empty where unknown."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Parallel columns, one row a document, best first.

    `scores` and every column of `numbers` are float64 of shape (n,), NaN for missing; columns of `texts` are
    lists of n strings, empty for missing.
    """

    ids: list[str]
    scores: FloatColumn
    numbers: dict[str, FloatColumn] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    index: Index = Index()

    def __len__(self) -> int:
        return len(self.ids)

    def columns(self) -> FloatColumn:
        """The scores and each column of the numbers, in their order, one after the other ((1 + k) * n,)."""
        return np.concatenate([self.scores, *self.numbers.values()])

    def fault(self) -> str | None:
        """Why these columns make no sense, or None when they do."""
        n = len(self.ids)
        if "" in self.ids:
            return "an id is empty"
        if not self._are_texts():
            return "an id or a text is not a string"
        if self.scores.shape != (n,):
            return f"{_size(self.scores.shape)} scores for {n} ids"
        for column in self.numbers.values():
            if column.shape != (n,):
                return f"{_size(column.shape)} values of one field for {n} ids"
        for texts in self.texts.values():
            if len(texts) != n:
                return f"{len(texts)} values of one field for {n} ids"
        return None

    def _are_texts(self) -> bool:
        return all(map(_is_text, (self.ids, *self.texts.values())))


def _is_text(column: list[str]) -> bool:
    return set(map(type, column)) <= _TEXT


_TEXT = {str}


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


class BackendError(Exception):
    """A backend did not answer. The message is ours alone: foreign text stays in `__cause__`.

    BackendError
     +- BackendTimeout      no answer within the time given
     +- BackendRefused      the query or a filter can never be answered by this engine
     +- BackendUnreachable  no connection, or the engine is down
     +- BackendGarbage      the answer made no sense
    """

    code: ClassVar[str] = "error"


class BackendTimeout(BackendError):
    """No answer within the time given."""

    code = "timeout"


class BackendRefused(BackendError):
    """The query or a filter can never be answered by this engine."""

    code = "refused"


class BackendUnreachable(BackendError):
    """No connection, or the engine is down."""

    code = "unreachable"


class BackendGarbage(BackendError):
    """The answer made no sense."""

    code = "garbage"


class Punctual:
    """A backend whose `retrieve` ends in time by itself, whatever happens: nobody needs a clock of its own for it."""

    __slots__ = ()


class Backend(Protocol):
    """One search engine, asked from the event loop; safe to ask many times at once."""

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """The best documents, best first, at most `query.limit`.

        Raises: a BackendError; anything else is a programmer's mistake.
        """
        ...

    async def close(self) -> None:
        """Let go of files and connections; called once."""
        ...
