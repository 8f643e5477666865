"""The inner loops of a forest, compiled: values become small codes once, then every tree passes over the codes.

Coding features by the forest's own thresholds, passing tree by tree over many rows, and asking every node of a small
tree instead of following one path are the ideas of QuickScorer (Lucchese et al., SIGIR 2015), of its vector form
V-QuickScorer (Lucchese et al., SIGIR 2016) and of RapidScorer (Ye et al., KDD 2018). Those keep a bit for each leaf
and look for the first one left; `_sweep_one` and `_sweep_four` keep one small integer for each row, the first leaf
that it can still reach, so that the number of leaves is not bound to a machine word.

Nodes stand in preorder and leaves from left to right, so that no child is stored: a node over the leaves [low, high)
parts them at `middle`, its left child comes next and its right child `middle - low` places on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from backends.base import FloatColumn

ZERO = float(np.float32(1e-35))
"""LightGBM takes any value this near to zero for zero."""

VECTOR_BYTES = 64
"""Of a register of codes; a processor with narrower ones uses several."""

SWEEP_LEAVES_PER_ROW = 8
"""Leaves for each row up to which asking every node at once was measured to beat following each row's path."""

_CUT, _LOW, _MIDDLE = 0, 1, 2

Array = np.ndarray[Any, Any]
Kernel = TypeVar("Kernel", bound=Callable[..., Any])


_instruction: Callable[[Callable[..., Any]], Any] = numba.extending.intrinsic


def _compiled(kernel: Kernel) -> Kernel:
    """Machine code, kept on disk unless no folder for it can be written."""
    try:
        return cast(Kernel, numba.njit(nogil=True, cache=True)(kernel))
    except RuntimeError:
        return cast(Kernel, numba.njit(nogil=True)(kernel))


class _Lanes(types.Type):
    """A register of codes."""

    def __init__(self, lane: Any) -> None:
        super().__init__(f"Lanes({lane})")
        self.lane = lane


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: _Lanes) -> None:
        bits = lanes.lane.bitwidth
        vector = ir.VectorType(ir.IntType(bits), 8 * VECTOR_BYTES // bits)
        super().__init__(manager, lanes, vector)  # type: ignore[no-untyped-call]


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any, vector: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), vector.as_pointer())


def _spread(builder: Any, value: Any, vector: Any) -> Any:
    """One value in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, nothing, zeros)


@_instruction
def _first_leaf(_typing: Any, codes: Any) -> Any:
    """Every row before its first node."""
    lanes = _Lanes(codes.dtype)

    def generate(context: Any, _builder: Any, _signature: Any, _args: Any) -> Any:
        return ir.Constant(context.get_value_type(lanes), None)

    return lanes(codes), generate


@_instruction
def _ask(_typing: Any, at: Any, codes: Any, offset: Any, cut: Any, low: Any, middle: Any) -> Any:
    """One node asked of the rows whose codes stand at `offset`: those at `low` and over the cut go to `middle`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at, codes, offset, cut, low, middle = args
        source = _pointer(context, builder, signature.args[1], codes, offset, at.type)
        over = builder.icmp_unsigned(">", builder.load(source, align=1), _spread(builder, cut, at.type))
        here = builder.icmp_unsigned("==", at, _spread(builder, low, at.type))
        return builder.select(builder.and_(over, here), _spread(builder, middle, at.type), at)

    return at(at, codes, types.intp, codes.dtype, codes.dtype, codes.dtype), generate


