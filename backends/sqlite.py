"""SQLite with FTS5: words by BM25, symbols exactly or by prefix, and popularity.

To serve:

    kind: sqlite
    index: indexes/symbols
    match: any                 # or `all`: every word of the query, in whichever field
    words: {name: 4, doc: 1}   # BM25 weight of a text field; 1 where none is given
    bm25: 1.0                  # weights of the four parts of the score
    exact: 10.0
    prefix: 3.0
    popularity: 0.5

To build:

    kind: sqlite
    symbols: [id, name]        # fields, or `id`, that hold names people look up
    popularity: uses           # a number field, more is better
    stemming: none             # or `english`

    score = bm25 * BM25(words) + exact * E + prefix * P + popularity * ln(1 + max(0, uses))

The last word of the query also matches as a prefix, for people who are still typing. A document is found by its
words or by its symbols. E is 1 where a symbol equals the whole query, as it stands or with its words joined by
nothing, a dot or an underscore; where it equals one of n words it is 1/n. P is the same for a symbol that merely
begins with the whole query or its last word. Prefixes have two letters or more. Letter case never counts. The
first 32 words of a query count. Words that most documents hold say nothing: in an index of a thousand documents
or more they are left out of a query that has others, unless `match` is `all`. `text_bm25`, `symbol_exact` and
`symbol_prefix` can be asked for as number fields.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Literal

import numpy as np
from pydantic import NonNegativeFloat

from backends import filters
from backends.base import BackendError, BackendTimeout, EngineSettings, Filter, Hits, Query, Range
from backends.columns import Columns, write
from backends.index import IndexSettings, check_fields, open_manifest
from backends.schema import Document, Schema
from backends.tables import common_words, fill, open_file
from backends.threads import Threads

_FILE = "index.sqlite"
_WORD = re.compile(r"[^\W_]+")
_QUERY_CHARS = 4096
_QUERY_WORDS = 32
_JOINED_WORDS = 4
_PUNCTUATION = "\"'`()[]{}<>,;:?!"
_INTERRUPT_STEPS = 4000
_COMPUTED = ("text_bm25", "symbol_exact", "symbol_prefix")
_AMONG = {
    "id": "id IN (SELECT value FROM json_each(:values{i}))",
    "number": '"n_{field}" IN (SELECT value FROM json_each(:values{i}))',
    "keyword": "row IN (SELECT row FROM keywords WHERE field = '{field}'"
    " AND value IN (SELECT value FROM json_each(:values{i})))",
}
_BY_WORDS = "SELECT rowid, -bm25(words, {weights}), 0, 0 FROM words WHERE words MATCH :match UNION ALL"
_BEST = """
WITH found (row, bm25, exact, prefix) AS (
  {by_words}
  SELECT row, 0, asked.value ->> 1, 0 FROM json_each(:symbols) AS asked JOIN symbols ON symbol = asked.value ->> 0
  UNION ALL
  SELECT row, 0, 0, asked.value ->> 1 FROM json_each(:prefixes) AS asked
    JOIN symbols ON symbol > asked.value ->> 0 AND symbol < (asked.value ->> 0) || char(1114111)
), matched AS (
  SELECT row, max(bm25) AS bm25, max(exact) AS exact, max(prefix) AS prefix FROM found GROUP BY row
)
SELECT row, :bm25 * bm25 + :exact * exact + :prefix * prefix + :popularity * popularity AS score, bm25, exact, prefix
FROM matched JOIN documents USING (row) WHERE {conditions} ORDER BY score DESC, row LIMIT :limit
"""


class SqliteOptions(EngineSettings):
    """What is fixed when the index is built."""

    kind: Literal["sqlite"]
    symbols: tuple[str, ...] = ()
    popularity: str = ""
    stemming: Literal["none", "english"] = "none"


class SqliteSettings(IndexSettings):
    """Weights of the parts of the score, see the top of the file."""

    kind: Literal["sqlite"]
    match: Literal["any", "all"] = "any"
    words: Mapping[str, NonNegativeFloat] = {}
    bm25: NonNegativeFloat = 1.0
    exact: NonNegativeFloat = 10.0
    prefix: NonNegativeFloat = 3.0
    popularity: NonNegativeFloat = 0.5


@dataclass(frozen=True, slots=True)
class _Asked:
    """The query as SQLite is asked it."""

    match: str
    """FTS5 expression; empty where the query has no words."""
    symbols: dict[str, float]
    """What a symbol may equal, and the share that counts for it."""
    prefixes: dict[str, float]

    @classmethod
    def of(cls, text: str, every: bool, common: Set[str]) -> _Asked:
        """`every` demands every word, the `common` ones too."""
        text = text[:_QUERY_CHARS].replace("\0", " ")
        pieces = text.casefold().split()[:_QUERY_WORDS]
        share = 1 / max(len(pieces), 1)
        joints = ("", ".", "_") if 1 < len(pieces) <= _JOINED_WORDS else ()
        wholes = [text.strip().casefold(), *(joint.join(pieces) for joint in joints)]
        bare = [] if every else [word for piece in pieces if (word := piece.strip(_PUNCTUATION))]
        symbols = dict.fromkeys(bare, share) | dict.fromkeys(wholes, 1.0)
        prefixes = {start: symbols[start] for start in (*bare[-1:], wholes[0]) if len(start) > 1}
        return cls(_expression(text, every, common), symbols, prefixes)


def _expression(text: str, every: bool, common: Set[str]) -> str:
    words = list(dict.fromkeys(found[0] for found in islice(_WORD.finditer(text), _QUERY_WORDS)))
    # Quoted, a word is a word: FTS5 knows no operator inside quotes.
    quoted = {word: f'"{word}"' for word in words}
    if words and len(words[-1]) > 1 and text.endswith(words[-1]):
        quoted[words[-1]] += "*"
    if every:
        return " AND ".join(quoted.values())
    telling = [quoted[word] for word in words if word.lower() not in common]
    return " OR ".join(telling or quoted.values())


class Sqlite:
    """A backend over an index folder with one SQLite file."""

    Settings = SqliteSettings
    Options = SqliteOptions

    def __init__(self, settings: SqliteSettings) -> None:
        """Open the index. Raises: IndexFault."""
        manifest = open_manifest(settings.index, "sqlite")
        self._schema = manifest.declared
        texts = self._schema.names("text")
        check_fields(settings.words, texts, "words")
        self._settings = settings
        self._parts = settings.model_dump(include={"bm25", "exact", "prefix", "popularity"})
        self._weights = ", ".join(str(settings.words.get(name, 1.0)) for name in texts) or "1.0"
        self._columns = Columns(settings.index, self._schema)
        self._served = manifest.served(settings, f"sqlite/{sqlite3.sqlite_version}")
        file = (settings.index / _FILE).absolute()
        self._common = common_words(file)
        # All opened now: a later one might find a newer index in this one's place.
        self._connections = [open_file(file) for _ in range(settings.threads)]
        self._idle = SimpleQueue[sqlite3.Connection]()
        for connection in self._connections:
            self._idle.put(connection)
        self._threads = Threads(settings.threads, "sqlite")

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """See `Backend`. A statement is interrupted when its time is up."""
        filters.check(query, self._schema)
        return await self._threads.run(partial(self._answer, query, monotonic() + timeout_s), timeout_s)

    async def close(self) -> None:
        """See `Backend`."""
        await self._threads.close()
        for connection in self._connections:
            connection.close()

    @staticmethod
    def build(documents: Sequence[Document], schema: Schema, options: SqliteOptions, folder: Path) -> None:
        """Write the index into a folder. Raises: IndexFault where the options name unknown fields."""
        check_fields(options.symbols, ["id", *schema.names("keyword", "text")], "symbols")
        check_fields(
            (options.popularity,) if options.popularity else (), schema.names("number"), "popularity"
        )
        write(documents, schema, folder)
        fill(folder / _FILE, documents, schema, options)

    def _answer(self, query: Query, deadline: float) -> Hits:
        """The hits, in this thread; `deadline` is of the monotonic clock."""
        asks = bool(query.text.strip()) and query.limit > 0
        found = self._found(query, deadline) if asks else []
        table = np.array(found, dtype=np.float64).reshape(-1, 2 + len(_COMPUTED))
        hits = self._columns.hits(table[:, 0].astype(np.intp), table[:, 1], query, self._served)
        for place, name in enumerate(_COMPUTED, start=2):
            if name in query.fields and self._schema.type_of(name) is None:
                hits.numbers[name] = table[:, place]
        return hits

    def _found(self, query: Query, deadline: float) -> list[tuple[float, ...]]:
        """Row, score, BM25, exact and prefix share of each document, best first."""
        asked = _Asked.of(query.text, self._settings.match == "all", self._common)
        conditions, bound = _conditions(query.filters, self._schema)
        by_words = _BY_WORDS.format(weights=self._weights) if asked.match else ""
        values = self._parts | bound | _bound(asked, query.limit)
        with self._connection(deadline) as connection:
            return connection.execute(
                _BEST.format(by_words=by_words, conditions=conditions), values
            ).fetchall()

    @contextmanager
    def _connection(self, deadline: float) -> Iterator[sqlite3.Connection]:
        """One connection, read-only, this thread's alone; there are as many as threads."""
        connection = self._idle.get()
        connection.set_progress_handler(lambda: monotonic() > deadline, _INTERRUPT_STEPS)
        try:
            yield connection
        except sqlite3.OperationalError as error:
            if monotonic() > deadline:
                raise BackendTimeout("the statement was interrupted when its time was up") from error
            raise BackendError("the index cannot be read") from error
        finally:
            self._idle.put(connection)


