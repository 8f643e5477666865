from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import LocalCluster

from mixer import model
from mixer.decision import Bounds
from mixer.manifest import JUDGED, MODEL, sha256_of
from models import distributed, gate, listings, training
from models.learn import Learn
from models.measured import Measured, Peer
from models.training import Trained
from tests import forest

TRAIN, VALID = forest.listings(range(48)), forest.listings(range(100, 112), "valid")


@pytest.fixture(scope="module")
def learn() -> Iterator[Learn]:
    """Two processes of a Dask cluster, by its scheduler's address."""
    two = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with LocalCluster(**two) as running, distributed.cluster(running.scheduler_address) as made:
        yield made


def fitted(learn: Learn, weight: float = 1.0) -> Trained:
    train = [replace(one, weight=weight if place % 2 else 1.0) for place, one in enumerate(TRAIN)]
    return training.fit(train, VALID, forest.FEATURES, forest.RECIPE, learn)


@pytest.fixture(scope="module")
def trained(learn: Learn) -> Trained:
    return fitted(learn)


def test_listings_are_shared_out_whole() -> None:
    """In order, none parted or lost, about as many rows each; no part is empty."""
    made = [forest.listing(number, n=3 + number % 7) for number in range(20)]
    parts = distributed.shared_out(made, 3)
    assert [one for part in parts for one in part] == made
    rows = [sum(map(len, part)) for part in parts]
    assert max(rows) - min(rows) <= 2 * 9
    assert [len(part) for part in distributed.shared_out(made[:2], 5)] == [1, 1]


def test_it_learns_what_one_machine_learns(trained: Trained, tmp_path: Path) -> None:
    """The model is as good, and its folder passes every check of serving."""
    alone = forest.written(tmp_path / "alone", training.fit(TRAIN, VALID, forest.FEATURES, forest.RECIPE))
    made = forest.written(tmp_path / "made", trained)
    assert made.metrics["valid_open_ndcg10_model"] > alone.metrics["valid_open_ndcg10_model"] - 0.03
    assert made.metrics["valid_open_ndcg10_model"] > made.metrics["valid_open_ndcg10_fused"] + 0.2
    assert (made.parameters["tree_learner"], made.parameters["num_machines"]) == ("data", 2)
    assert model.load(tmp_path / "made", forest.FEATURES).ref.sha256 == made.model_sha256
    assert "127.0.0.1" not in (tmp_path / "made" / MODEL).read_text()


def test_the_gate_lets_it_through(trained: Trained, tmp_path: Path) -> None:
    """Held against one that was grown on one machine, no check fails."""
    forest.written(tmp_path / "alone", training.fit(TRAIN, VALID, forest.FEATURES, forest.RECIPE))
    forest.written(tmp_path / "made", trained)
    held = listings.read(tmp_path / "made" / JUDGED)
    peer = Peer(Measured(model.load(tmp_path / "alone", forest.FEATURES), held))
    bounds = Bounds(min_queries=10, max_drop=0.03)
    checks = gate.judge(tmp_path / "made", held, peer, forest.FEATURES, bounds)
    assert [check for check in checks if check.outcome in ("failed", "not_run")] == []


def test_both_workers_take_part(trained: Trained) -> None:
    """A forest grown from half of the listings is another."""
    half = training.fit(TRAIN[:24], VALID, forest.FEATURES, forest.RECIPE)
    counted = trained.booster.dump_model()["tree_info"][0]["tree_structure"]["internal_count"]
    assert counted == sum(map(len, TRAIN))
    assert half.booster.dump_model()["tree_info"][0]["tree_structure"]["internal_count"] < counted


def test_the_same_again(learn: Learn, trained: Trained, tmp_path: Path) -> None:
    """The same listings on as many workers make the same file, byte for byte, in spite of other ports."""
    made = [forest.written(tmp_path / name, one) for name, one in (("a", trained), ("b", fitted(learn)))]
    assert made[0].model_sha256 == made[1].model_sha256 == sha256_of(tmp_path / "b" / MODEL)


def test_weights_count(learn: Learn, trained: Trained) -> None:
    """Listings of clicks that weigh more pull the forest their way."""
    heavy = fitted(learn, weight=20.0)
    assert heavy.booster.model_to_string() != trained.booster.model_to_string()


def test_it_stops_where_validation_stops_rising(learn: Learn) -> None:
    """On all workers at once, and the file ends there."""
    recipe = forest.RECIPE.model_copy(update={"rounds": 200, "patience": 3})
    made = training.fit(TRAIN, VALID, forest.FEATURES, recipe, learn).booster
    assert 0 < made.best_iteration < 200


def test_a_cluster_that_is_not_there_is_said() -> None:
    """By the address that was asked for."""
    with pytest.raises(ValueError, match=r"tcp://127\.0\.0\.1:1"), distributed.cluster("tcp://127.0.0.1:1"):
        pass