@_instruction
def _keep(_typing: Any, at: Any, target: Any, offset: Any) -> Any:
    """Store a register."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        at, target, offset = args
        builder.store(at, _pointer(context, builder, signature.args[1], target, offset, at.type), align=1)
        return context.get_dummy_value()

    return types.void(at, target, types.intp), generate


@_compiled
def _code(cuts: Array, start: int, end: int, value: float) -> int:
    """How many of the cuts [start, end) are below the value; without a branch that could be guessed wrong."""
    base, count = start, end - start
    while count > 1:
        half = count >> 1
        base += half if cuts[base + half - 1] < value else 0
        count -= half
    return base - start + (1 if cuts[base] < value else 0)


@_compiled
def _code_numbers(
    matrix: Array, first: int, rows: int, cuts: Array, numbers: Array, stand_ins: Array, codes: Array
) -> None:
    for i in range(len(numbers) - 1):
        feature, cut, column = numbers[i, 0], numbers[i, 1], numbers[i, 2]
        cut_end, column_end = numbers[i + 1, 1], numbers[i + 1, 2]
        for row in range(rows):
            value = matrix[first + row, feature]
            plain = abs(value) > ZERO
            code = _code(cuts, cut, cut_end, value) if plain else 0
            for c in range(column, column_end):
                codes[c, row] = code if plain else stand_ins[c, 0 if np.isnan(value) else 1]


@_compiled
def _code_categories(
    matrix: Array, first: int, rows: int, categories: Array, words: Array, codes: Array
) -> None:
    for i in range(len(categories) - 1):
        feature, start = categories[i, 0], categories[i, 1]
        bits = 32.0 * (categories[i + 1, 1] - start)
        for row in range(rows):
            value = matrix[first + row, feature]
            codes[i, row] = 1
            if -1.0 < value < bits:
                category = int(value)
                codes[i, row] = 1 - ((words[start + (category >> 5)] >> (category & 31)) & 1)


@_compiled
def _sweep_one(
    columns: Array, steps: Array, start: int, end: int, width: int, codes: Array, at: Array
) -> None:
    """The leaf of each row of one register."""
    a = _first_leaf(codes)
    for n in range(start, end):
        offset = np.intp(columns[n]) * width
        a = _ask(a, codes, offset, steps[n, _CUT], steps[n, _LOW], steps[n, _MIDDLE])
    _keep(a, at, 0)


@_compiled
def _sweep_four(
    columns: Array, steps: Array, start: int, end: int, width: int, codes: Array, at: Array
) -> None:
    """The leaf of each row of four registers, which need not wait for each other."""
    a = b = c = d = _first_leaf(codes)
    lanes = width >> 2
    for n in range(start, end):
        offset = np.intp(columns[n]) * width
        cut, low, middle = steps[n, _CUT], steps[n, _LOW], steps[n, _MIDDLE]
        a = _ask(a, codes, offset, cut, low, middle)
        b = _ask(b, codes, offset + lanes, cut, low, middle)
        c = _ask(c, codes, offset + 2 * lanes, cut, low, middle)
        d = _ask(d, codes, offset + 3 * lanes, cut, low, middle)
    _keep(a, at, 0)
    _keep(b, at, lanes)
    _keep(c, at, 2 * lanes)
    _keep(d, at, 3 * lanes)


@_compiled
def _follow(columns: Array, steps: Array, start: int, size: int, width: int, codes: Array, row: int) -> int:
    """The leaf of one row, along its path."""
    n, low, high = start, 0, size
    while high - low > 1:
        middle: Any = np.intp(steps[n, _MIDDLE])
        if codes[np.intp(columns[n]) * width + row] > steps[n, _CUT]:
            n += middle - low
            low = middle
        else:
            n += 1
            high = middle
    return low


@_compiled
def _add_trees(
    columns: Array,
    steps: Array,
    trees: Array,
    leaves: Array,
    width: int,
    lanes: int,
    codes: Array,
    sums: Array,
) -> None:
    """Each tree's leaf onto each row's sum, tree after tree as LightGBM adds them."""
    rows, at = len(sums), np.empty(width, codes.dtype)
    for t in range(len(trees) - 1):
        leaf, size = trees[t], trees[t + 1] - trees[t]
        start = leaf - t
        if size > SWEEP_LEAVES_PER_ROW * min(rows, 64):
            for row in range(rows):
                sums[row] += leaves[leaf + _follow(columns, steps, start, size, width, codes, row)]
            continue
        if width == lanes:
            _sweep_one(columns, steps, start, start + size - 1, width, codes, at)
        else:
            _sweep_four(columns, steps, start, start + size - 1, width, codes, at)
        for row in range(rows):
            sums[row] += leaves[leaf + np.intp(at[row])]


@_compiled
def add_scores(
    matrix: FloatColumn,
    cuts: Array,
    numbers: Array,
    stand_ins: Array,
    categories: Array,
    words: Array,
    columns: Array,
    steps: Array,
    trees: Array,
    leaves: Array,
    sums: FloatColumn,
) -> None:
    """Add the forest's leaves to `sums` (n,) for rows (n, f) of C order; the arrays are those of `forest.Forest`."""
    lanes, numeric = VECTOR_BYTES // steps.itemsize, len(stand_ins)
    most = 4 * lanes
    for first in range(0, len(matrix), most):
        rows = min(most, len(matrix) - first)
        width = lanes if rows <= lanes else most
        codes = np.zeros((numeric + len(categories) - 1, width), steps.dtype)
        _code_numbers(matrix, first, rows, cuts, numbers, stand_ins, codes)
        _code_categories(matrix, first, rows, categories, words, codes[numeric:])
        _add_trees(columns, steps, trees, leaves, width, lanes, codes.ravel(), sums[first : first + rows])
