"""Words of many texts at once, as numbers.

Texts are joined into one byte buffer; every word gets the 64-bit polynomial hash of its bytes, read off prefix sums
(Karp and Rabin, "Efficient randomized pattern-matching algorithms", 1987), so no step touches one text at a time.
Words are runs of letters and digits, without case, accents, apostrophes and a plural's s.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn
from mixer.values import IntColumn

Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

MAX_TEXT_CHARS = 2000
"""Read of one text: what a request costs stays bounded whatever the documents hold."""
_BASE = 0x9E3779B97F4A7C15
SEPARATOR = "\0"
_ACCENTS = re.compile("[\u0300-\u036f]+")
_MARKS = "".join(c for c in map(chr, range(0x370, 0x10000)) if unicodedata.category(c)[0] == "M")
"""Signs that belong to the letter before them, as vowels do in Hindi."""
_NOT_WORD = re.compile(f"[^\\w{SEPARATOR}{_MARKS}]|_")
_APOSTROPHES = "'’"
_ASCII = bytes(c if c > 127 or chr(c).isalnum() or c == 0 else 32 for c in range(256))
_PLURAL = ord("s")
_PLURAL_FROM = 4
"""Letters that a word has at least where a last s is taken off."""


class Words:
    """The words of n texts in reading order."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Reads n texts, of each its first MAX_TEXT_CHARS."""
        if max(map(len, texts), default=0) > MAX_TEXT_CHARS:
            texts = [text[:MAX_TEXT_CHARS] for text in texts]
        joined = SEPARATOR.join(texts)
        if joined.count(SEPARATOR) != max(len(texts) - 1, 0):
            joined = SEPARATOR.join(text.replace(SEPARATOR, " ") for text in texts)
        self.texts = len(texts)
        self.folded = fold(joined)
        """The texts without case, accents and punctuation, joined."""
        data = np.frombuffer(self.folded.encode("utf-8", "surrogatepass"), np.uint8)
        letter = np.zeros(len(data) + 2, np.int8)
        letter[1:-1] = (data != 32) & (data != 0)
        edges = np.diff(letter)
        self._starts, self._ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        self._sums = prefix_sums(data.astype(np.uint64))
        self.hashes = slice_hashes(
            self._sums, self._starts, self._ends - _plurals(data, self._starts, self._ends)
        )
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
        return slice_hashes(prefix_sums(self.hashes), ends - self.counts, ends)

    def starting_with(self, prefix: bytes) -> Flags:
        """Which words begin with these bytes (w,); none does with no bytes."""
        long_enough = (self._ends - self._starts >= len(prefix)) & bool(prefix)
        flags = np.zeros(len(self._starts), bool)
        at = self._starts[long_enough]
        flags[long_enough] = slice_hashes(self._sums, at, at + len(prefix)) == _hash_of(prefix)
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
        present = present_in(wanted, self.hashes, self.rows, self.texts)
        return where_any(self.counts, present.sum(axis=0) / len(wanted))


def where_any(words: IntColumn, values: FloatColumn) -> FloatColumn:
    """The values of texts that have words (n,); NaN for the others."""
    return np.where(words > 0, values, np.nan)


def fold(text: str) -> str:
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


def present_in(wanted: Hashes, hashes: Hashes, rows: IntColumn, texts: int) -> Flags:
    """(wanted, texts): which of the (sorted) wanted numbers each text has."""
    hit, place = _lookup(wanted, hashes)
    present = np.zeros((len(wanted), texts), bool)
    present[place, rows[hit]] = True
    return present


def count_in(wanted: Hashes, hashes: Hashes, rows: IntColumn, texts: int) -> IntColumn:
    """How many of each text's numbers are among the (sorted) wanted (texts,)."""
    hit, _ = _lookup(wanted, hashes)
    return np.bincount(rows[hit], minlength=texts)


def prefix_sums(values: Hashes) -> Hashes:
    """Sums of the values times the powers of the base, with a 0 before the first."""
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * _powers(_capacity(len(values)))[0][: len(values)], out=sums[1:])
    return sums


def slice_hashes(sums: Hashes, starts: IntColumn, ends: IntColumn) -> Hashes:
    """The hash of every slice, whatever its place in the buffer."""
    hashes: Hashes = (sums[ends] - sums[starts]) * _powers(_capacity(len(sums)))[1][starts]
    return hashes


def _hash_of(word: bytes) -> np.uint64:
    return np.uint64(prefix_sums(np.frombuffer(word, np.uint8).astype(np.uint64))[-1])


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
