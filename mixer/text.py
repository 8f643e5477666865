"""Words of many texts at once, as numbers, and how they overlap with the words of a query.

Texts are joined into one byte buffer; every word gets the 64-bit polynomial hash of its bytes, read off prefix sums
(Karp and Rabin, "Efficient randomized pattern-matching algorithms", 1987), so no step touches one text at a time.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn
from mixer.values import IntColumn

Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

MAX_QUERY_WORDS = 64
_BASE = 0x9E3779B97F4A7C15 | 1
_SEPARATOR = "\0"
_MARKS = re.compile("[\u0300-\u036f]+")
_NOT_WORD = re.compile(f"[^\\w{_SEPARATOR}]|_")
_ASCII = bytes(c if c > 127 or chr(c).isalnum() or c == 0 else 32 for c in range(256))


@dataclass(frozen=True, slots=True)
class Words:
    """The words of n texts in reading order: their hashes (w,), the text each stands in (w,), and n."""

    hashes: Hashes
    rows: IntColumn
    texts: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """How n texts meet a query of q distinct words.

    `present` (q, n): the word stands in the text. `matched` and `words` (n,): words of the text that are the
    query's, and all of them. The rest (n,): the query's words stand there in a row; at its start; are all of it; its
    last word begins a word there.
    """

    present: Flags
    matched: IntColumn
    words: IntColumn
    phrase: Flags
    starts: Flags
    exact: Flags
    last_word_prefix: Flags


class QueryWords:
    """A query's words, ready to be looked for; those beyond MAX_QUERY_WORDS are left out."""

    def __init__(self, query: str) -> None:
        """Takes the query as typed."""
        folded = _fold(query.replace(_SEPARATOR, " "))
        self.words = folded.split()[:MAX_QUERY_WORDS]
        self.hashes = _read(_SEPARATOR.join(self.words), len(self.words))[0].hashes
        self.distinct = np.unique(self.hashes)
        self.last = self.words[-1].encode() if self.words else b""

    def overlap(self, texts: Sequence[str]) -> Overlap:
        """How each of the texts (n,) meets this query."""
        n = len(texts)
        words, buffer = _words(texts)
        place = np.searchsorted(self.distinct, words.hashes)
        hit = np.zeros(len(place), bool)
        inside = place < len(self.distinct)
        hit[inside] = self.distinct[place[inside]] == words.hashes[inside]
        present = np.zeros((len(self.distinct), n), bool)
        present[place[hit], words.rows[hit]] = True
        counts = np.bincount(words.rows, minlength=n)
        phrase, starts = self._runs(words)
        return Overlap(
            present=present,
            matched=np.bincount(words.rows[hit], minlength=n),
            words=counts,
            phrase=phrase,
            starts=starts,
            exact=starts & (counts == len(self.hashes)),
            last_word_prefix=_any_by_row(words, buffer.starts_with(self.last)),
        )

    def _runs(self, words: Words) -> tuple[Flags, Flags]:
        """Texts in which the query's words stand in a row, and those that start with them."""
        phrase, starts = np.zeros(words.texts, bool), np.zeros(words.texts, bool)
        length, total = len(self.hashes), len(words.hashes)
        if not 0 < length <= total:
            return phrase, starts
        at = np.flatnonzero(words.hashes[: total - length + 1] == self.hashes[0])
        at = at[words.rows[at] == words.rows[at + length - 1]]
        for step in range(1, length):
            at = at[words.hashes[at + step] == self.hashes[step]]
        phrase[words.rows[at]] = True
        first = at[(at == 0) | (words.rows[at - 1] != words.rows[at])]
        starts[words.rows[first]] = True
        return phrase, starts


@dataclass(frozen=True, slots=True)
class _Buffer:
    """Prefix sums of the joined bytes, and where each word begins and ends in them."""

    sums: Hashes
    starts: IntColumn
    ends: IntColumn

    def starts_with(self, prefix: bytes) -> Flags:
        """Which words begin with these bytes; none does with no bytes."""
        long_enough = (self.ends - self.starts >= len(prefix)) & bool(prefix)
        flags = np.zeros(len(self.starts), bool)
        at = self.starts[long_enough]
        flags[long_enough] = _hash(self.sums, at, at + len(prefix)) == _hash_of(prefix)
        return flags


