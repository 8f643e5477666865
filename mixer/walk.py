"""The inner loops of a forest, compiled: values become small codes once, then every tree passes over the codes.

Coding features by the forest's own thresholds, passing tree by tree over many rows, and asking every node of a small
tree instead of following one path are the ideas of QuickScorer (Lucchese et al., SIGIR 2015), of its vector form
V-QuickScorer (Lucchese et al., SIGIR 2016) and of RapidScorer (Ye et al., KDD 2018). Those keep a bit for each leaf
and look for the first one left; `_sweep_one` and `_sweep_four` keep one small integer for each row, the first leaf
that it can still reach, so that the number of leaves is not bound to a machine word.

Nodes stand in preorder and leaves from left to right, so that no child is stored: a node over the leaves [low, high)
parts them at `middle`, its left child comes next and its right child `middle - low` places on.

The only sums of floats are those of the leaves, tree after tree; no loop may be compiled with `fastmath`, which would
let them be summed in another order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numba
import numpy as np

from backends.base import FloatColumn
from mixer.registers import VECTOR_BYTES, ask, keep, mark, unmarked, zeros

ZERO = float(np.float32(1e-35))
"""LightGBM takes any value this near to zero for zero."""

_CUT, _LOW, _MIDDLE = 0, 1, 2
_NO_CATEGORY = 1 << 40
_SMALL_SET_BYTES = 64
"""A set of categories up to this size, and up to a byte for each row, is coded a register at a time."""

log = logging.getLogger(__name__)

Array = np.ndarray[Any, Any]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


@cache
def _warn_uncached() -> None:
    log.warning(
        "compiled at each start: no folder for machine code can be written; NUMBA_CACHE_DIR may name one"
    )


def compiled(kernel: Kernel) -> Kernel:
    """Machine code, kept on disk unless no folder for it can be written."""
    try:
        return cast(Kernel, numba.njit(nogil=True, cache=True)(kernel))
    except RuntimeError:
        _warn_uncached()
        return cast(Kernel, numba.njit(nogil=True)(kernel))


@compiled
def _code(cuts: Array, start: int, end: int, value: float) -> int:
    """How many of the cuts [start, end) are below the value; without a branch that could be guessed wrong."""
    base, count = start, end - start
    while count > 1:
        half = count >> 1
        base += half if cuts[base + half - 1] < value else 0
        count -= half
    return base - start + (1 if cuts[base] < value else 0)


@compiled
def _code_numbers(matrix: Array, cuts: Array, numbers: Array, stand_ins: Array, codes: Array) -> None:
    for i in range(len(numbers) - 1):
        feature, cut, column = numbers[i, 0], numbers[i, 1], numbers[i, 2]
        cut_end, column_end = numbers[i + 1, 1], numbers[i + 1, 2]
        for row in range(len(matrix)):
            value = matrix[row, feature]
            plain = abs(value) > ZERO
            code = _code(cuts, cut, cut_end, value) if plain else 0
            for c in range(column, column_end):
                codes[c, row] = code if plain else stand_ins[c, 0 if np.isnan(value) else 1]


@compiled
def _category(value: float) -> int:
    """The category that LightGBM takes a value for; of what is none, one that is in no set."""
    return int(value) if -1.0 < value < 2.0**31 else _NO_CATEGORY


@compiled
def _outside(members: Array, start: int, end: int, category: int) -> int:
    """0 where the category is in the set, a bit for each, else 1."""
    place = start + (category >> 3)
    return 1 - ((members[place] >> (category & 7)) & 1) if place < end else 1


@compiled
def _find_categories(matrix: Array, feature: int, found: Array, bits: Array) -> None:
    """Each row's category, and its bit in the byte where a small set would have it."""
    bits[:] = 0
    for row in range(len(matrix)):
        category = _category(matrix[row, feature])
        found[row] = category
        if category < 8 * len(bits):
            bits[category >> 3, row] = 1 << (category & 7)


@compiled
def _code_categories(matrix: Array, categories: Array, members: Array, lanes: int, codes: Array) -> None:
    rows, width = len(matrix), codes.shape[1]
    found, bits = np.empty(rows, np.int64), np.empty((_SMALL_SET_BYTES, width), codes.dtype)
    known = -1
    for i in range(len(categories) - 1):
        feature, start, end = categories[i, 0], categories[i, 1], categories[i + 1, 1]
        if feature != known:
            known = feature
            _find_categories(matrix, feature, found, bits)
        if end - start > min(rows, _SMALL_SET_BYTES):
            for row in range(rows):
                codes[i, row] = _outside(members, start, end, found[row])
            continue
        for part in range(0, width, lanes):
            marks = zeros(codes)
            for place in range(end - start):
                marks = mark(marks, bits, np.intp(place * width + part), members[start + place])
            keep(unmarked(marks), codes, np.intp(i * width + part))


