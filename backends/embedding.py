"""Text to vectors, as an index of vectors has them: for that index, and for engines that hold its vectors elsewhere.

An engine with vectors of its own (PostgreSQL, Qdrant) is told the folder of an index that `mixer index` built for
`kind: vectors`; the index need not be served. Documents are embedded for it, once, by the same:

    embedding = Embedding.of(Path("indexes/semantic"))
    vector = embedding.document(parse(raw, embedding.schema))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

import numpy as np
from pydantic import Field, PositiveFloat

from backends.base import EngineSettings
from backends.index import open_manifest
from backends.lsa import Lsa, LsaOptions, Matrix
from backends.projection import RandomProjection
from backends.schema import Document, Schema

FOLDER = "embedder"
"""Beside a vectors index's files: a folder with a numbered one for each part."""
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


EMBEDDERS: dict[str, Any] = {"lsa": Lsa, "projection": RandomProjection}


class Part(EngineSettings):
    """Fields embedded as one text, and what their nearness weighs beside the other parts'."""

    fields: tuple[str, ...] = ()
    weight: PositiveFloat = 1.0
    embedder: LsaOptions = LsaOptions()


class VectorsOptions(EngineSettings):
    """What is fixed when an index of vectors is built."""

    kind: Literal["vectors"]
    parts: Annotated[tuple[Part, ...], Field(min_length=1)] = (Part(),)


class Embedding:
    """The embedders of an index, opened: one vector a text, unit length, or zero for text that means nothing."""

    def __init__(self, folder: Path, schema: Schema, options: VectorsOptions) -> None:
        """`folder` is the index folder."""
        self.schema = schema
        self._parts = options.parts
        self._embedders: list[Embedder] = [
            EMBEDDERS[part.embedder.kind].load(folder / FOLDER / str(number))
            for number, part in enumerate(options.parts)
        ]
        self._shares = shares(options.parts)
        self.dimensions = len(self.query(""))

    @classmethod
    def of(cls, folder: Path) -> Self:
        """That of a built index. Raises: IndexFault."""
        manifest = open_manifest(folder, "vectors")
        return cls(folder, manifest.declared, VectorsOptions.model_validate(manifest.options))

    def query(self, text: str) -> Matrix:
        """The vector of a query, of shape (dimensions,); its first 4096 letters count."""
        text = text[:_QUERY_CHARS]
        return joined([embedder.embed(text) for embedder in self._embedders], self._shares)

    def document(self, document: Document) -> Matrix:
        """The vector of a document, of shape (dimensions,)."""
        held = self.schema.names("text", "keyword")
        texts = [document.words(part.fields or held) for part in self._parts]
        embedded = [embedder.embed(text) for embedder, text in zip(self._embedders, texts, strict=True)]
        return joined(embedded, self._shares)


def shares(parts: Sequence[Part]) -> Matrix:
    """What each part's vectors are scaled by, on either side, so that products are weighted means."""
    weights = np.array([part.weight for part in parts], np.float32)
    scaled: Matrix = np.sqrt(weights / weights.sum())
    return scaled


def joined(parts: Sequence[Matrix], scales: Matrix) -> Matrix:
    """Vectors of the parts, scaled, end to end."""
    return np.concatenate([part * scale for part, scale in zip(parts, scales, strict=True)], axis=-1)