def _any_by_row(words: Words, flags: Flags) -> Flags:
    found = np.zeros(words.texts, bool)
    found[words.rows[flags]] = True
    return found


def _words(texts: Sequence[str]) -> tuple[Words, _Buffer]:
    joined = _SEPARATOR.join(texts)
    if joined.count(_SEPARATOR) != max(len(texts) - 1, 0):
        joined = _SEPARATOR.join(text.replace(_SEPARATOR, " ") for text in texts)
    return _read(_fold(joined), len(texts))


def _fold(text: str) -> str:
    """Lower case without accents; everything but letters, digits and separators becomes a space."""
    lowered = text.lower()
    if lowered.isascii():
        return lowered.encode().translate(_ASCII).decode()
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", lowered))
    return _NOT_WORD.sub(" ", bare)


def _read(folded: str, texts: int) -> tuple[Words, _Buffer]:
    data = np.frombuffer(folded.encode(), np.uint8)
    letter = np.zeros(len(data) + 2, np.int8)
    letter[1:-1] = (data != 32) & (data != 0)
    edges = np.diff(letter)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    powers = _powers(_capacity(len(data)))[0]
    sums = np.zeros(len(data) + 1, np.uint64)
    np.cumsum(data * powers[: len(data)], out=sums[1:])
    rows = np.searchsorted(np.flatnonzero(data == 0), starts)
    return Words(_hash(sums, starts, ends), rows, texts), _Buffer(sums, starts, ends)


def _hash(sums: Hashes, starts: IntColumn, ends: IntColumn) -> Hashes:
    inverse = _powers(_capacity(len(sums)))[1]
    hashes: Hashes = (sums[ends] - sums[starts]) * inverse[starts]
    return hashes


def _hash_of(word: bytes) -> np.uint64:
    data = np.frombuffer(word, np.uint8)
    powers = _powers(_capacity(len(data)))[0]
    return np.uint64((data * powers[: len(data)]).sum(dtype=np.uint64))


def _capacity(size: int) -> int:
    return int(max(1 << 16, 1 << (max(size, 1) - 1).bit_length()))


@lru_cache(maxsize=4)
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Powers of the base and of its inverse, modulo 2**64; the base is odd, so the inverse exists."""
    inverse = pow(_BASE, -1, 1 << 64)
    return tuple(_power_table(base, size) for base in (_BASE, inverse))  # type: ignore[return-value]


def _power_table(base: int, size: int) -> Hashes:
    table = np.full(size, base, np.uint64)
    table[0] = 1
    return np.cumprod(table, dtype=np.uint64)


def coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """Share of the query's distinct words that stand in any of the fields (n,); NaN where all are empty."""
    return _weigh(overlaps, np.ones(len(overlaps[0].present)))


def weighted_coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """As `coverage`, each word weighing more the fewer of these n documents have it."""
    present = _anywhere(overlaps)
    n = present.shape[1]
    return _weigh(overlaps, np.log1p(n / (1.0 + present.sum(axis=1))))


def field_coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """Share of the fields' words that are the query's (n,); NaN where all are empty."""
    words = np.sum([o.words for o in overlaps], axis=0)
    matched = np.sum([o.matched for o in overlaps], axis=0)
    return _where_any(words, matched / np.maximum(words, 1))


def any_of(overlaps: Sequence[Overlap], flags: Sequence[Flags]) -> FloatColumn:
    """1 where the flag is set for any of the fields, else 0 (n,); NaN where all are empty."""
    words = np.sum([o.words for o in overlaps], axis=0)
    return _where_any(words, np.logical_or.reduce(flags).astype(np.float64))


def _anywhere(overlaps: Sequence[Overlap]) -> Flags:
    found: Flags = np.logical_or.reduce([o.present for o in overlaps])
    return found


def _weigh(overlaps: Sequence[Overlap], weights: FloatColumn) -> FloatColumn:
    words = np.sum([o.words for o in overlaps], axis=0)
    return _where_any(words, weights @ _anywhere(overlaps) / max(float(weights.sum()), 1e-12))


def _where_any(words: IntColumn, values: FloatColumn) -> FloatColumn:
    return np.where(words > 0, values, np.nan)
