"""Forests of every kind that LightGBM grows, scored by both, compared by their bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import FloatColumn
from mixer import walk
from mixer.forest import Forest, Unsupported, warm

WIDTH = 5
CATEGORICAL = 4
QUIET = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 1, "min_data_per_group": 1, "seed": 1}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no use of missing": {"use_missing": False},
    "zero as missing": {"zero_as_missing": True},
    "few bins": {"max_bin": 3},
    "over 255 thresholds": {"max_bin": 2000, "min_data_in_bin": 1, "num_leaves": 200, "rounds": 12},
    "over 64 leaves": {"num_leaves": 200},
    "over 256 leaves": {"num_leaves": 500, "min_data_in_bin": 1, "rounds": 3},
    "over 512 leaves": {"num_leaves": 900, "min_sum_hessian_in_leaf": 0, "rounds": 2},
    "stumps": {"num_leaves": 2},
    "random forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "dart": {"boosting": "dart"},
    "one-hot categories": {"max_cat_to_onehot": 100},
    "sets of categories": {"max_cat_to_onehot": 1, "cat_smooth": 0.1, "cat_l2": 0.0, "num_leaves": 31},
    "ranking": {"objective": "lambdarank", "lambdarank_truncation_level": 10},
    "binary": {"objective": "binary"},
    "constant": {"min_data_in_leaf": 10_000},
    "denormal": {"scale": 1e-34},
}
LISTS = 20


@cache
def table(seed: int = 0, rows: int = 1200) -> FloatColumn:
    """Numbers with repeats, zeros and holes, and a column of categories."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, WIDTH))
    matrix[:, 1] = np.round(matrix[:, 1] * 4)
    matrix[random.random(matrix.shape) < 0.1] = np.nan
    matrix[:, 2] = np.where(random.random(rows) < 0.4, 0.0, matrix[:, 2])
    matrix[:, 3] = random.random(rows)
    matrix[:, CATEGORICAL] = random.integers(0, 70, rows)
    return matrix


