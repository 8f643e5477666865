from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from mixer import model
from mixer.decision import Bounds, Check
from mixer.manifest import GOLDEN, MANIFEST, MODEL, Golden, GoldenQuery, sha256_of
from mixer.schema import Feature, schema_hash
from mixer.slices import ScriptSlice, Slices
from models import gate, listings
from models.collection import Listing
from models.gate import MEASURES
from models.listings import Held
from models.measured import Measured, Peer
from models.slicing import Cell
from models.training import fit
from tests import forest

BOUNDS = Bounds(min_queries=20, min_slice_queries=10)
SERVED = forest.listings(range(200, 240), "test")


def held(made: Sequence[Listing] = SERVED, features: Sequence[Feature] = forest.FEATURES) -> Held:
    names = tuple(feature.name for feature in features)
    return Held(tuple(made), names, schema_hash(features), "test", 0, "served.npz", "0" * 64)


@pytest.fixture(scope="module")
def current(model_folder: Path) -> Measured:
    """The current version over what is served."""
    return Measured(model.load(model_folder, forest.FEATURES), held())


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A model folder that the test may break."""
    return shutil.copytree(model_folder, tmp_path / "c")


def seal(folder: Path, **changes: Any) -> None:
    """Make the manifest fit the files, as a publisher does who does not know that they are broken."""
    raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    sums = {"model_sha256": sha256_of(folder / MODEL), "golden_sha256": sha256_of(folder / GOLDEN)}
    (folder / MANIFEST).write_text(json.dumps({**raw, **sums, **changes}), encoding="utf-8")


def judged(
    folder: Path, current: Measured | None = None, given: Held | str | None = None
) -> dict[str, Check]:
    peer = Peer(current) if current else Peer()
    checks = gate.judge(folder, given or held(), peer, forest.FEATURES, BOUNDS)
    assert len(checks) == len({check.name for check in checks}) == len(gate.ALL_CHECKS)
    return {check.name: check for check in checks}


def failed(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.outcome == "failed"}


def after(checks: dict[str, Check], name: str) -> bool:
    """Whether nothing was looked at after a check that failed."""
    later = gate.ALL_CHECKS[gate.ALL_CHECKS.index(name) + 1 :]
    return all(checks[later_name].outcome == "not_run" for later_name in later)


def trained_on(change: Callable[[np.ndarray], np.ndarray], folder: Path) -> Path:
    """A model that learned from rows with a fault in them, written as any other."""

    def spoil(made: list[Listing]) -> list[Listing]:
        return [replace(ls, features=change(ls.features.copy())) for ls in made]

    train, valid = spoil(forest.listings(range(24))), spoil(forest.listings(range(100, 108), "valid"))
    forest.written(folder, fit(train, valid, forest.FEATURES, forest.RECIPE))
    return folder


def test_a_sound_version_passes(folder: Path, current: Measured) -> None:
    """Every check passes against itself, with figures that show it: no drop, a gain over the fused order."""
    checks = judged(folder, current)
    assert {check.outcome for check in checks.values()} == {"passed"}, checks
    assert checks["ndcg_drop"].figure == checks["slice_drop"].figure == checks["finite"].figure == 0
    assert checks["beats_fused"].figure > 0.1  # type: ignore[operator]
    assert checks["judged"].figure == 40


def test_a_first_version_has_nothing_to_fall_behind(folder: Path) -> None:
    """The comparisons are off and say why; the rest decides."""
    checks = judged(folder)
    assert {name for name, check in checks.items() if check.outcome == "off"} == {"ndcg_drop", "slice_drop"}
    assert checks["ndcg_drop"].told == "nothing is current yet"
    assert not failed(checks)


def test_columns_permuted_in_training(tmp_path: Path, current: Measured) -> None:
    """Names and golden queries agree with themselves, so only the ranking tells: it falls, and by how much is said."""
    checks = judged(trained_on(lambda rows: rows[:, [1, 0, 3, 2]], tmp_path / "c"), current)
    assert {"ndcg_drop", "slice_drop"} <= failed(checks)
    assert checks["golden"].outcome == "passed"
    drop = checks["ndcg_drop"]
    assert drop.figure > drop.bound == BOUNDS.max_drop  # type: ignore[operator]
    assert f"falls by {drop.figure:.4f}" in drop.told
    assert "at most 0.0100" in drop.told


def test_columns_permuted_in_the_file(folder: Path, current: Measured) -> None:
    """A forest whose columns are not the manifest's features is refused by the golden check."""
    text = (folder / MODEL).read_text(encoding="utf-8")
    names = "feature_names=a_score coverage year plan"
    assert names in text
    (folder / MODEL).write_text(
        text.replace(names, "feature_names=coverage a_score year plan"), encoding="utf-8"
    )
    seal(folder)
    checks = judged(folder, current)
    assert failed(checks) == {"golden"}
    assert "columns" in checks["golden"].told
    assert after(checks, "golden")


