"""Vectors: documents near the query in meaning, by cosine, in a usearch index.

To serve:

    kind: vectors
    index: indexes/vectors
    least: 0.05              # documents no nearer than this are not found

To build:

    kind: vectors
    fields: [title, doc]     # text and keyword fields embedded as one text; all of them where none are given
    embedder:
      kind: lsa              # the only one so far; see `EMBEDDERS` for what another needs
      dimensions: 128

Without a filter the graph is searched, which may miss a near document in a thousand; with one, every document that
passes is compared. Scores are exact cosines either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from pydantic import Field

from backends import filters
from backends.base import EngineSettings, Hits, Query
from backends.columns import Columns, Rows, mapped, write
from backends.index import IndexFault, IndexSettings, check_fields, open_manifest
from backends.lsa import Lsa, LsaOptions, Matrix, has_words
from backends.passing import Passing, write_keywords
from backends.schema import Document, Schema
from backends.threads import Threads

if TYPE_CHECKING:
    from usearch.index import Index

_GRAPH, _VECTORS, _EMBEDDER = "graph.usearch", "vectors.npy", "embedder"
_EXPANSION = 128
_QUERY_CHARS = 4096


class Embedder(Protocol):
    """Text to a vector of unit length, or zero for text that means nothing to it.

    Its class has `fit(texts, options) -> (embedder, vectors of the texts)` and `load(folder)`.
    """

    def embed(self, text: str) -> Matrix:
        """A vector of shape (dimensions,)."""
        ...

    def save(self, folder: Path) -> None:
        """Write into a folder that is there."""
        ...


EMBEDDERS: dict[str, Any] = {"lsa": Lsa}


class VectorsOptions(EngineSettings):
    """What is fixed when the index is built."""

    kind: Literal["vectors"]
    fields: tuple[str, ...] = ()
    embedder: LsaOptions = LsaOptions()


class VectorsSettings(IndexSettings):
    """How near is near, see the top of the file."""

    kind: Literal["vectors"]
    least: float = Field(default=0.05, ge=0, lt=1)


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
        self._least = settings.least
        self._embedder: Embedder = EMBEDDERS[options.embedder.kind].load(folder / _EMBEDDER)
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
        check_fields(options.fields, held, "fields")
        texts = [document.words(options.fields or held) for document in documents]
        if not any(map(has_words, texts)):
            raise IndexFault("the documents have no words to embed")
        embedder, vectors = EMBEDDERS[options.embedder.kind].fit(texts, options.embedder)
        write(documents, schema, folder)
        write_keywords(documents, schema, folder)
        (folder / _EMBEDDER).mkdir()
        embedder.save(folder / _EMBEDDER)
        np.save(folder / _VECTORS, vectors)
        graph, rows = _graph(vectors.shape[1]), np.flatnonzero(vectors.any(axis=1))
        # One thread, so that the same vectors make the same graph.
        graph.add(rows, vectors[rows], threads=1)
        graph.save(str(folder / _GRAPH))

    def _answer(self, query: Query) -> Hits:
        vector = self._embedder.embed(query.text[:_QUERY_CHARS])
        limit = min(query.limit, len(self._vectors))
        rows = self._candidates(vector, query, limit) if vector.any() and limit > 0 else np.empty(0, np.intp)
        scores = (self._vectors[rows] @ vector).astype(np.float64)
        near = scores > self._least
        rows, scores = rows[near], scores[near]
        best = np.lexsort((rows, -scores))[:limit]
        return self._columns.hits(rows[best], scores[best], query, self._served)

    def _candidates(self, vector: Matrix, query: Query, limit: int) -> Rows:
        """Rows, in no order, with the nearest among them."""
        if query.filters:
            return self._passing.rows(query.filters)
        return self._graph.search(vector, limit, threads=1).keys.astype(np.intp)


def _graph(dimensions: int) -> Index:
    from usearch.index import Index

    return Index(
        ndim=dimensions, metric="cos", dtype="f32", expansion_add=_EXPANSION, expansion_search=_EXPANSION
    )