def _bound(asked: _Asked, limit: int) -> dict[str, str | int]:
    return {
        "match": asked.match,
        # Pairs, since SQLite leaves the escapes in the keys of an object.
        "symbols": json.dumps(list(asked.symbols.items())),
        "prefixes": json.dumps(list(asked.prefixes.items())),
        "limit": min(limit, 2**31),
    }


def _conditions(asked: Sequence[Filter], schema: Schema) -> tuple[str, dict[str, str | float]]:
    """SQL that only names declared fields, and the values bound to it."""
    clauses: list[str] = ["true"]
    bound: dict[str, str | float] = {}
    for i, item in enumerate(asked):
        if isinstance(item.condition, Range):
            clauses.append(f'"n_{item.field}" BETWEEN :low{i} AND :high{i}')
            low, high = item.condition.min, item.condition.max
            bound |= {
                f"low{i}": -math.inf if low is None else low,
                f"high{i}": math.inf if high is None else high,
            }
        else:
            clauses.append(_AMONG[_place(item.field, schema)].format(field=item.field, i=i))
            # One JSON parameter, however many values. What JSON or SQLite cannot hold, no document has.
            values = [value for value in filters.values_of(item.condition) if _is_storable(value)]
            bound[f"values{i}"] = json.dumps(values)
    return " AND ".join(clauses), bound


def _place(field: str, schema: Schema) -> str:
    return "id" if field == "id" else str(schema.type_of(field))


def _is_storable(value: str | float) -> bool:
    return "\0" not in value if isinstance(value, str) else math.isfinite(value)