def test_columns_permuted_in_the_manifest(folder: Path, current: Measured) -> None:
    """A manifest with features in another order is not of the mix: the schema check."""
    features = (forest.FEATURES[1], forest.FEATURES[0], *forest.FEATURES[2:])
    seal(
        folder,
        features=[feature.model_dump(mode="json") for feature in features],
        schema_sha256=schema_hash(features),
    )
    checks = judged(folder, current)
    assert failed(checks) == {"schema"}
    assert after(checks, "schema")


@pytest.mark.parametrize("column", [0, 1])
def test_a_unit_bug_in_training(tmp_path: Path, current: Measured, column: int) -> None:
    """A feature that was a hundred times as large in training is named, with the factor."""

    def scale(rows: np.ndarray) -> np.ndarray:
        rows[:, column] *= 100
        return rows

    checks = judged(trained_on(scale, tmp_path / "c"), current)
    assert {"units", "ndcg_drop"} <= failed(checks)
    assert checks["units"].told.startswith(f"{forest.FEATURES[column].name} is spread 0.0")
    assert checks["units"].figure == pytest.approx(100, rel=0.5)


def test_a_feature_that_was_one_value_in_training(tmp_path: Path, current: Measured) -> None:
    """It has no spread to compare, whatever it is served as: the units check does not refuse for it."""

    def still(rows: np.ndarray) -> np.ndarray:
        rows[:, 1] = 0.0
        return rows

    assert judged(trained_on(still, tmp_path / "c"), current)["units"].outcome == "passed"


def test_a_truncated_file(folder: Path, current: Measured) -> None:
    """The checksum stops it before anything opens it."""
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data[: len(data) // 2])
    checks = judged(folder, current)
    assert failed(checks) == {"checksum"}
    assert after(checks, "checksum")


def test_a_truncated_file_that_was_sealed(folder: Path, current: Measured) -> None:
    """Where the manifest was made for the half file, the load in a process of its own stops it."""
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data[: len(data) // 2])
    seal(folder)
    checks = judged(folder, current)
    assert failed(checks) <= {"test_load", "golden"}
    assert len(failed(checks)) == 1


def test_a_manifest_cut_short(folder: Path) -> None:
    """It is the first thing that is read."""
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:300])
    checks = judged(folder)
    assert failed(checks) == {"manifest"}
    assert after(checks, "manifest")


def regolden(folder: Path) -> None:
    """Golden queries whose scores are what the broken forest gives."""
    booster = lightgbm.Booster(model_file=str(folder / MODEL))
    golden = Golden.model_validate_json((folder / GOLDEN).read_bytes())
    queries = [
        query.model_copy(
            update={"scores": tuple(model.raw_scores(booster, np.array(query.features, np.float64)).tolist())}
        )
        for query in golden.queries
    ]
    (folder / GOLDEN).write_text(Golden(queries=tuple(queries)).model_dump_json(), encoding="utf-8")
    seal(folder)


