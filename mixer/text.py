"""How many texts meet the words of a query: what stands where, how much of it, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from rapidfuzz import fuzz, process

from backends.base import FloatColumn
from mixer.values import IntColumn
from mixer.words import (
    SEPARATOR,
    Flags,
    Hashes,
    Words,
    count_in,
    fold,
    prefix_sums,
    present_in,
    slice_hashes,
    where_any,
)

MAX_QUERY_WORDS = 64


class QueryWords:
    """A query's words, ready to be looked for; those beyond MAX_QUERY_WORDS are left out."""

    def __init__(self, query: str) -> None:
        """Takes the query as typed."""
        self.words = fold(query.replace(SEPARATOR, " ")).split()[:MAX_QUERY_WORDS]
        self.folded = " ".join(self.words)
        read = Words([self.folded])
        self.hashes = read.hashes
        self.distinct = np.unique(self.hashes)
        self.pairs = np.unique(read.pairs[0])
        self.last = self.words[-1].encode("utf-8", "surrogatepass") if self.words else b""

    @cached_property
    def runs(self) -> Hashes:
        """One number for every run of the query's words, of whatever length."""
        sums, size = prefix_sums(self.hashes), len(self.hashes)
        starts, ends = np.triu_indices(size + 1, 1) if size else (np.empty(0, np.intp), np.empty(0, np.intp))
        return slice_hashes(sums, starts, ends)

    def overlap(self, texts: Sequence[str]) -> Overlap:
        """How each of the texts (n,) meets this query."""
        return Overlap(self, Words(texts))


class Overlap:
    """How n texts meet a query; every column is made when it is first asked for."""

    def __init__(self, query: QueryWords, text: Words) -> None:
        """A query's words and those of n texts."""
        self._query = query
        self.text = text

    @property
    def words(self) -> IntColumn:
        """Words of each text (n,)."""
        return self.text.counts

    @cached_property
    def present(self) -> Flags:
        """(q, n): which of the query's distinct words stand in each text."""
        return present_in(self._query.distinct, self.text.hashes, self.text.rows, self.text.texts)

    @cached_property
    def matched(self) -> IntColumn:
        """Words of each text that are the query's (n,)."""
        return count_in(self._query.distinct, self.text.hashes, self.text.rows, self.text.texts)

    @cached_property
    def pairs(self) -> Flags:
        """(p, n): which of the query's distinct pairs of neighbors stand so in each text."""
        return present_in(self._query.pairs, *self.text.pairs, self.text.texts)

    @cached_property
    def matched_pairs(self) -> IntColumn:
        """Pairs of neighbors of each text that are the query's (n,)."""
        return count_in(self._query.pairs, *self.text.pairs, self.text.texts)

    @cached_property
    def _runs(self) -> IntColumn:
        """Places of the words at which the whole query begins."""
        asked, hashes, rows = self._query.hashes, self.text.hashes, self.text.rows
        length, total = len(asked), len(hashes)
        if not 0 < length <= total:
            return np.empty(0, np.intp)
        at: IntColumn = np.flatnonzero(hashes[: total - length + 1] == asked[0])
        at = at[rows[at] == rows[at + length - 1]]
        for step in range(1, length):
            at = at[hashes[at + step] == asked[step]]
        return at

    @cached_property
    def phrase(self) -> Flags:
        """Whether the query's words stand in a row in each text (n,)."""
        return self._flagged(self._runs)

    @cached_property
    def starts(self) -> Flags:
        """Whether each text starts with the query's words (n,)."""
        at, rows = self._runs, self.text.rows
        return self._flagged(at[(at == 0) | (rows[at - 1] != rows[at])])

    @cached_property
    def exact(self) -> Flags:
        """Whether each text is the query's words and no more (n,)."""
        exact: Flags = self.starts & (self.words == len(self._query.hashes))
        return exact

    @cached_property
    def inside(self) -> Flags:
        """Whether each text, all of it, stands in a row in the query (n,)."""
        return np.isin(self.text.whole, self._query.runs) & (self.words > 0)

    @cached_property
    def last_word_prefix(self) -> Flags:
        """Whether the query's last word begins a word of each text (n,)."""
        return self.text.any_by_text(self.text.starting_with(self._query.last))

    @cached_property
    def similarity(self) -> FloatColumn:
        """How alike the letters are, words in any order and surplus ones forgiven, 0 to 1 (n,)."""
        return self._alike(fuzz.token_set_ratio, self._query.folded, self._texts)

    @cached_property
    def letters(self) -> FloatColumn:
        """How alike the letters are to the best part of the longer, blanks left out, 0 to 1 (n,)."""
        texts = self.text.folded.replace(" ", "").split(SEPARATOR)
        return self._alike(fuzz.partial_ratio, self._query.folded.replace(" ", ""), texts)

    @property
    def _texts(self) -> list[str]:
        return self.text.folded.split(SEPARATOR)

    def _alike(self, scorer: Any, query: str, texts: list[str]) -> FloatColumn:
        shares = process.cdist([query], texts[: self.text.texts], scorer=scorer, dtype=np.float64, workers=1)
        column: FloatColumn = shares.reshape(-1) / 100.0
        return column

    def _flagged(self, at: IntColumn) -> Flags:
        flags = np.zeros(self.text.texts, bool)
        flags[self.text.rows[at]] = True
        return flags


def coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """Share of the query's distinct words that stand in any of the fields (n,); NaN where all are empty."""
    return _weigh(overlaps, np.ones(len(overlaps[0].present)))


def weighted_coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """As `coverage`, each word weighing more the fewer of these n documents have it."""
    present = _anywhere(overlaps)
    n = present.shape[1]
    return _weigh(overlaps, np.log1p(n / (1.0 + present.sum(axis=1))))


def pair_coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """Share of the query's pairs of neighbors that stand so in any of the fields (n,); NaN where all are empty."""
    found = np.logical_or.reduce([o.pairs for o in overlaps])
    return where_any(_words_of(overlaps), found.sum(axis=0) / max(len(found), 1))


def field_coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """Share of the fields' words that are the query's (n,); NaN where all are empty."""
    words = _words_of(overlaps)
    return where_any(words, np.sum([o.matched for o in overlaps], axis=0) / np.maximum(words, 1))


def field_pair_coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """Share of the fields' pairs of neighbors that are the query's (n,); NaN where all are empty."""
    pairs = np.sum([np.maximum(o.words - 1, 0) for o in overlaps], axis=0)
    matched = np.sum([o.matched_pairs for o in overlaps], axis=0)
    return where_any(_words_of(overlaps), matched / np.maximum(pairs, 1))


def any_of(overlaps: Sequence[Overlap], flags: Sequence[Flags]) -> FloatColumn:
    """1 where the flag is set for any of the fields, else 0 (n,); NaN where all are empty."""
    return where_any(_words_of(overlaps), np.logical_or.reduce(flags).astype(np.float64))


def greatest(overlaps: Sequence[Overlap], columns: Sequence[FloatColumn]) -> FloatColumn:
    """The greatest value among the fields (n,); NaN where all are empty."""
    return where_any(_words_of(overlaps), np.max(columns, axis=0))


def _words_of(overlaps: Sequence[Overlap]) -> IntColumn:
    words: IntColumn = np.sum([o.words for o in overlaps], axis=0)
    return words


def _anywhere(overlaps: Sequence[Overlap]) -> Flags:
    found: Flags = np.logical_or.reduce([o.present for o in overlaps])
    return found


def _weigh(overlaps: Sequence[Overlap], weights: FloatColumn) -> FloatColumn:
    return where_any(_words_of(overlaps), weights @ _anywhere(overlaps) / max(float(weights.sum()), 1e-12))
