"""Forests of every kind that LightGBM grows, scored by both, compared by their bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.base import FloatColumn
from mixer import walk
from mixer.forest import Forest, warm
from mixer.registers import VECTOR_BYTES

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
    "over 1000 leaves": {"num_leaves": 1100, "min_sum_hessian_in_leaf": 0, "rounds": 2, "min_data_in_bin": 1},
    "stumps": {"num_leaves": 2},
    "random forest": {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "dart": {"boosting": "dart"},
    "one-hot categories": {"max_cat_to_onehot": 100},
    "sets of categories": {"max_cat_to_onehot": 1, "cat_smooth": 0.1, "cat_l2": 0.0, "num_leaves": 31},
    "ranking": {"objective": "lambdarank", "lambdarank_truncation_level": 10},
    "binary": {"objective": "binary"},
    "constant": {"min_data_in_leaf": 10_000},
    "denormal": {"scale": 1e-34},
    "hundreds of categories": {
        "max_cat_to_onehot": 1,
        "cat_smooth": 0.1,
        "num_leaves": 31,
        "categories": 512,
        "max_bin": 1000,
    },
    "thousands of categories": {"max_cat_to_onehot": 1, "cat_smooth": 0.1, "categories": 3000},
    "holes in categories": {"max_cat_to_onehot": 1, "cat_smooth": 0.1, "holes": True},
    "two columns of categories": {"max_cat_to_onehot": 1, "cat_smooth": 0.1, "categorical": [1, CATEGORICAL]},
    "wide sets of categories": {"max_cat_to_onehot": 1, "cat_smooth": 0.1, "num_leaves": 300, "rounds": 3},
    "as many bins as values": {"max_bin": 65_000, "min_data_in_bin": 1, "num_leaves": 300},
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


def learned(categories: int = 70, holes: bool = False, scale: float = 1.0) -> FloatColumn:
    """The table with so many categories, some of them unknown, and numbers of another size."""
    random, matrix = np.random.default_rng(9), table().copy()
    matrix[:, :CATEGORICAL] *= scale
    if categories != 70:
        matrix[:, CATEGORICAL] = random.integers(0, categories, len(matrix))
    if holes:
        matrix[random.random(len(matrix)) < 0.2, CATEGORICAL] = np.nan
        matrix[random.random(len(matrix)) < 0.1, CATEGORICAL] = -1
    return matrix


@cache
def grown(kind: str) -> lightgbm.Booster:
    chosen = {**QUIET, **KINDS[kind]}
    rounds, categorical = chosen.pop("rounds", 8), chosen.pop("categorical", [CATEGORICAL])
    shown = {key: chosen.pop(key) for key in ("scale", "categories", "holes") if key in chosen}
    matrix = learned(**shown)
    clean = np.nan_to_num(np.column_stack([table()[:, :CATEGORICAL], matrix[:, CATEGORICAL]]), nan=0.7)
    target = clean[:, :4].sum(axis=1) + 4 * np.sin(7 * clean[:, CATEGORICAL]) + 2 * (clean[:, 2] == 0)
    if chosen.get("objective") in ("binary", "lambdarank"):
        target = (target > 0).astype(np.float64)
    group = [len(matrix) // LISTS] * LISTS if chosen.get("objective") == "lambdarank" else None
    data = lightgbm.Dataset(matrix, target, group=group, categorical_feature=categorical, params=chosen)
    return lightgbm.train(chosen, data, rounds)


@cache
def compiled(kind: str) -> Forest:
    return Forest.compile(grown(kind))


def values_of(kind: str, key: str) -> list[str]:
    """What all trees of the forest say under this key."""
    lines = grown(kind).model_to_string().splitlines()
    return [value for line in lines if line.startswith(f"{key}=") for value in line[len(key) + 1 :].split()]


@cache
def edges(kind: str) -> list[float]:
    """Thresholds of the forest and their neighbours."""
    told = {float(value) for value in values_of(kind, "threshold")}
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
    categories = (np.arange(72.0), np.arange(520.0), np.arange(3100.0))
    pools = (odd, np.array(edges(kind) or [0.0]), *categories, table().ravel())
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "categories" in kind])
def test_every_category_is_told_from_its_neighbors(kind: str) -> None:
    """Those at either end of a set, of a byte, and beyond all sets among them."""
    for row in table()[:8]:
        matrix = np.tile(row, (3100, 1))
        matrix[:, CATEGORICAL] = np.arange(-2.0, 3098.0)
        same(grown(kind), compiled(kind), matrix)


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
    assert (compiled("over 1000 leaves").sweep_from > 32).all()
    assert set(compiled("plain").sweep_from) <= set(range(3, 64))
    assert set(compiled("stumps").sweep_from) == {2}, "one row follows its path through any tree"
    assert len(set(compiled("two columns of categories").categories[:-1, 0])) == 2
    assert "average_output" in grown("random forest").model_to_string()
    assert not len(compiled("constant").columns)
    sizes = {kind: np.diff(compiled(kind).categories[:, 1]) for kind in KINDS}
    assert sizes["one-hot categories"].max() <= 9 < sizes["hundreds of categories"].max() == 64
    assert sizes["thousands of categories"].max() > 64
    wide = compiled("wide sets of categories")
    assert wide.steps.dtype == np.uint16
    assert len(wide.categories) > 2
    told = {int(v) >> 2 for kind in KINDS for v in values_of(kind, "decision_type") if not int(v) & 1}
    assert told == {0, 1, 2}, "thresholds know each of LightGBM's three kinds of missing"
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


@pytest.mark.parametrize(
    "objective",
    [
        "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie",
        "cross_entropy", "cross_entropy_lambda", "rank_xendcg",
    ],
)  # fmt: skip
def test_every_objective_of_one_output_scores_alike(objective: str) -> None:
    """Raw scores are sums of leaves, whatever LightGBM makes of them afterwards."""
    matrix, grades = table(), np.round(3 * table()[:, 3])
    target = grades / 3 if objective.startswith("cross") else grades + (objective == "gamma")
    group = [60] * LISTS if objective.startswith("rank") else None
    parameters = {**QUIET, "objective": objective}
    booster = lightgbm.train(parameters, lightgbm.Dataset(matrix, target, group=group, params=parameters), 4)
    same(booster, Forest.compile(booster), table(7, 90))


def test_a_row_of_one_feature() -> None:
    """The least that a forest can be given."""
    matrix = table()[:, :1]
    booster = lightgbm.train(QUIET, lightgbm.Dataset(matrix, np.nan_to_num(matrix[:, 0]), params=QUIET), 4)
    same(booster, Forest.compile(booster), table(8, 90)[:, :1])


@pytest.mark.parametrize(
    "saved", [{}, {"num_iteration": 2}, {"start_iteration": 3}, {"start_iteration": 1, "num_iteration": 4}]
)
def test_a_file_holds_the_iterations_that_were_saved(saved: dict[str, int], tmp_path: Path) -> None:
    """By default those up to the best one, which the file does not tell: what is read from a file is scored whole."""
    booster = lightgbm.Booster(model_str=grown("plain").model_to_string())
    booster.best_iteration = 5
    path = tmp_path / "model.txt"
    path.write_text(booster.model_to_string(**saved), encoding="utf-8")  # type: ignore[arg-type]
    read = lightgbm.Booster(model_file=path)
    assert len(Forest.compile(read).trees) - 1 == read.num_trees() == saved.get("num_iteration", 5)
    same(read, Forest.compile(read), table(9, 90))
    same(read, Forest.compile(path.read_text(encoding="utf-8")), table(9, 90))


def test_training_that_goes_on_adds_trees() -> None:
    """A forest begun by another forest scores as one."""
    data = lightgbm.Dataset(table(), np.nan_to_num(table()[:, 0]), params=QUIET)
    booster = lightgbm.train(QUIET, data, 3, init_model=grown("plain"))
    assert booster.num_trees() == 11
    same(booster, Forest.compile(booster), table(10, 90))


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


@pytest.mark.parametrize("kind", ["plain", "over 64 leaves", "sets of categories", "thousands of categories"])
def test_a_forest_takes_less_memory_than_its_file(kind: str) -> None:
    """The promise is under three times the file, the codes of as many rows as are scored at once included."""
    forest, size = compiled(kind), len(grown(kind).model_to_string())
    codes = 4 * VECTOR_BYTES * (len(forest.stand_ins) + len(forest.categories) - 1)
    assert forest.nbytes < size
    assert forest.nbytes + codes < 3 * size
