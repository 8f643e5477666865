"""Words of many texts at once, as numbers, and how they meet the words of a query.

Texts are joined into one byte buffer; every word gets the 64-bit polynomial hash of its bytes, read off prefix sums
(Karp and Rabin, "Efficient randomized pattern-matching algorithms", 1987), so no step touches one text at a time.
Words are runs of letters and digits, without case, accents, apostrophes and a plural's s.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process

from backends.base import FloatColumn
from mixer.values import IntColumn

Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

MAX_QUERY_WORDS = 64
_BASE = 0x9E3779B97F4A7C15
_SEPARATOR = "\0"
_ACCENTS = re.compile("[\u0300-\u036f]+")
_MARKS = "".join(c for c in map(chr, range(0x370, 0x10000)) if unicodedata.category(c)[0] == "M")
"""Signs that belong to the letter before them, as vowels do in Hindi."""
_NOT_WORD = re.compile(f"[^\\w{_SEPARATOR}{_MARKS}]|_")
_APOSTROPHES = "'’"
_ASCII = bytes(c if c > 127 or chr(c).isalnum() or c == 0 else 32 for c in range(256))
_PLURAL = ord("s")
_PLURAL_FROM = 4
"""Letters that a word has at least where a last s is taken off."""


class Words:
    """The words of n texts in reading order."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Reads n texts."""
        joined = _SEPARATOR.join(texts)
        if joined.count(_SEPARATOR) != max(len(texts) - 1, 0):
            joined = _SEPARATOR.join(text.replace(_SEPARATOR, " ") for text in texts)
        self.texts = len(texts)
        self.folded = _fold(joined)
        """The texts without case, accents and punctuation, joined."""
        data = np.frombuffer(self.folded.encode("utf-8", "surrogatepass"), np.uint8)
        letter = np.zeros(len(data) + 2, np.int8)
        letter[1:-1] = (data != 32) & (data != 0)
        edges = np.diff(letter)
        self._starts, self._ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        self._sums = _prefix_sums(data.astype(np.uint64))
        self.hashes = _hash(self._sums, self._starts, self._ends - _plurals(data, self._starts, self._ends))
        """(w,) one number a word."""
        self.rows = np.searchsorted(np.flatnonzero(data == 0), self._starts)
        """(w,) the text that each word stands in."""

    @cached_property
    def counts(self) -> IntColumn:
        """Words of each text (n,)."""
        return np.bincount(self.rows, minlength=self.texts)

    @cached_property
    def pairs(self) -> tuple[Hashes, IntColumn]:
        """One number for every two neighbors (p,), and the text they stand in (p,)."""
        together = np.flatnonzero(self.rows[1:] == self.rows[:-1])
        return _pair_hashes(self.hashes, together), self.rows[together]

    @cached_property
    def whole(self) -> Hashes:
        """One number for each text's words in their order (n,)."""
        ends = np.cumsum(self.counts)
        return _hash(_prefix_sums(self.hashes), ends - self.counts, ends)

    def starting_with(self, prefix: bytes) -> Flags:
        """Which words begin with these bytes (w,); none does with no bytes."""
        long_enough = (self._ends - self._starts >= len(prefix)) & bool(prefix)
        flags = np.zeros(len(self._starts), bool)
        at = self._starts[long_enough]
        flags[long_enough] = _hash(self._sums, at, at + len(prefix)) == _hash_of(prefix)
        return flags

    def any_by_text(self, flags: Flags) -> Flags:
        """The texts (n,) in which a word's flag (w,) is set."""
        found = np.zeros(self.texts, bool)
        found[self.rows[flags]] = True
        return found

    def share_of(self, text: int) -> FloatColumn:
        """Share of one text's distinct words that each text has (n,); NaN where either has none."""
        wanted = np.unique(self.hashes[self.rows == text])
        if not len(wanted):
            return np.full(self.texts, np.nan)
        present = _present(wanted, self.hashes, self.rows, self.texts)
        return _where_any(self.counts, present.sum(axis=0) / len(wanted))


class QueryWords:
    """A query's words, ready to be looked for; those beyond MAX_QUERY_WORDS are left out."""

    def __init__(self, query: str) -> None:
        """Takes the query as typed."""
        self.words = _fold(query.replace(_SEPARATOR, " ")).split()[:MAX_QUERY_WORDS]
        self.folded = " ".join(self.words)
        read = Words([self.folded])
        self.hashes = read.hashes
        self.distinct = np.unique(self.hashes)
        self.pairs = np.unique(read.pairs[0])
        self.last = self.words[-1].encode("utf-8", "surrogatepass") if self.words else b""

    @cached_property
    def runs(self) -> Hashes:
        """One number for every run of the query's words, of whatever length."""
        sums, size = _prefix_sums(self.hashes), len(self.hashes)
        starts, ends = np.triu_indices(size + 1, 1) if size else (np.empty(0, np.intp), np.empty(0, np.intp))
        return _hash(sums, starts, ends)

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
        return _present(self._query.distinct, self.text.hashes, self.text.rows, self.text.texts)

    @cached_property
    def matched(self) -> IntColumn:
        """Words of each text that are the query's (n,)."""
        return _count(self._query.distinct, self.text.hashes, self.text.rows, self.text.texts)

    @cached_property
    def pairs(self) -> Flags:
        """(p, n): which of the query's distinct pairs of neighbors stand so in each text."""
        return _present(self._query.pairs, *self.text.pairs, self.text.texts)

    @cached_property
    def matched_pairs(self) -> IntColumn:
        """Pairs of neighbors of each text that are the query's (n,)."""
        return _count(self._query.pairs, *self.text.pairs, self.text.texts)

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
        texts = self.text.folded.replace(" ", "").split(_SEPARATOR)
        return self._alike(fuzz.partial_ratio, self._query.folded.replace(" ", ""), texts)

    @property
    def _texts(self) -> list[str]:
        return self.text.folded.split(_SEPARATOR)

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
    return _where_any(_words_of(overlaps), found.sum(axis=0) / max(len(found), 1))


