"""Trees as LightGBM's text tells them, checked so far that walking them ends and stays within their memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from backends.base import FloatColumn

Reason = Literal["linear_tree", "several_outputs", "size", "format"]
"""Why a forest is left to LightGBM: leaves that hold models, several scores a row, more leaves, thresholds or
questions than a code can count, or text that makes no sense."""


class Unsupported(Exception):
    """A forest left to LightGBM."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


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
    """Sets of categories, a bit for each."""


@dataclass(frozen=True, slots=True)
class Order:
    """A tree from left to right."""

    nodes: Sequence[tuple[int, int, int]]
    """In preorder: node, first leaf, middle leaf."""
    leaves: Sequence[int]
    depth: float
    """Mean of the leaves' depths."""


def read(text: str) -> tuple[int, list[Tree]]:
    """Features of a row, and the trees of a model file's text. Raises: Unsupported, KeyError, ValueError."""
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    header = _pairs(head)
    if header["num_tree_per_iteration"] != "1":
        raise Unsupported("several_outputs", f"{header['num_tree_per_iteration']} outputs a row")
    return int(header["max_feature_idx"]) + 1, [_tree(_pairs(block)) for block in blocks]


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
    words = np.array(pairs["cat_threshold"].split(), "<u4")
    return [words[start:end].tobytes().rstrip(b"\0") for start, end in pairwise(bounds)]


def order(tree: Tree) -> Order:
    """The tree from left to right. Raises: ValueError, IndexError where it is none."""
    nodes: list[tuple[int, int, int]] = []
    leaves: list[int] = []
    left_of: list[tuple[int, int, int]] = []
    child, depth, depths = 0 if tree.features else -1, 0, 0
    while True:
        if child >= 0:
            if len(nodes) >= len(tree.features):
                raise ValueError("a node has two parents")
            depth += 1
            left_of.append((child, len(nodes), depth))
            nodes.append((child, len(leaves), 0))
            child = tree.left[child]
            continue
        leaves.append(~child)
        depths += depth
        if not left_of:
            break
        node, place, depth = left_of.pop()
        nodes[place] = (node, nodes[place][1], len(leaves))
        child = tree.right[node]
    if sorted(leaves) != list(range(len(tree.leaves))):
        raise ValueError("a leaf is not in its tree once")
    return Order(nodes, leaves, depths / len(leaves))
