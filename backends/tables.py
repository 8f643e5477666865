"""The tables of an SQLite index, and how documents get into them."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from backends.schema import Document, Schema

if TYPE_CHECKING:
    from backends.sqlite import SqliteOptions

_TOKENIZERS = {"none": "unicode61 remove_diacritics 2", "english": "porter unicode61 remove_diacritics 2"}
_TABLES = """
CREATE TABLE documents (row INTEGER PRIMARY KEY, id TEXT UNIQUE, popularity REAL {numbers});
CREATE TABLE keywords (field TEXT, value TEXT, row INTEGER, PRIMARY KEY (field, value, row)) WITHOUT ROWID;
CREATE TABLE symbols (symbol TEXT, row INTEGER, PRIMARY KEY (symbol, row)) WITHOUT ROWID;
CREATE TABLE common (word TEXT);
CREATE VIRTUAL TABLE words USING fts5 ({texts}, content='', prefix='2 3', tokenize='{tokenizer}');
"""
_COMMON = """
CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, words, row);
INSERT INTO common SELECT term FROM temp.vocabulary, (SELECT count(*) AS held FROM documents)
  WHERE held >= 1000 AND doc > held / 2;
"""
"""BM25 of FTS5 gives a word that most documents hold next to nothing, at the price of scoring them all."""


def open_file(file: Path) -> sqlite3.Connection:
    """A file to read, from any thread. An index never changes in place: no locks, and its folder may be read-only."""
    return sqlite3.connect(f"{file.as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False)


def common_words(file: Path) -> frozenset[str]:
    """The words that most documents hold; none in a small index."""
    with closing(open_file(file)) as connection:
        return frozenset(word for (word,) in connection.execute("SELECT word FROM common"))


def fill(file: Path, documents: Sequence[Document], schema: Schema, options: SqliteOptions) -> None:
    """Write a new file; a document's row is its place in the sequence."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(_script(schema, options))
        with connection:
            for row, document in enumerate(documents):
                for table, values in _entries(row, document, schema, options):
                    marks = ", ".join("?" * len(values))
                    connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)  # noqa: S608
        connection.executescript(_COMMON)


def _script(schema: Schema, options: SqliteOptions) -> str:
    return _TABLES.format(
        numbers="".join(f', "n_{name}" REAL' for name in schema.names("number")),
        texts=", ".join(_text_columns(schema)),
        tokenizer=_TOKENIZERS[options.stemming],
    )


def _text_columns(schema: Schema) -> list[str]:
    """Names FTS5 does not claim for itself; it wants at least one."""
    return [f"t_{name}" for name in schema.names("text")] or ["t_"]


def _entries(
    row: int, document: Document, schema: Schema, options: SqliteOptions
) -> Iterable[tuple[str, tuple[object, ...]]]:
    numbers, texts = map(document.numbers.get, schema.names("number")), schema.names("text") or [""]
    popularity = math.log1p(max(document.numbers.get(options.popularity, 0.0), 0.0))
    yield "documents", (row, document.id, popularity, *numbers)
    yield f"words (rowid, {', '.join(_text_columns(schema))})", (row, *map(document.shown, texts))
    for name in schema.names("keyword"):
        for value in dict.fromkeys(document.texts.get(name, ())):
            yield "keywords", (name, value, row)
    for symbol in _symbols(document, options):
        yield "symbols", (symbol, row)


def _symbols(document: Document, options: SqliteOptions) -> Iterable[str]:
    held = ((document.id,) if name == "id" else document.texts.get(name, ()) for name in options.symbols)
    return dict.fromkeys(value.strip().casefold() for values in held for value in values)