def field_coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """Share of the fields' words that are the query's (n,); NaN where all are empty."""
    words = _words_of(overlaps)
    return _where_any(words, np.sum([o.matched for o in overlaps], axis=0) / np.maximum(words, 1))


def field_pair_coverage(overlaps: Sequence[Overlap]) -> FloatColumn:
    """Share of the fields' pairs of neighbors that are the query's (n,); NaN where all are empty."""
    pairs = np.sum([np.maximum(o.words - 1, 0) for o in overlaps], axis=0)
    matched = np.sum([o.matched_pairs for o in overlaps], axis=0)
    return _where_any(_words_of(overlaps), matched / np.maximum(pairs, 1))


def any_of(overlaps: Sequence[Overlap], flags: Sequence[Flags]) -> FloatColumn:
    """1 where the flag is set for any of the fields, else 0 (n,); NaN where all are empty."""
    return _where_any(_words_of(overlaps), np.logical_or.reduce(flags).astype(np.float64))


def greatest(overlaps: Sequence[Overlap], columns: Sequence[FloatColumn]) -> FloatColumn:
    """The greatest value among the fields (n,); NaN where all are empty."""
    return _where_any(_words_of(overlaps), np.max(columns, axis=0))


def _words_of(overlaps: Sequence[Overlap]) -> IntColumn:
    words: IntColumn = np.sum([o.words for o in overlaps], axis=0)
    return words


def _anywhere(overlaps: Sequence[Overlap]) -> Flags:
    found: Flags = np.logical_or.reduce([o.present for o in overlaps])
    return found


def _weigh(overlaps: Sequence[Overlap], weights: FloatColumn) -> FloatColumn:
    return _where_any(_words_of(overlaps), weights @ _anywhere(overlaps) / max(float(weights.sum()), 1e-12))


def _where_any(words: IntColumn, values: FloatColumn) -> FloatColumn:
    return np.where(words > 0, values, np.nan)


def _fold(text: str) -> str:
    """Lower case without accents and apostrophes; all but letters, digits and separators becomes a blank."""
    if text.isascii():
        return text.lower().encode().translate(_ASCII, b"'").decode()
    lowered = unicodedata.normalize("NFKD", text).lower()
    for apostrophe in _APOSTROPHES:
        lowered = lowered.replace(apostrophe, "")
    return _NOT_WORD.sub(" ", _ACCENTS.sub("", lowered))


def _plurals(data: NDArray[np.uint8], starts: IntColumn, ends: IntColumn) -> IntColumn:
    """1 for words whose last s says no more than that there are many, else 0."""
    long = np.flatnonzero(ends - starts >= _PLURAL_FROM)
    last = ends[long] - 1
    plural = np.zeros(len(starts), np.intp)
    plural[long] = (data[last] == _PLURAL) & (data[last - 1] != _PLURAL)
    return plural


def _lookup(wanted: Hashes, hashes: Hashes) -> tuple[Flags, IntColumn]:
    """Which numbers are wanted, and the place of each of those among the (sorted) wanted."""
    place = np.minimum(np.searchsorted(wanted, hashes), max(len(wanted) - 1, 0))
    hit = wanted[place] == hashes if len(wanted) else np.zeros(len(hashes), bool)
    return hit, place[hit]


def _present(wanted: Hashes, hashes: Hashes, rows: IntColumn, texts: int) -> Flags:
    """(wanted, texts): which of the (sorted) wanted numbers each text has."""
    hit, place = _lookup(wanted, hashes)
    present = np.zeros((len(wanted), texts), bool)
    present[place, rows[hit]] = True
    return present


def _count(wanted: Hashes, hashes: Hashes, rows: IntColumn, texts: int) -> IntColumn:
    hit, _ = _lookup(wanted, hashes)
    return np.bincount(rows[hit], minlength=texts)


def _prefix_sums(values: Hashes) -> Hashes:
    """Sums of the values times the powers of the base, with a 0 before the first."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(_capacity(len(values)))[0][: len(values)], out=sums[1:])
    return sums


def _hash(sums: Hashes, starts: IntColumn, ends: IntColumn) -> Hashes:
    """The hash of every slice, whatever its place in the buffer."""
    hashes: Hashes = (sums[ends] - sums[starts]) * _powers(_capacity(len(sums)))[1][starts]
    return hashes


def _hash_of(word: bytes) -> np.uint64:
    return np.uint64(_prefix_sums(np.frombuffer(word, np.uint8).astype(np.uint64))[-1])


def _pair_hashes(hashes: Hashes, at: IntColumn) -> Hashes:
    pairs: Hashes = hashes[at] * np.uint64(_BASE) + hashes[at + 1]
    return pairs


def _capacity(size: int) -> int:
    return int(max(1 << 16, 1 << (max(size, 1) - 1).bit_length()))


@lru_cache(maxsize=8)
def _powers(size: int) -> tuple[Hashes, Hashes]:
    """Powers of the base and of its inverse, modulo 2**64; the base is odd, so the inverse exists."""
    return _power_table(_BASE, size), _power_table(pow(_BASE, -1, 1 << 64), size)


def _power_table(base: int, size: int) -> Hashes:
    table = np.full(size, base, np.uint64)
    table[0] = 1
    return np.cumprod(table, dtype=np.uint64)