@compiled
def _sweep_one(columns: Array, steps: Array, start: int, end: int, codes: Array, at: Array) -> None:
    """The leaf of each row of one register."""
    a = zeros(codes)
    width = codes.shape[1]
    for n in range(start, end):
        offset = np.intp(columns[n]) * width
        a = ask(a, codes, offset, steps[n, _CUT], steps[n, _LOW], steps[n, _MIDDLE])
    keep(a, at, 0)


@compiled
def _sweep_four(columns: Array, steps: Array, start: int, end: int, codes: Array, at: Array) -> None:
    """The leaf of each row of four registers, which need not wait for each other."""
    a = b = c = d = zeros(codes)
    width = codes.shape[1]
    lanes = width >> 2
    for n in range(start, end):
        offset = np.intp(columns[n]) * width
        cut, low, middle = steps[n, _CUT], steps[n, _LOW], steps[n, _MIDDLE]
        a = ask(a, codes, offset, cut, low, middle)
        b = ask(b, codes, offset + lanes, cut, low, middle)
        c = ask(c, codes, offset + 2 * lanes, cut, low, middle)
        d = ask(d, codes, offset + 3 * lanes, cut, low, middle)
    keep(a, at, 0)
    keep(b, at, lanes)
    keep(c, at, 2 * lanes)
    keep(d, at, 3 * lanes)


@compiled
def _follow(
    values: Array, categories: Array, members: Array, numeric: int,
    columns: Array, steps: Array, start: int, size: int, codes: Array, row: int,
) -> int:  # fmt: skip
    """The leaf of one row, along its path; categories are looked up on the way, being too many to code for few rows."""
    n, low, high = start, 0, size
    while high - low > 1:
        middle: Any = np.intp(steps[n, _MIDDLE])
        column: Any = np.intp(columns[n])
        if column < numeric:
            right = codes[column, row] > steps[n, _CUT]
        else:
            i = column - numeric
            category = _category(values[categories[i, 0]])
            right = _outside(members, categories[i, 1], categories[i + 1, 1], category) > 0
        if right:
            n += middle - low
            low = middle
        else:
            n += 1
            high = middle
    return low


@compiled
def _add_trees(
    matrix: Array, categories: Array, members: Array, numeric: int,
    columns: Array, steps: Array, trees: Array, sweep_from: Array, leaves: Array, codes: Array, sums: Array,
) -> None:  # fmt: skip
    """Each tree's leaf onto each row's sum, tree after tree as LightGBM adds them."""
    rows, at = len(sums), np.empty(codes.shape[1], codes.dtype)
    for t in range(len(trees) - 1):
        leaf, size = trees[t], trees[t + 1] - trees[t]
        start = leaf - t
        if rows < sweep_from[t]:
            for row in range(rows):
                sums[row] += leaves[leaf + _follow(
                    matrix[row], categories, members, numeric, columns, steps, start, size, codes, row
                )]  # fmt: skip
            continue
        if codes.shape[1] * codes.itemsize == VECTOR_BYTES:
            _sweep_one(columns, steps, start, start + size - 1, codes, at)
        else:
            _sweep_four(columns, steps, start, start + size - 1, codes, at)
        for row in range(rows):
            sums[row] += leaves[leaf + np.intp(at[row])]


@compiled
def add_scores(
    matrix: FloatColumn, cuts: Array, numbers: Array, stand_ins: Array, categories: Array, members: Array,
    columns: Array, steps: Array, trees: Array, sweep_from: Array, leaves: Array, sums: FloatColumn,
) -> None:  # fmt: skip
    """Add the forest's leaves to `sums` (n,) for rows (n, f) of C order; the arrays are those of `forest.Forest`."""
    lanes, numeric, sets = VECTOR_BYTES // steps.itemsize, len(stand_ins), len(categories) - 1
    for first in range(0, len(matrix), 4 * lanes):
        part = matrix[first : first + 4 * lanes]
        rows = len(part)
        codes = np.empty((numeric + sets, lanes if rows <= lanes else 4 * lanes), steps.dtype)
        _code_numbers(part, cuts, numbers, stand_ins, codes)
        if np.any(sweep_from <= rows):
            _code_categories(part, categories, members, lanes, codes[numeric:])
        _add_trees(
            part, categories, members, numeric, columns, steps, trees, sweep_from, leaves, codes,
            sums[first : first + rows],
        )  # fmt: skip