def leaves(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Change the leaf values of every tree in the file."""

    def changed(found: re.Match[str]) -> str:
        return "leaf_value=" + " ".join(change(found[1].split()))

    text = re.sub(r"leaf_value=(.*)", changed, (folder / MODEL).read_text(encoding="utf-8"))
    # Their sizes would no longer be those of the trees.
    (folder / MODEL).write_text(re.sub(r"tree_sizes=.*\n", "", text), encoding="utf-8")


def test_constant_scores(folder: Path, current: Measured) -> None:
    """A forest that tells nothing apart is stopped by name, with the share of the queries it leaves as they are."""
    leaves(folder, lambda values: ["0.25"] * len(values))
    regolden(folder)
    checks = judged(folder, current)
    assert {"constant", "beats_fused", "ndcg_drop"} <= failed(checks)
    assert checks["constant"].figure == 1
    assert checks["constant"].told == "100.0% of the queries get one score for all; at most 20.0%"
    assert checks["beats_fused"].figure == 0


def test_scores_that_are_nan_everywhere(folder: Path, current: Measured) -> None:
    """No golden query can agree with NaN."""
    leaves(folder, lambda values: ["nan"] * len(values))
    seal(folder)
    assert failed(judged(folder, current)) == {"golden"}


def without(query: GoldenQuery, kept: Sequence[int]) -> GoldenQuery:
    """Some rows of a golden query."""
    columns = {name: tuple(getattr(query, name)[n] for n in kept) for name in ("ids", "features", "scores")}
    return query.model_copy(update=columns)


def test_scores_that_are_nan_for_some_rows(folder: Path, current: Measured) -> None:
    """A leaf that no golden row reaches is found by scoring all the judged rows: how many are not finite is said."""
    booster = lightgbm.Booster(model_file=str(folder / MODEL))
    rows = np.concatenate([ls.features for ls in SERVED])
    reached = leaf_of_last_tree(booster, rows)
    leaf = int(np.argmin(np.bincount(reached)))
    golden = Golden.model_validate_json((folder / GOLDEN).read_bytes())
    queries = tuple(
        without(
            query,
            np.flatnonzero(leaf_of_last_tree(booster, np.array(query.features, float)) != leaf).tolist(),
        )
        for query in golden.queries
    )
    (folder / GOLDEN).write_text(Golden(queries=queries).model_dump_json(), encoding="utf-8")
    trees = iter(range(booster.num_trees()))

    def spoil(values: list[str]) -> list[str]:
        last = next(trees) == booster.num_trees() - 1
        return ["nan" if last and place == leaf else value for place, value in enumerate(values)]

    leaves(folder, spoil)
    seal(folder)
    checks = judged(folder, current)
    assert "finite" in failed(checks)
    assert checks["golden"].outcome == "passed"
    assert checks["finite"].told == f"{(reached == leaf).sum()} of {len(rows)} scores are not finite"


def leaf_of_last_tree(booster: lightgbm.Booster, rows: np.ndarray) -> np.ndarray:
    return np.asarray(booster.predict(rows, pred_leaf=True), int)[:, -1]


def test_listings_of_other_features_decide_nothing(folder: Path) -> None:
    """Nor do too few, nor none: nothing is measured, and what is lacking is said."""
    other = held(features=forest.FEATURES[:3])
    few = held(SERVED[:19])
    for given, told in (
        (other, "other features"),
        (few, "19 judged queries"),
        ("there are none", "there are none"),
    ):
        checks = judged(folder, given=given)
        assert failed(checks) == {"judged"}
        assert told in checks["judged"].told
        assert after(checks, "judged")


def worse_in(current: Measured, cell: Cell) -> Measured:
    """The current version, as if it were perfect for the queries of one slice."""
    made = Measured(current.model, current.held)
    better = {key: 1.0 if key in made.parts[cell] else value for key, value in current.ndcg.items()}
    object.__setattr__(made, "ndcg", better)
    return made


def test_a_drop_in_one_slice_is_not_hidden_by_the_mean(current: Measured) -> None:
    """The worst slice is named with its figure."""
    made = [
        replace(
            ls, judged=ls.judged.model_copy(update={"query": f"word{n}" if n < 12 else f"some words {n}"})
        )
        for n, ls in enumerate(SERVED)
    ]
    ours = Measured(current.model, held(made))
    theirs = worse_in(ours, ("length", "0-1"))
    loss = float(np.mean([1 - ours.ndcg[key] for key in ours.parts["length", "0-1"]]))
    bounds = BOUNDS.model_copy(update={"max_drop": 1.0, "max_slice_drop": loss / 2})
    check = MEASURES["slice_drop"](ours, Peer(theirs), bounds)
    assert check.outcome == "failed"
    assert check.figure == pytest.approx(loss)
    assert "length 0-1, 12 queries" in check.told
    assert MEASURES["ndcg_drop"](ours, Peer(theirs), bounds).outcome == "passed"


def test_a_query_is_in_the_slices_of_its_mix_and_of_its_pool(current: Measured) -> None:
    """The length of queries where the mix declares none; what a server said of a listing goes before."""
    told = replace(SERVED[0], slices={"tier": "paid"})
    declared = Slices([ScriptSlice(name="script", by="script")], ())
    own = Measured(current.model, held([told, SERVED[1]]), declared).parts
    assert {cell: len(keys) for cell, keys in own.items()} == {
        ("pool", "open"): 2,
        ("tier", "paid"): 1,
        ("script", "latin"): 1,
    }
    assert set(current.parts) == {("pool", "open"), ("length", "2-3")}


@pytest.mark.parametrize(
    ("name", "bound", "value"),
    [
        ("ndcg_floor", "ndcg_floor", 0.999),
        ("beats_fused", "min_gain_over_fused", 0.9),
        ("latency", "latency_ms", 1e-6),
        ("units", "max_spread_factor", 1.0000001),
    ],
)
def test_every_bound_can_refuse_and_be_switched_off(
    current: Measured, name: str, bound: str, value: float
) -> None:
    """One that is not kept refuses with figure and bound; one of null is off and says so by its outcome."""
    check = MEASURES[name](current, Peer(current), BOUNDS.model_copy(update={bound: value}))
    assert (check.outcome, check.bound) == ("failed", value)
    assert check.figure is not None
    off = MEASURES[name](current, Peer(current), BOUNDS.model_copy(update={bound: None}))
    assert (off.outcome, off.figure) == ("off", None)


@pytest.mark.parametrize("name", ["ndcg_drop", "slice_drop"])
def test_a_comparison_that_cannot_be_made_refuses(current: Measured, name: str) -> None:
    """Where something sound is current, a version does not pass for want of a comparison, unless the bounds say so."""
    peer = Peer(why_not="no listings of its own", refuses=True)
    assert MEASURES[name](current, peer, BOUNDS).outcome == "failed"
    off = BOUNDS.model_copy(update={"max_drop": None, "max_slice_drop": None})
    assert MEASURES[name](current, peer, off).outcome == "off"


def test_versions_compare_over_the_queries_of_both(current: Measured) -> None:
    """Of listings that were collected apart only what both have counts; too few are no comparison."""
    other = Measured(current.model, held(forest.listings(range(225, 265), "test")))
    check = MEASURES["ndcg_drop"](current, Peer(other), BOUNDS)
    assert (check.outcome, check.figure) == ("failed", 15)
    check = MEASURES["ndcg_drop"](current, Peer(other), BOUNDS.model_copy(update={"min_queries": 15}))
    assert (check.outcome, check.figure) == ("passed", 0)


def test_listings_of_one_query_are_one_query(current: Measured, model_folder: Path) -> None:
    """As of clicks: the mean of its own by their weights, and it counts among others as they do together."""
    first, other = SERVED[0], replace(SERVED[1], weight=6.0)
    turned = replace(first, grades=first.grades[::-1].copy(), weight=3.0)
    one, two, three = (
        next(iter(Measured(current.model, held([ls])).ndcg.values())) for ls in (first, turned, other)
    )
    made = Measured(current.model, held([first, turned, other]))
    assert one != two
    assert list(made.ndcg.values()) == pytest.approx([(one + 3 * two) / 4, three])
    assert made.mean(made.ndcg) == pytest.approx((one + 3 * two + 6 * three) / 10)
    perfect = Measured(current.model, made.held)
    object.__setattr__(perfect, "ndcg", dict.fromkeys(made.ndcg, 1.0))
    check = MEASURES["ndcg_drop"](made, Peer(perfect), BOUNDS.model_copy(update={"min_queries": 2}))
    assert check.figure == pytest.approx(1 - made.mean(made.ndcg))
    assert "2 judged queries" in judged(model_folder, given=made.held)["judged"].told


def test_the_gate_takes_what_training_keeps(model_folder: Path) -> None:
    """The listings beside a model are of its own features."""
    beside = listings.read(model_folder / "judged.npz")
    assert beside.schema_sha256 == model.read_manifest(model_folder).schema_sha256
    assert len(beside.listings) == 8
