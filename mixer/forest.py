"""LightGBM forests scored many rows abreast: the same doubles as `Booster.predict(raw_score=True)`, bit for bit.

A forest is read from LightGBM's text into flat arrays; nothing is compiled for it. Every distinct question that its
nodes ask of a feature is a column of codes: for numbers the count of the feature's thresholds below the value, with
the codes of NaN and of zero put where that node's rule for missing values sends them; for categories 0 or 1. A node
is then one comparison, `code > cut` means right. Trees are summed, those of a random forest too: LightGBM averages
those for `predict`, not for its raw score. `mixer.walk` has the loops and the literature they come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from math import ceil

import lightgbm
import numpy as np

from backends.base import FloatColumn
from mixer import walk
from mixer.trees import Order, Tree, Unsupported, order, read
from mixer.walk import Array

_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2
_NARROW, _WIDE = 1 << 8, 1 << 16

SWEEP_LEAVES = 2.0
"""Leaves, for each row and each level of a tree's mean depth, up to which asking every node at once was measured to
beat following each row's path; for up to 64 rows, beyond which both take longer alike."""
_SWEEP_ROWS, _NEVER = 64, 1 << 62

Question = tuple[int, tuple[int, int] | bytes]
"""A feature, and either its codes of NaN and of zero, or the set of categories that go left."""


@dataclass(frozen=True, slots=True)
class Forest:
    """A forest in flat arrays; safe to score from several threads at once."""

    width: int
    """Features of a row."""
    cuts: Array
    """Thresholds (float64), distinct and ascending by feature."""
    numbers: Array
    """(k + 1, 3): feature, its first cut, its first column; the last row closes the one before."""
    stand_ins: Array
    """(numeric columns, 2): the codes of NaN and of zero."""
    categories: Array
    """(categorical columns + 1, 2): feature, its first byte."""
    members: Array
    """Sets of categories, a bit for each."""
    columns: Array
    """Of each node, in preorder."""
    steps: Array
    """(nodes, 3): cut, first leaf, middle leaf."""
    trees: Array
    """(trees + 1,): first leaf."""
    sweep_from: Array
    """(trees,): rows from which asking every node of the tree was measured to beat following each row's path."""
    leaves: FloatColumn

    @classmethod
    def compile(cls, model: lightgbm.Booster | str, num_iteration: int | None = None) -> Forest:
        """Read a booster, or a model file's text whole; of a booster the iterations that `predict` would use.

        Raises: Unsupported.
        """
        if isinstance(model, str):
            return _forest(model)
        return _forest(model.model_to_string(num_iteration=num_iteration))

    def score(self, matrix: FloatColumn) -> FloatColumn:
        """Raw scores (n,) of rows (n, f), on the calling thread, without the GIL. Raises: ValueError."""
        if matrix.ndim != 2 or matrix.shape[1] != self.width:
            raise ValueError(f"rows of {self.width} features are wanted, not an array of {matrix.shape}")
        # One memory layout: for any other, numba would compile the loops again.
        rows = np.array(matrix, np.float64, order="C")
        sums = np.zeros(len(rows))
        walk.add_scores(
            rows, self.cuts, self.numbers, self.stand_ins, self.categories, self.members,
            self.columns, self.steps, self.trees, self.sweep_from, self.leaves, sums,
        )  # fmt: skip
        return sums

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))


def warm() -> None:
    """Compile the loops, or load them compiled; seconds the first time on a machine."""
    leaves = np.zeros(2)
    small = Tree(leaves, [0], [0], [0.0], [-1], [-2], [])
    large = Tree(np.zeros(_NARROW + 1), [0] * _NARROW, [0] * _NARROW, [0.0] * _NARROW, *_chain(_NARROW), [])
    for tree in (small, large):
        _flat([tree], 1).score(np.zeros((1, 1)))


def _chain(nodes: int) -> tuple[list[int], list[int]]:
    """Children of nodes each of which has a leaf on the left."""
    return [~node for node in range(nodes)], [*range(1, nodes), ~nodes]


def _forest(text: str) -> Forest:
    try:
        width, trees = read(text)
        return _flat(trees, width)
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        raise Unsupported("format", f"the model's text is not as expected: {error!r}") from error


