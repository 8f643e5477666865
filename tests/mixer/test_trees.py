"""What LightGBM's text is refused for, and how far a tree may go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lightgbm
import numpy as np
import pytest

from mixer.forest import Forest
from mixer.trees import Tree, Unsupported, order
from tests.mixer.test_forest import QUIET, bits, grown, table

MOST = 1 << 16


def refused(model: lightgbm.Booster | str) -> str:
    with pytest.raises(Unsupported) as caught:
        Forest.compile(model)
    return caught.value.reason


def test_linear_leaves_are_left_to_lightgbm() -> None:
    """Trees whose leaves hold models are named as such."""
    matrix = np.nan_to_num(table())
    parameters = {**QUIET, "linear_tree": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(matrix, matrix[:, 0], params=parameters), 2)
    assert refused(booster) == "linear_tree"


@pytest.mark.parametrize("objective", ["multiclass", "multiclassova"])
def test_several_outputs_are_left_to_lightgbm(objective: str) -> None:
    """One score a row is what ranking needs."""
    parameters = {**QUIET, "objective": objective, "num_class": 3}
    data = lightgbm.Dataset(table(), np.arange(len(table())) % 3, params=parameters)
    assert refused(lightgbm.train(parameters, data, 2)) == "several_outputs"


def altered(key: str, change: Callable[[list[str]], list[str]]) -> str:
    """The plain forest's text with the first line of this key changed."""
    lines = grown("plain").model_to_string().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith(f"{key}="))
    lines[place] = f"{key}={' '.join(change(lines[place].partition('=')[2].split()))}"
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tree\n",
        altered("leaf_value", lambda values: values[:-1]),
        altered("left_child", lambda values: ["0", *values[1:]]),
        altered("right_child", lambda values: ["-1"] * len(values)),
        altered("split_feature", lambda values: ["99", *values[1:]]),
        altered("split_feature", lambda values: values[:-1]),
        altered("threshold", lambda values: ["x", *values[1:]]),
    ],
    ids=["nothing", "a head alone", "leaves", "a loop", "one leaf", "a feature", "features", "a threshold"],
)
def test_text_that_makes_no_sense_is_left_to_lightgbm(text: str) -> None:
    """A tree that is not one would be walked without end, or out of its memory."""
    assert refused(text) == "format"


def chain(leaves: int, features: Sequence[int] = (0,), cuts: int = MOST, sets: Sequence[int] = ()) -> str:
    """One tree with a leaf on the left of every node, as deep as it is large, asking these features in turn."""
    nodes = range(leaves - 1)
    listed: dict[str, list[Any]] = {
        "split_feature": [features[node % len(features)] for node in nodes],
        "split_gain": [1 for _ in nodes],
        "threshold": [node if sets else node % cuts for node in nodes],
        "decision_type": [1 if sets else 2 for _ in nodes],
        "left_child": [~node for node in nodes],
        "right_child": [*nodes[1:], ~(leaves - 1)],
        "leaf_value": [leaf / 7 for leaf in range(leaves)],
        "leaf_weight": [1] * leaves,
        "leaf_count": [1] * leaves,
        "internal_value": [0 for _ in nodes],
        "internal_weight": [0 for _ in nodes],
        "internal_count": [1 for _ in nodes],
    }
    if sets:
        listed |= {"cat_boundaries": list(range(leaves)), "cat_threshold": list(sets)}
    lines = [f"{key}={' '.join(map(str, values))}" for key, values in listed.items()]
    counts = [f"num_leaves={leaves}", f"num_cat={len(sets)}"]
    tree = "\n".join(["Tree=0", *counts, *lines, "is_linear=0", "shrinkage=1", "\n\n"])
    width = max(features) + 1
    names, ranges = " ".join(f"f{i}" for i in range(width)), " ".join(["[0:1]"] * width)
    head = f"tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx={width - 1}\n"
    head += f"objective=regression\nfeature_names={names}\nfeature_infos={ranges}\ntree_sizes={len(tree)}\n\n"
    return f"{head}{tree}end of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n"


@pytest.mark.parametrize("leaves", [2, 300, MOST])
def test_a_tree_may_be_as_deep_as_it_is_large(leaves: int) -> None:
    """Up to the most leaves that a code can count."""
    text = chain(leaves)
    rows = np.random.default_rng(0).random((70, 1)) * leaves
    theirs = lightgbm.Booster(model_str=text).predict(rows, raw_score=True, num_threads=1)
    assert bits(Forest.compile(text).score(rows)) == bits(theirs)


def test_more_leaves_than_a_code_counts_are_left_to_lightgbm() -> None:
    """One leaf too many."""
    assert refused(chain(MOST + 1, cuts=9)) == "size"


def test_more_thresholds_than_a_code_counts_are_left_to_lightgbm() -> None:
    """Thresholds of one feature are counted over all its trees, and there is a code below the first."""
    head, tree, tail = chain(MOST // 2 + 1, cuts=MOST).partition("Tree=0\n")[0], "", ""
    for place in (0, 1):
        block = chain(MOST // 2 + 1).partition("Tree=0\n")[2].partition("end of trees")[0]
        shifted = [
            "threshold=" + " ".join(str(int(v) + place * MOST) for v in line[10:].split())
            if line.startswith("threshold=")
            else line
            for line in block.split("\n")
        ]
        tree += f"Tree={place}\n" + "\n".join(shifted)
    assert refused(f"{head}{tree}end of trees\n{tail}") == "size"


def test_more_questions_than_a_code_counts_are_left_to_lightgbm() -> None:
    """Sets of categories are questions of their own, a feature of each: all of them need a place."""
    asked = MOST // 2 + 1
    two = chain(MOST, features=(0, 1), sets=[1 + node // 2 for node in range(MOST - 1)])
    assert len(Forest.compile(two).categories) - 1 == MOST - 1
    text = two.replace("end of trees", chain(asked, (2,), sets=range(1, asked)).partition("\n\n")[2])
    assert refused(text.replace("max_feature_idx=1", "max_feature_idx=2")) == "size"


def test_a_tree_s_order_is_from_left_to_right() -> None:
    """Nodes in preorder, leaves as they stand, and the mean of their depths: here 1, 2 and 2."""
    tree = Tree(np.zeros(3), [0, 0], [2, 2], [0.0, 1.0], [1, -1], [-3, -2], [])
    found = order(tree)
    assert found.nodes == [(0, 0, 2), (1, 0, 1)]
    assert found.leaves == [0, 1, 2]
    assert found.depth == pytest.approx(5 / 3)
