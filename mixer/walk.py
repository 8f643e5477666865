"""The forest's inner loops, compiled: values to small codes once, then every tree on codes, many rows abreast.

Coding features by the forest's own thresholds, going tree by tree over many rows, and testing every node of a small
tree rather than following one path, are the ideas of QuickScorer (Lucchese et al., SIGIR 2015), of its vector form
V-QuickScorer (Lucchese et al., SIGIR 2016) and of RapidScorer (Ye et al., KDD 2018). Where those keep a bit a leaf
and look for the first that is left, `_sweep` keeps one small integer a row, the first leaf that can still be reached.

Nodes stand in preorder, leaves from left to right. A node that covers leaves [low, high) parts them at `middle`; its
left subtree has middle - low - 1 nodes, which puts its right child middle - low places on. No child is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np

from backends.base import FloatColumn

ZERO = float(np.float32(1e-35))
"""LightGBM takes any value this close to zero for zero."""

LANES = 32
"""Rows are coded in multiples of this many, which compilers turn into vector instructions."""
BLOCK = 256
"""Rows scored at once: their codes stay in the nearest cache while all trees pass over them."""
COLUMN, CUT, LOW, MIDDLE = 0, 1, 2, 3
"""The fields of a node."""
_SWEEP_PER_WALK = 6.0
"""..."""

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def _compiled(kernel: Kernel) -> Kernel:
    """Machine code, kept on disk where any place for it can be written."""
    try:
        made: Kernel = numba.njit(nogil=True, cache=True)(kernel)
    except RuntimeError:
        made = numba.njit(nogil=True)(kernel)
    return made


@_compiled
def _place(cuts, start, end, value):
    base, count = start, end - start
    while count > 1:
        half = count >> 1
        base += half if cuts[base + half - 1] < value else 0
        count -= half
    return base - start + (1 if cuts[base] < value else 0)


@_compiled
def _code_numbers(matrix, first, rows, cuts, numbers, stand_ins, codes):
    for i in range(len(numbers) - 1):
        feature, cut, column = numbers[i, 0], numbers[i, 1], numbers[i, 2]
        cut_end, column_end = numbers[i + 1, 1], numbers[i + 1, 2]
        for row in range(rows):
            value = matrix[first + row, feature]
            if np.isnan(value):
                for c in range(column, column_end):
                    codes[c, row] = stand_ins[c, 0]
            elif abs(value) <= ZERO:
                for c in range(column, column_end):
                    codes[c, row] = stand_ins[c, 1]
            else:
                code = _place(cuts, cut, cut_end, value)
                for c in range(column, column_end):
                    codes[c, row] = code


@_compiled
def _code_categories(matrix, first, rows, categories, words, column, codes):
    for i in range(len(categories) - 1):
        feature, start, size = categories[i, 0], categories[i, 1], categories[i + 1, 1] - categories[i, 1]
        for row in range(rows):
            value = matrix[first + row, feature]
            right = 1
            if -1.0 < value < 32.0 * size:
                category = int(value)
                right = 1 - ((words[start + (category >> 5)] >> (category & 31)) & 1)
            codes[column + i, row] = right


@_compiled
def _sweep(nodes, start, end, width, codes, at):
    at[:width] = 0
    for n in range(start, end):
        column = nodes[n, COLUMN]
        cut = codes.dtype.type(nodes[n, CUT])
        low = codes.dtype.type(nodes[n, LOW])
        middle = codes.dtype.type(nodes[n, MIDDLE])
        for g in range(0, width, LANES):
            for j in range(g, g + LANES):
                at[j] = middle if (codes[column, j] > cut) & (at[j] == low) else at[j]


@_compiled
def _walk(nodes, start, leaves, row, codes):
    n, low, high = start, 0, leaves
    while high - low > 1:
        middle = np.int64(nodes[n, MIDDLE])
        if codes[nodes[n, COLUMN], row] > nodes[n, CUT]:
            n += middle - low
            low = middle
        else:
            n += 1
            high = middle
    return low


@_compiled
def score(matrix, cuts, numbers, stand_ins, categories, words, nodes, trees, leaves, lane, ratio, out):
    block = min(BLOCK, -(-len(matrix) // LANES) * LANES)
    numeric = len(stand_ins)
    codes = np.zeros((numeric + len(categories) - 1, block), lane.dtype)
    at = np.empty(block, lane.dtype)
    for first in range(0, len(matrix), BLOCK):
        rows = min(BLOCK, len(matrix) - first)
        width = -(-rows // LANES) * LANES
        _code_numbers(matrix, first, rows, cuts, numbers, stand_ins, codes)
        _code_categories(matrix, first, rows, categories, words, numeric, codes)
        for t in range(len(trees) - 1):
            leaf, size = trees[t], trees[t + 1] - trees[t]
            if size * width < rows * ratio:
                _sweep(nodes, leaf - t, leaf - t + size - 1, width, codes, at)
                for row in range(rows):
                    out[first + row] += leaves[leaf + at[row]]
            else:
                for row in range(rows):
                    out[first + row] += leaves[leaf + _walk(nodes, leaf - t, size, row, codes)]
