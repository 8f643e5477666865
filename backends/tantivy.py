"""Tantivy: words by BM25.

To serve:

    kind: tantivy
    index: indexes/lexical
    match: any                       # or `all`: every word of the query, in whichever field
    boosts: {title: 3, overview: 1}  # of the text fields searched; all of them at 1 where none are given

To build:

    kind: tantivy
    stemming: english                # or `none`

A query is words and nothing else: it has no operators. Its first 64 distinct words count. A document's score is
the sum over fields of boost * BM25. `<text field>_bm25` can be asked for as a number field: the BM25 of that field
alone, without boost, 0 where none of its words match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import PositiveFloat

from backends import filters
from backends.base import EngineSettings, Filter, FloatColumn, Hits, Query, Range
from backends.columns import Columns, Rows, write
from backends.index import IndexSettings, check_fields, open_manifest
from backends.schema import Document, Schema
from backends.threads import Threads

if TYPE_CHECKING:
    import tantivy

_FOLDER = "tantivy"
_ANALYZER = "words"
_QUERY_CHARS = 4096
_QUERY_WORDS = 64
_LONGEST_WORD_BYTES = 80
_WRITER_BYTES = 256_000_000


class TantivyOptions(EngineSettings):
    """What is fixed when the index is built."""

    kind: Literal["tantivy"]
    stemming: Literal["none", "english"] = "none"


class TantivySettings(IndexSettings):
    """How queries are matched and weighed, see the top of the file."""

    kind: Literal["tantivy"]
    match: Literal["any", "all"] = "any"
    boosts: Mapping[str, PositiveFloat] = {}


class Tantivy:
    """A backend over an index folder with a Tantivy index."""

    Settings = TantivySettings
    Options = TantivyOptions

    def __init__(self, settings: TantivySettings) -> None:
        """Open the index. Raises: IndexFault."""
        import tantivy

        manifest = open_manifest(settings.index, "tantivy")
        self._schema = manifest.declared
        texts = self._schema.names("text")
        check_fields(settings.boosts, texts, "boosts")
        self._boosts: dict[str, float] = dict(settings.boosts) or dict.fromkeys(texts, 1.0)
        self._every = settings.match == "all"
        options = TantivyOptions.model_validate(manifest.options)
        self._analyzer = _analyzer(options)
        index = tantivy.Index.open(str(settings.index / _FOLDER))
        self._terms = _Terms(index.schema, self._schema)
        self._searcher = index.searcher()
        self._columns = Columns(settings.index, self._schema)
        self._served = manifest.served(settings, f"tantivy/{version('tantivy')}")
        self._threads = Threads(settings.threads, "tantivy")

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """See `Backend`."""
        filters.check(query, self._schema)
        return await self._threads.run(partial(self._answer, query), timeout_s)

    async def close(self) -> None:
        """See `Backend`."""
        await self._threads.close()

    @staticmethod
    def build(documents: Sequence[Document], schema: Schema, options: TantivyOptions, folder: Path) -> None:
        """Write the index into a folder."""
        import tantivy

        write(documents, schema, folder)
        (folder / _FOLDER).mkdir()
        index = tantivy.Index(_fields(schema), path=str(folder / _FOLDER))
        index.register_tokenizer(_ANALYZER, _analyzer(options))
        # One thread, so that the same documents make the same index.
        writer = index.writer(_WRITER_BYTES, num_threads=1)
        for row, document in enumerate(documents):
            writer.add_document(_entry(row, document, schema))
        writer.commit()
        writer.wait_merging_threads()

    def _answer(self, query: Query) -> Hits:
        words = self._words(query.text)
        limit = min(query.limit, self._searcher.num_docs)
        found = self._ranked(words, query.filters, limit) if words and limit > 0 else []
        rows = np.array([row for row, _ in found], dtype=np.intp)
        scores = np.array([score for _, score in found], dtype=np.float64)
        hits = self._columns.hits(rows, scores, query, self._served)
        for field in self._schema.names("text"):
            name = f"{field}_bm25"
            if name in query.fields and self._schema.type_of(name) is None:
                hits.numbers[name] = self._field_scores(field, words, rows)
        return hits

    def _words(self, text: str) -> list[str]:
        return list(islice(dict.fromkeys(self._analyzer.analyze(text[:_QUERY_CHARS])), _QUERY_WORDS))

    def _ranked(self, words: list[str], asked: Sequence[Filter], limit: int) -> list[tuple[int, float]]:
        """Row and score, best first, ties by row."""
        query = self._terms.matching(words, self._boosts, self._every)
        found = self._found(self._terms.both(query, [self._terms.holding(item) for item in asked]), limit)
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))

    def _field_scores(self, field: str, words: list[str], rows: Rows) -> FloatColumn:
        scores = dict.fromkeys(rows.tolist(), 0.0)
        if scores:
            query = self._terms.matching(words, {field: 1.0}, every=False)
            scores.update(self._found(self._terms.both(query, [self._terms.among(rows)]), len(scores)))
        return np.array(list(scores.values()), dtype=np.float64)

    def _found(self, query: tantivy.Query, limit: int) -> list[tuple[int, float]]:
        hits = self._searcher.search(query, limit, count=False).hits
        rows = self._searcher.fast_field_values("_row", [address for _, address in hits])
        return [(int(row or 0), score) for row, (score, _) in zip(rows, hits, strict=True)]


class _Terms:
    """Builds query objects: nothing a user types is ever parsed."""

    def __init__(self, fields: tantivy.Schema, schema: Schema) -> None:
        import tantivy

        self._fields, self._schema, self._query = fields, schema, tantivy.Query
        self._must, self._should = tantivy.Occur.Must, tantivy.Occur.Should
        self._float = tantivy.FieldType.Float

    def matching(self, words: list[str], boosts: dict[str, float], every: bool) -> tantivy.Query:
        """Documents with any word, or every word, in any of the fields."""
        occur = self._must if every else self._should
        return self._query.boolean_query([(occur, self._anywhere(word, boosts)) for word in words])

    def both(self, query: tantivy.Query, conditions: list[tantivy.Query]) -> tantivy.Query:
        """The query, scored as it is, where all conditions hold."""
        silent = [(self._must, self._query.const_score_query(item, 0.0)) for item in conditions]
        return self._query.boolean_query([(self._must, query), *silent]) if silent else query

    def among(self, rows: Rows) -> tantivy.Query:
        """The documents of these rows; several times faster than a term set where there are few."""
        terms = [self._query.term_query(self._fields, "_row", row, "basic") for row in rows.tolist()]
        return self._query.boolean_query([(self._should, term) for term in terms])

    def holding(self, item: Filter) -> tantivy.Query:
        """The documents that a filter lets through."""
        name = "_id" if item.field == "id" else item.field
        if isinstance(item.condition, Range):
            low, high = item.condition.min, item.condition.max
            if low is None and high is None:
                low = -np.inf
            return self._query.range_query(self._fields, name, self._float, low, high)
        values: list[Any] = list(filters.values_of(item.condition))
        if self._schema.type_of(item.field) == "number":
            values = [float(value) for value in values]
        return self._query.term_set_query(self._fields, name, values)

    def _anywhere(self, word: str, boosts: dict[str, float]) -> tantivy.Query:
        terms = {name: self._query.term_query(self._fields, name, word, "freq") for name in boosts}
        boosted = [self._query.boost_query(term, boosts[name]) for name, term in terms.items()]
        return self._query.boolean_query([(self._should, term) for term in boosted])


def _analyzer(options: TantivyOptions) -> tantivy.TextAnalyzer:
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    steps = [Filter.remove_long(_LONGEST_WORD_BYTES), Filter.lowercase(), Filter.ascii_fold()]
    if options.stemming == "english":
        steps.append(Filter.stemmer("english"))
    builder = TextAnalyzerBuilder(Tokenizer.simple())
    for step in steps:
        builder = builder.filter(step)
    return builder.build()


def _fields(schema: Schema) -> tantivy.Schema:
    """Underscored names cannot clash with declared ones."""
    import tantivy

    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("_row", indexed=True, fast=True)
    for name in ("_id", *schema.names("keyword")):
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    for name in schema.names("text"):
        builder.add_text_field(name, tokenizer_name=_ANALYZER, index_option="freq")
    for name in schema.names("number"):
        builder.add_float_field(name, indexed=True, fast=True)
    return builder.build()


def _entry(row: int, document: Document, schema: Schema) -> tantivy.Document:
    import tantivy

    entry = tantivy.Document()
    entry.add_unsigned("_row", row)
    entry.add_text("_id", document.id)
    for name, values in document.texts.items():
        for value in values:
            entry.add_text(name, value)
    for name, number in document.numbers.items():
        entry.add_float(name, number)
    return entry
