"""Vectors: documents near the query in meaning, by cosine, in a usearch index.

To serve:

    kind: vectors
    index: indexes/vectors
    least: 0.05              # documents no nearer than this are not found
    exact_up_to: 50000       # documents up to which every one is compared, rather than the graph searched

To build:

    kind: vectors
    parts:                   # one of all text and keyword fields where none is given
      - fields: [title, doc] # embedded as one text
        weight: 1
        embedder:
          kind: lsa          # meaning; or `projection`: spelling; see `embedding.EMBEDDERS` for what another needs
          dimensions: 128

A document's score is the weighted mean of its parts' cosines with the query.

Comparing with every document finds the nearest for sure, and is as fast as the graph up to tens of thousands. The
graph finds about 999 of a thousand. With a filter, every document that passes is compared, however many there are.
Scores are exact always.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, NonNegativeInt

from backends import filters
from backends.base import Hits, Query
from backends.columns import Columns, Rows, mapped, write
from backends.embedding import EMBEDDERS, FOLDER, Embedding, VectorsOptions, joined, shares
from backends.index import IndexFault, IndexSettings, check_fields, open_manifest
from backends.lsa import Matrix, has_words
from backends.passing import Passing, write_keywords
from backends.schema import Document, Schema
from backends.threads import Threads

if TYPE_CHECKING:
    from usearch.index import Index

_GRAPH, _VECTORS = "graph.usearch", "vectors.npy"


class VectorsSettings(IndexSettings):
    """How near is near, see the top of the file."""

    kind: Literal["vectors"]
    least: float = Field(default=0.05, ge=0, lt=1)
    exact_up_to: NonNegativeInt = 50_000


class Vectors:
    """A backend over an index folder with vectors."""

    Settings = VectorsSettings
    Options = VectorsOptions

    def __init__(self, settings: VectorsSettings) -> None:
        """Open the index. Raises: IndexFault."""
        import usearch

        manifest, folder = open_manifest(settings.index, "vectors"), settings.index
        options = VectorsOptions.model_validate(manifest.options)
        self._schema = manifest.declared
        self._settings = settings
        self._embedding = Embedding(folder, self._schema, options)
        self._vectors: Matrix = mapped(folder / _VECTORS)
        self._graph = _graph(self._vectors.shape[1])
        self._graph.view(str(folder / _GRAPH))
        self._columns = Columns(folder, self._schema)
        self._passing = Passing(folder, self._schema, self._columns)
        self._served = manifest.served(settings, f"usearch/{usearch.__version__}")
        self._threads = Threads(settings.threads, "vectors")

    async def retrieve(self, query: Query, timeout_s: float) -> Hits:
        """See `Backend`."""
        filters.check(query, self._schema)
        return await self._threads.run(partial(self._answer, query), timeout_s)

    async def close(self) -> None:
        """See `Backend`."""
        await self._threads.close()

    @staticmethod
    def build(documents: Sequence[Document], schema: Schema, options: VectorsOptions, folder: Path) -> None:
        """Write the index into a folder. Raises: IndexFault where there is nothing to embed."""
        held = schema.names("text", "keyword")
        (folder / FOLDER).mkdir()
        parts = []
        for number, part in enumerate(options.parts):
            check_fields(part.fields, held, "fields")
            texts = [document.words(part.fields or held) for document in documents]
            if not any(map(has_words, texts)):
                raise IndexFault("the documents have no words to embed")
            embedder, embedded = EMBEDDERS[part.embedder.kind].fit(texts, part.embedder)
            (folder / FOLDER / str(number)).mkdir()
            embedder.save(folder / FOLDER / str(number))
            parts.append(embedded)
        vectors = joined(parts, shares(options.parts))
        write(documents, schema, folder)
        write_keywords(documents, schema, folder)
        np.save(folder / _VECTORS, vectors)
        graph, rows = _graph(vectors.shape[1]), np.flatnonzero(vectors.any(axis=1))
        # One thread, so that the same vectors make the same graph.
        graph.add(rows, vectors[rows], threads=1)
        graph.save(str(folder / _GRAPH))

    def _answer(self, query: Query) -> Hits:
        vector = self._embedding.query(query.text)
        limit = min(query.limit, len(self._vectors))
        rows, scores = np.empty(0, np.intp), np.empty(0, np.float32)
        if vector.any() and limit > 0:
            rows, scores = _nearest(*self._compared(vector, query, limit), limit, self._settings.least)
        return self._columns.hits(rows, scores.astype(np.float64), query, self._served)

    def _compared(self, vector: Matrix, query: Query, limit: int) -> tuple[Rows, Matrix]:
        """Rows, in no order, with the nearest among them, and the cosine of each."""
        if not query.filters and len(self._vectors) <= self._settings.exact_up_to:
            return np.arange(len(self._vectors)), self._vectors @ vector
        rows = self._passing.rows(query.filters) if query.filters else self._walked(vector, limit)
        return rows, self._vectors[rows] @ vector

    def _walked(self, vector: Matrix, limit: int) -> Rows:
        rows: Rows = self._graph.search(vector, limit, threads=1).keys.astype(np.intp)
        return rows


def _nearest(rows: Rows, scores: Matrix, limit: int, least: float) -> tuple[Rows, Matrix]:
    """The best above `least`, best first, ties by row."""
    if len(scores) > limit:
        least = max(least, np.nextafter(np.partition(scores, -limit)[-limit], np.float32(-1)))
    near = scores > least
    rows, scores = rows[near], scores[near]
    best = np.lexsort((rows, -scores))[:limit]
    return rows[best], scores[best]


def _graph(dimensions: int) -> Index:
    from usearch.index import Index

    return Index(
        ndim=dimensions, metric="ip", dtype="f32", connectivity=32, expansion_add=256, expansion_search=512
    )