class _Cuts:
    """The distinct thresholds of each feature."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        found: dict[int, set[float]] = {}
        for tree in trees:
            for feature, decision, threshold in zip(
                tree.features, tree.decisions, tree.thresholds, strict=True
            ):
                if not decision & _CATEGORICAL:
                    found.setdefault(feature, set()).add(threshold)
        self.sorted = {feature: sorted(found[feature]) for feature in sorted(found)}
        self._places = {
            feature: {threshold: place for place, threshold in enumerate(cuts)}
            for feature, cuts in self.sorted.items()
        }
        self._zeros = {feature: sum(cut < 0 for cut in cuts) for feature, cuts in self.sorted.items()}

    def question(self, tree: Tree, node: int) -> Question:
        """What the node asks."""
        feature, decision = tree.features[node], tree.decisions[node]
        if decision & _CATEGORICAL:
            return feature, tree.category_sets[int(tree.thresholds[node])]
        default = 0 if decision & _DEFAULT_LEFT else len(self.sorted[feature])
        zero, missing = self._zeros[feature], decision >> _MISSING_SHIFT
        if missing == _MISSING_ZERO:
            return feature, (default, default)
        return feature, (default if missing == _MISSING_NAN else zero, zero)

    def place(self, tree: Tree, node: int) -> int:
        """The cut that a code must exceed to go right."""
        if tree.decisions[node] & _CATEGORICAL:
            return 0
        return self._places[tree.features[node]][tree.thresholds[node]]


def _flat(trees: Sequence[Tree], width: int) -> Forest:
    cuts = _Cuts(trees)
    orders = [order(tree) for tree in trees]
    walked = list(zip(trees, orders, strict=True))
    asked = [cuts.question(tree, node) for tree, found in walked for node, _, _ in found.nodes]
    numeric = sorted({(f, codes) for f, codes in asked if isinstance(codes, tuple)})
    sets = sorted({(f, members) for f, members in asked if isinstance(members, bytes)})
    places = {question: place for place, question in enumerate((*numeric, *sets))}
    lane = _lane(len(places), cuts, trees, width)
    return Forest(
        width=width,
        cuts=np.array([cut for found in cuts.sorted.values() for cut in found], np.float64),
        numbers=_numbers(cuts, numeric),
        stand_ins=np.array([codes for _, codes in numeric], np.uint16).reshape(-1, 2),
        categories=_categories(sets),
        members=np.frombuffer(b"".join(members for _, members in sets), np.uint8).copy(),
        columns=np.array([places[question] for question in asked], np.uint16),
        steps=np.array(list(_steps(walked, cuts)), lane).reshape(-1, 3),
        trees=np.array([0, *accumulate(len(tree.leaves) for tree in trees)], np.int64),
        sweep_from=np.array([_sweep_from(found) for found in orders], np.int64),
        leaves=np.concatenate([np.empty(0), *(tree.leaves[found.leaves] for tree, found in walked)]),
    )


def _lane(columns: int, cuts: _Cuts, trees: Sequence[Tree], width: int) -> type[np.uint8 | np.uint16]:
    """The narrowest integer that holds every code and every leaf's number."""
    features = [feature for tree in trees for feature in tree.features]
    if features and not 0 <= min(features) <= max(features) < width:
        raise ValueError("a node asks for a feature that is not there")
    codes = max((len(found) + 1 for found in cuts.sorted.values()), default=0)
    most = max(codes, *(len(tree.leaves) for tree in trees), 0)
    if max(most, columns) > _WIDE:
        raise Unsupported("size", f"{most} leaves or thresholds, or {columns} questions: over {_WIDE}")
    return np.uint8 if most <= _NARROW else np.uint16


def _steps(walked: Sequence[tuple[Tree, Order]], cuts: _Cuts) -> Iterator[tuple[int, int, int]]:
    for tree, found in walked:
        for node, low, middle in found.nodes:
            yield cuts.place(tree, node), low, middle


def _sweep_from(found: Order) -> int:
    rows = ceil(len(found.leaves) / (SWEEP_LEAVES * max(found.depth, 1.0)))
    return max(2, rows) if rows <= _SWEEP_ROWS else _NEVER


def _numbers(cuts: _Cuts, numeric: Sequence[Question]) -> Array:
    first: dict[int, int] = {}
    for column, (feature, _) in enumerate(numeric):
        first.setdefault(feature, column)
    starts = accumulate((len(found) for found in cuts.sorted.values()), initial=0)
    rows = [(feature, start, first[feature]) for feature, start in zip(cuts.sorted, starts, strict=False)]
    return np.array([*rows, (0, sum(map(len, cuts.sorted.values())), len(numeric))], np.int64)


def _categories(sets: Sequence[tuple[int, bytes]]) -> Array:
    starts = [0, *accumulate(len(members) for _, members in sets)]
    return np.array([*zip((f for f, _ in sets), starts, strict=False), (0, starts[-1])], np.int32)
