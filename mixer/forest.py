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
from itertools import accumulate, pairwise

import lightgbm
import numpy as np

from backends.base import FloatColumn
from mixer import walk
from mixer.walk import Array

_CATEGORICAL, _DEFAULT_LEFT, _MISSING_SHIFT = 1, 2, 2
_MISSING_ZERO, _MISSING_NAN = 1, 2
_NARROW, _WIDE = 1 << 8, 1 << 16

Question = tuple[int, tuple[int, int] | bytes]
"""A feature, and either its codes of NaN and of zero, or the set of categories that go left."""


class Unsupported(Exception):
    """A forest left to LightGBM; `reason` is one of linear_tree, several_outputs, size, format."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree as LightGBM writes it: nodes from 0, a child below 0 being the leaf `~child`."""

    leaves: FloatColumn
    features: Sequence[int]
    decisions: Sequence[int]
    thresholds: Sequence[float]
    left: Sequence[int]
    right: Sequence[int]
    category_sets: Sequence[bytes]


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
    """(categorical columns + 1, 2): feature, its first word."""
    words: Array
    """Sets of categories, 32 bits a word."""
    columns: Array
    """Of each node, in preorder."""
    steps: Array
    """(nodes, 3): cut, first leaf, middle leaf."""
    trees: Array
    """(trees + 1,): first leaf."""
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
        rows = np.require(matrix, np.float64, ["C", "A", "W"])
        sums = np.zeros(len(rows))
        walk.add_scores(
            rows, self.cuts, self.numbers, self.stand_ins, self.categories, self.words,
            self.columns, self.steps, self.trees, self.leaves, sums,
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
        head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
        header = _pairs(head)
        if header["num_tree_per_iteration"] != "1":
            raise Unsupported("several_outputs", f"{header['num_tree_per_iteration']} outputs a row")
        trees = [_tree(_pairs(block)) for block in blocks]
        return _flat(trees, int(header["max_feature_idx"]) + 1)
    except (KeyError, IndexError, ValueError) as error:
        raise Unsupported("format", f"the model's text is not as expected: {error!r}") from error


def _pairs(block: str) -> dict[str, str]:
    return {key: value for key, _, value in (line.partition("=") for line in block.splitlines())}


def _tree(pairs: dict[str, str]) -> Tree:
    if pairs.get("is_linear", "0") != "0":
        raise Unsupported("linear_tree", "leaves hold linear models")
    leaves = np.array(pairs["leaf_value"].split(), np.float64)
    if len(leaves) != int(pairs["num_leaves"]):
        raise ValueError("leaves are missing")
    if len(leaves) == 1:
        return Tree(leaves, [], [], [], [], [], [])
    features, decisions, left, right = (
        [int(value) for value in pairs[key].split()]
        for key in ("split_feature", "decision_type", "left_child", "right_child")
    )
    thresholds = [float(value) for value in pairs["threshold"].split()]
    return Tree(leaves, features, decisions, thresholds, left, right, _category_sets(pairs))


def _category_sets(pairs: dict[str, str]) -> list[bytes]:
    if pairs["num_cat"] == "0":
        return []
    bounds = [int(value) for value in pairs["cat_boundaries"].split()]
    words = np.array(pairs["cat_threshold"].split(), np.uint32)
    return [words[start:end].tobytes() for start, end in pairwise(bounds)]


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


def _preorder(tree: Tree) -> tuple[list[tuple[int, int, int]], list[int]]:
    """The nodes (node, first leaf, middle leaf) in preorder, and the leaves from left to right."""
    nodes: list[tuple[int, int, int]] = []
    leaves: list[int] = []
    left_of: list[tuple[int, int]] = []
    child = 0 if tree.features else -1
    while True:
        if child >= 0:
            if len(nodes) >= len(tree.features):
                raise ValueError("a node has two parents")
            left_of.append((child, len(nodes)))
            nodes.append((child, len(leaves), 0))
            child = tree.left[child]
            continue
        leaves.append(~child)
        if not left_of:
            break
        node, place = left_of.pop()
        nodes[place] = (node, nodes[place][1], len(leaves))
        child = tree.right[node]
    if sorted(leaves) != list(range(len(tree.leaves))):
        raise ValueError("a leaf is not in its tree once")
    return nodes, leaves


def _flat(trees: Sequence[Tree], width: int) -> Forest:
    cuts = _Cuts(trees)
    orders = [_preorder(tree) for tree in trees]
    asked = [
        cuts.question(tree, n) for tree, (nodes, _) in zip(trees, orders, strict=True) for n, _, _ in nodes
    ]
    numeric = sorted({(f, codes) for f, codes in asked if isinstance(codes, tuple)})
    sets = sorted({(f, members) for f, members in asked if isinstance(members, bytes)})
    steps = list(_steps(trees, orders, cuts))
    places = {question: place for place, question in enumerate((*numeric, *sets))}
    lane = _lane(len(places), cuts, trees, width)
    return Forest(
        width=width,
        cuts=np.array([cut for found in cuts.sorted.values() for cut in found], np.float64),
        numbers=_numbers(cuts, numeric),
        stand_ins=np.array([codes for _, codes in numeric], np.uint16).reshape(-1, 2),
        categories=_categories(sets),
        words=np.frombuffer(b"".join(members for _, members in sets), np.uint32).copy(),
        columns=np.array([places[question] for question in asked], np.uint16),
        steps=np.array(steps, lane).reshape(-1, 3),
        trees=np.array([0, *accumulate(len(tree.leaves) for tree in trees)], np.int64),
        leaves=np.concatenate(
            [np.empty(0), *(t.leaves[order] for t, (_, order) in zip(trees, orders, strict=True))]
        ),
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


def _steps(
    trees: Sequence[Tree], orders: Sequence[tuple[list[tuple[int, int, int]], list[int]]], cuts: _Cuts
) -> Iterator[tuple[int, int, int]]:
    for tree, (nodes, _) in zip(trees, orders, strict=True):
        for node, low, middle in nodes:
            yield cuts.place(tree, node), low, middle


def _numbers(cuts: _Cuts, numeric: Sequence[Question]) -> Array:
    first: dict[int, int] = {}
    for column, (feature, _) in enumerate(numeric):
        first.setdefault(feature, column)
    starts = accumulate((len(found) for found in cuts.sorted.values()), initial=0)
    rows = [(feature, start, first[feature]) for feature, start in zip(cuts.sorted, starts, strict=False)]
    return np.array([*rows, (0, sum(map(len, cuts.sorted.values())), len(numeric))], np.int64)


def _categories(sets: Sequence[tuple[int, bytes]]) -> Array:
    starts = [0, *accumulate(len(members) // 4 for _, members in sets)]
    return np.array([*zip((f for f, _ in sets), starts, strict=False), (0, starts[-1])], np.int64)
