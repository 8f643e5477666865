"""Documents held in memory, ranked by the share of the query's words they have. No index, no files.

    kind: memory
    fields:
      title: {type: text}
      year: {type: number}
    documents:
      - {id: "1", title: Read a CSV file, year: 2001}
      - {id: "2", title: Write a CSV file}

The shortest engine, so the one to copy for a new engine, and the double for tests: set `latency_s`, `failure`
or `hits` on it and it is late, fails or answers exactly that, sense or nonsense.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any, Literal

import numpy as np
from pydantic import model_validator

from backends import filters
from backends.base import (
    BackendError,
    BackendTimeout,
    BackendUnreachable,
    Filter,
    Hits,
    Index,
    Query,
    Range,
)
from backends.schema import Document, Schema, parse

_WORD = re.compile(r"\w+")


class MemorySettings(Schema):
    """The documents and the fields they declare."""

    kind: Literal["memory"]
    documents: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="after")
    def _documents_are_sound(self) -> MemorySettings:
        ids = [_parsed(raw, self, f"documents[{i}]").id for i, raw in enumerate(self.documents)]
        if len(set(ids)) != len(ids):
            raise ValueError("documents: an id is repeated")
        return self


class Memory:
    """A backend over the documents of its settings."""

    Settings = MemorySettings

    def __init__(self, settings: MemorySettings) -> None:
        """Tokenize the documents; a query then looks at each of them."""
        self._schema = settings
        self._documents = [parse(raw, settings) for raw in settings.documents]
        texts = settings.names("text", "keyword")
        self._words = [_words(document.words(texts)) for document in self._documents]
        content = settings.model_dump_json(exclude={"kind"}).encode()
        self._index = Index(
            hashlib.sha256(content).hexdigest()[:16], server_version="memory/1", schema=settings.digest
        )
        self._closed = False
        self.latency_s = 0.0
        """How long every answer takes."""
        self.failure: BackendError | None = None
        """Raised in place of an answer."""
        self.hits: Hits | None = None
        """Answered, unchecked, in place of the documents."""

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """See `Backend`."""
        # Engines answer for their own time: a caller's timeout is a promise, not a hint.
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(self.latency_s)
        except TimeoutError as error:
            raise BackendTimeout(f"no answer within {timeout_s:g} s") from error
        if self._closed:
            raise BackendUnreachable("the backend is closed")
        if self.failure is not None:
            raise self.failure
        # What can never be answered is refused before any work, by the check that all engines share.
        filters.check(query, self._schema)
        return self.hits if self.hits is not None else self._answer(query)

    async def close(self) -> None:
        """See `Backend`."""
        self._closed = True

    def _answer(self, query: Query) -> Hits:
        best = self._ranked(query)[: max(query.limit, 0)]
        documents = [self._documents[row] for _, row in best]
        # Columns, not objects: one array a field, and only the fields asked for and held.
        numbers = [name for name in self._schema.names("number") if name in query.fields]
        texts = [name for name in self._schema.names("text", "keyword") if name in query.fields]
        return Hits(
            ids=[document.id for document in documents],
            scores=np.array([score for score, _ in best], dtype=np.float64),
            numbers={
                name: np.array([d.numbers.get(name, np.nan) for d in documents], dtype=np.float64)
                for name in numbers
            },
            texts={name: [document.shown(name) for document in documents] for name in texts},
            index=self._index,
        )

    def _ranked(self, query: Query) -> list[tuple[float, int]]:
        """Score and row, best first; equal scores in the order of the documents, so that answers repeat."""
        asked = _words(query.text)
        matches = [
            (len(asked & words) / len(asked), row)
            for row, (document, words) in enumerate(zip(self._documents, self._words, strict=True))
            if asked & words and all(_holds(item, document) for item in query.filters)
        ]
        return sorted(matches, key=lambda match: (-match[0], match[1]))


def _parsed(raw: dict[str, Any], schema: Schema, where: str) -> Document:
    try:
        return parse(raw, schema)
    except ValueError as error:
        raise ValueError(f"{where} {error}") from None


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))


def _holds(item: Filter, document: Document) -> bool:
    """Whether a document meets a condition; one without the field never does."""
    if item.field == "id":
        held: tuple[str | float, ...] = (document.id,)
    elif item.field in document.numbers:
        held = (document.numbers[item.field],)
    else:
        held = document.texts.get(item.field, ())
    if isinstance(item.condition, Range):
        low, high = item.condition.min, item.condition.max
        numbers = [value for value in held if not isinstance(value, str)]
        return any((low is None or low <= n) and (high is None or n <= high) for n in numbers)
    return not set(held).isdisjoint(filters.values_of(item.condition))
