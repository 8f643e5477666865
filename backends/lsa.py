"""Latent semantic analysis: an embedder made from the documents themselves, no download, no network.

Words, pairs of words and pieces of words (3 to 5 letters) weighed by tf-idf, pressed into few dimensions by a
truncated SVD. Fitted by scikit-learn when the index is built; a query is embedded by plain numpy.

Saved as JSON and `.npy`, so that opening an index runs nobody's code.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from backends.base import EngineSettings

Matrix = NDArray[np.float32]

_WORD = re.compile(r"[^\W_]+")
_SIZES = (3, 4, 5)
_ITERATIONS = 4
_FEW_TEXTS = 1000
_COMMON_SHARE = 0.2
"""A gram that more of many texts have tells them apart too little to pay for."""


class LsaOptions(EngineSettings):
    """What an embedder is fitted with."""

    kind: Literal["lsa", "projection"] = "lsa"
    dimensions: PositiveInt = 128
    word_features: PositiveInt = 50_000
    """The most frequent words and pairs that count."""
    piece_features: PositiveInt = 50_000
    """The most frequent pieces of words that count."""


class Lsa:
    """Text to unit vectors; text with nothing known in it to the zero vector."""

    Options = LsaOptions

    def __init__(self, features: list[list[str]], weights: Matrix, projection: Matrix) -> None:
        """`features` are terms and pieces, `weights` (features,) their idf, `projection` (features, dimensions)."""
        terms, pieces = features
        self._features = features
        self._terms = {term: i for i, term in enumerate(terms)}
        self._pieces = {piece: len(terms) + i for i, piece in enumerate(pieces)}
        self._weights = weights
        self._projection = projection

    @classmethod
    def fit(cls, texts: Sequence[str], options: LsaOptions) -> tuple[Self, Matrix]:
        """An embedder and the vectors (texts, dimensions) of the texts it was fitted to."""
        from scipy import sparse

        words, counts = _counted(texts, _words)
        pieces, held = _counted(words, _pieces_of)
        terms = _weighed(*_counted(texts, _terms), options.word_features)
        # A document's pieces are those of its words: one sparse product in place of cutting every word anew.
        parts = _weighed(pieces, counts @ held, options.piece_features)
        matrix = sparse.hstack([terms.matrix, parts.matrix], format="csr", dtype=np.float32)
        dimensions = min(options.dimensions, *matrix.shape)
        projection = np.ascontiguousarray(cls.directions(matrix, dimensions), dtype=np.float32)
        embedder = cls([terms.names, parts.names], np.concatenate([terms.idf, parts.idf]), projection)
        return embedder, _unit(matrix @ projection)

    @staticmethod
    def directions(matrix: Any, dimensions: int) -> Matrix:
        """What a (sparse) row of features is pressed by: (features, dimensions)."""
        from sklearn.utils.extmath import randomized_svd

        _, _, components = randomized_svd(matrix, dimensions, n_iter=_ITERATIONS, random_state=0)
        directions: Matrix = components.T
        return directions

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Open what `save` wrote."""
        features = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        return cls(
            features, np.load(folder / "weights.npy"), np.load(folder / "projection.npy", mmap_mode="r")
        )

    def save(self, folder: Path) -> None:
        """Write into a folder that is there."""
        (folder / "features.json").write_text(json.dumps(self._features), encoding="utf-8")
        np.save(folder / "weights.npy", self._weights)
        np.save(folder / "projection.npy", self._projection)

    def embed(self, text: str) -> Matrix:
        """A vector of shape (dimensions,)."""
        pieces = [piece for word in _words(text) for piece in _pieces_of(word)]
        return _unit(self._pressed(_terms(text), self._terms) + self._pressed(pieces, self._pieces))

    def _pressed(self, grams: list[str], known: dict[str, int]) -> Matrix:
        """What scikit-learn makes of the grams in many times the time: tf-idf of unit length, projected."""
        counts = {known[gram]: count for gram, count in Counter(grams).items() if gram in known}
        rows = np.fromiter(counts, dtype=np.intp)
        weights: Matrix = self._weights[rows] * (1 + np.log(np.fromiter(counts.values(), dtype=np.float32)))
        pressed: Matrix = _unit(weights) @ self._projection[rows]
        return pressed


def has_words(text: str) -> bool:
    """Whether there is anything in a text to embed."""
    return _WORD.search(text) is not None


class _Weighed(NamedTuple):
    names: list[str]
    idf: Matrix
    matrix: Any
    """Sparse, (texts, names), rows of unit length."""


def _counted(texts: Sequence[str], grams: Callable[[str], Sequence[str]]) -> tuple[list[str], Any]:
    """The grams there are, and how often each text has each: sparse, (texts, grams)."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(analyzer=grams, dtype=np.float32)
    counts = vectorizer.fit_transform(texts)
    return vectorizer.get_feature_names_out().tolist(), counts


def _weighed(names: list[str], counts: Any, limit: int) -> _Weighed:
    """Tf-idf of the most frequent grams, without those that too many texts have."""
    from sklearn.feature_extraction.text import TfidfTransformer

    held, frequency = np.asarray((counts > 0).sum(axis=0)).ravel(), np.asarray(counts.sum(axis=0)).ravel()
    most = counts.shape[0] * _COMMON_SHARE if counts.shape[0] >= _FEW_TEXTS else counts.shape[0]
    telling = np.flatnonzero(held <= most)
    kept = np.sort(telling[np.argsort(-frequency[telling], kind="stable")[:limit]])
    weigher = TfidfTransformer(sublinear_tf=True)
    matrix = weigher.fit_transform(counts[:, kept])
    return _Weighed([names[i] for i in kept], weigher.idf_.astype(np.float32), matrix)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _terms(text: str) -> list[str]:
    """Words and pairs of neighbors."""
    words = _words(text)
    return words + [f"{left} {right}" for left, right in pairwise(words)]


@lru_cache(maxsize=65_536)
def _pieces_of(word: str) -> tuple[str, ...]:
    """Runs of 3 to 5 letters; a blank stands for either end of the word."""
    padded = f" {word} "
    return tuple(padded[i : i + size] for size in _SIZES for i in range(len(padded) - size + 1))


def _unit(vectors: Matrix) -> Matrix:
    """Rows of unit length; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Matrix = np.divide(vectors, np.where(lengths > 0, lengths, 1), dtype=np.float32)
    return unit