@cache
def grown(kind: str) -> lightgbm.Booster:
    chosen = {**QUIET, **KINDS[kind]}
    rounds, scale = chosen.pop("rounds", 8), chosen.pop("scale", 1.0)
    matrix = table().copy()
    matrix[:, :CATEGORICAL] *= scale
    clean = np.nan_to_num(table(), nan=0.7)
    target = clean[:, :4].sum(axis=1) + 4 * np.sin(7 * clean[:, CATEGORICAL]) + 2 * (clean[:, 2] == 0)
    if chosen.get("objective") in ("binary", "lambdarank"):
        target = (target > 0).astype(np.float64)
    group = [len(matrix) // LISTS] * LISTS if chosen.get("objective") == "lambdarank" else None
    data = lightgbm.Dataset(matrix, target, group=group, categorical_feature=[CATEGORICAL], params=chosen)
    return lightgbm.train(chosen, data, rounds)


@cache
def compiled(kind: str) -> Forest:
    return Forest.compile(grown(kind))


@cache
def edges(kind: str) -> list[float]:
    """Thresholds of the forest and their neighbours."""
    lines = grown(kind).model_to_string().splitlines()
    told = {float(v) for line in lines if line.startswith("threshold=") for v in line[10:].split()}
    return [float(np.nextafter(v, to)) for v in sorted(told) for to in (-np.inf, v, np.inf)]


def bits(values: Any) -> list[int]:
    return list(np.asarray(values, np.float64).view(np.int64).tolist())


def same(booster: lightgbm.Booster, forest: Forest, matrix: FloatColumn, **chosen: Any) -> None:
    theirs = booster.predict(matrix, raw_score=True, num_threads=1, **chosen)
    assert bits(forest.score(matrix)) == bits(theirs)


ODD = (np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-35, -1e-35, walk.ZERO, -walk.ZERO, 1.1e-35)
WHOLE = (-1.0, -0.5, -0.0, 0.5, 1.0, 31.0, 32.0, 63.9, 64.0, 69.0, 1e3, 2.0**31, -(2.0**31), 2.0**40, 1e300)


@st.composite
def inputs(draw: st.DrawFn, kind: str) -> FloatColumn:
    """Rows whose every value is odd, on a threshold or beside one, a category or none, or of the training table."""
    rows = draw(st.sampled_from([1, 2, 3, 31, 33, 63, 64, 65, 130, 257, 300]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    odd = np.array([*ODD, *WHOLE, *draw(st.lists(st.floats(), max_size=5))])
    pools = (odd, np.array(edges(kind) or [0.0]), np.arange(72.0), table().ravel())
    chosen = random.integers(0, len(pools), (rows, WIDTH))
    drawn = np.stack([random.choice(pool, (rows, WIDTH)) for pool in pools])
    picked: FloatColumn = np.take_along_axis(drawn, chosen[None], axis=0)[0]
    return picked


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_lightgbm_to_the_last_bit(kind: str) -> None:
    """Whatever the forest and whatever the rows, NaN, infinities, signed and near zeros, thresholds, categories."""

    @settings(max_examples=60, deadline=None, database=None)
    @given(inputs(kind))
    def check(matrix: FloatColumn) -> None:
        same(grown(kind), compiled(kind), matrix)

    check()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    leaves=st.integers(2, 40),
    bins=st.integers(2, 300),
    zero_as_missing=st.booleans(),
    use_missing=st.booleans(),
    depth=st.sampled_from([-1, 1, 3]),
)
def test_forests_grown_at_random_score_alike(
    seed: int, depth: int, leaves: int, bins: int, **chosen: bool
) -> None:
    """Not only the kinds named above."""
    matrix = table(seed, 150)
    shape = {"num_leaves": leaves, "max_bin": bins, "max_depth": depth, "min_data_in_bin": 1}
    parameters = {**QUIET, **chosen, **shape, "learning_rate": 0.3}
    target = np.nan_to_num(matrix) @ np.array([1.0, -0.5, 2.0, 0.3, 0.05])
    data = lightgbm.Dataset(matrix, target, categorical_feature=[CATEGORICAL], params=parameters)
    booster = lightgbm.train(parameters, data, 5)
    same(booster, Forest.compile(booster), table(seed + 1, 100))


def test_the_kinds_are_what_they_are_called() -> None:
    """The forests above reach each way of scoring: both widths of code, both ways through a tree, categories."""
    assert compiled("plain").steps.dtype == np.uint8
    for kind in ("over 255 thresholds", "over 256 leaves", "over 512 leaves"):
        assert compiled(kind).steps.dtype == np.uint16
    assert np.diff(compiled("over 64 leaves").trees).max() > 64
    assert np.diff(compiled("over 512 leaves").trees).max() > 64 * walk.SWEEP_LEAVES_PER_ROW
    assert "average_output" in grown("random forest").model_to_string()
    assert not len(compiled("constant").columns)
    for kind in ("one-hot categories", "sets of categories"):
        assert len(compiled(kind).categories) > 1
    assert any(0 < abs(edge) < walk.ZERO for edge in edges("denormal"))


@pytest.mark.parametrize("kind", ["plain", "random forest", "dart"])
@pytest.mark.parametrize("iterations", [1, 3, 100])
def test_fewer_iterations_can_be_asked_for(kind: str, iterations: int) -> None:
    """As many as LightGBM would use for the same number."""
    forest = Forest.compile(grown(kind), iterations)
    same(grown(kind), forest, table(3, 40), num_iteration=iterations)


def test_early_stopping_is_heeded() -> None:
    """A booster that stopped early predicts with its best iteration unless told otherwise, and so do we."""
    booster = lightgbm.Booster(model_str=grown("plain").model_to_string())
    booster.best_iteration = 3
    same(booster, Forest.compile(booster), table(4, 20))
    assert len(Forest.compile(booster).trees) == 4


def test_a_file_s_text_scores_as_its_booster() -> None:
    """The text that a model folder holds is enough."""
    text = grown("sets of categories").model_to_string()
    same(lightgbm.Booster(model_str=text), Forest.compile(text), table(5, 300))


def test_no_rows_have_no_scores() -> None:
    """Nothing in, nothing out."""
    assert compiled("plain").score(np.empty((0, WIDTH))).shape == (0,)


@pytest.mark.parametrize("shape", [(3, WIDTH - 1), (3, WIDTH + 1), (WIDTH,), (1, 3, WIDTH)])
def test_rows_of_another_width_are_refused(shape: tuple[int, ...]) -> None:
    """Memory beyond the row is never read."""
    with pytest.raises(ValueError, match="rows of 5 features"):
        compiled("plain").score(np.zeros(shape))


@pytest.mark.parametrize(
    "laid_out",
    [
        np.asfortranarray,
        lambda matrix: np.repeat(matrix, 2, axis=0)[::2],
        lambda matrix: np.frombuffer(matrix.tobytes()).reshape(matrix.shape),
        lambda matrix: matrix.astype(">f8"),
    ],
)
def test_a_matrix_may_lie_in_memory_as_it_likes(laid_out: Callable[[FloatColumn], FloatColumn]) -> None:
    """Order, strides, read-only memory and byte order change no score, and compile nothing anew."""
    warm()
    before = len(walk.add_scores.signatures)  # type: ignore[attr-defined]
    matrix = table(6, 50)
    assert bits(compiled("plain").score(laid_out(matrix))) == bits(compiled("plain").score(matrix))
    assert len(walk.add_scores.signatures) == before == 2  # type: ignore[attr-defined]


def test_linear_leaves_are_left_to_lightgbm() -> None:
    """Trees whose leaves hold models are named as such."""
    matrix = np.nan_to_num(table())
    parameters = {**QUIET, "linear_tree": True}
    booster = lightgbm.train(parameters, lightgbm.Dataset(matrix, matrix[:, 0], params=parameters), 2)
    with pytest.raises(Unsupported) as caught:
        Forest.compile(booster)
    assert caught.value.reason == "linear_tree"


def test_several_outputs_are_left_to_lightgbm() -> None:
    """One score a row is what ranking needs."""
    parameters = {**QUIET, "objective": "multiclass", "num_class": 3}
    data = lightgbm.Dataset(table(), np.arange(len(table())) % 3, params=parameters)
    with pytest.raises(Unsupported) as caught:
        Forest.compile(lightgbm.train(parameters, data, 2))
    assert caught.value.reason == "several_outputs"


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
    with pytest.raises(Unsupported) as caught:
        Forest.compile(text)
    assert caught.value.reason == "format"


def test_a_forest_takes_less_memory_than_its_file() -> None:
    """The promise is under three times the file; the arrays alone are far below it."""
    for kind in ("plain", "over 64 leaves", "sets of categories"):
        assert compiled(kind).nbytes < len(grown(kind).model_to_string())
