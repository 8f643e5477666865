from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from mixer.manifest import GOLDEN, MODEL, Golden, Manifest, sha256_of
from mixer.model import raw_scores
from models import evaluation
from models.collection import Listing
from models.training import Recipe, Trained, fit, profile
from tests import forest

NAN = float("nan")


@pytest.fixture(scope="module")
def trained() -> Trained:
    return forest.trained()


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "forest"
    forest.written(made, trained)
    return made


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "manifest.json").read_bytes())


def test_it_learns(manifest: Manifest) -> None:
    """On queries it did not see, the forest's order is far better than the one before it."""
    assert manifest.metrics["valid_open_ndcg10_model"] > manifest.metrics["valid_open_ndcg10_fused"] + 0.2


def test_the_same_recipe_makes_the_same_file(folder: Path, tmp_path: Path) -> None:
    """Trained twice on the same listings, the model files are byte for byte the same, the golden queries too."""
    again = forest.written(tmp_path / "again")
    assert again.model_sha256 == sha256_of(folder / MODEL)
    assert again.golden_sha256 == sha256_of(folder / GOLDEN)


def test_the_seed_is_part_of_the_recipe(manifest: Manifest, tmp_path: Path) -> None:
    """Another seed samples other features and makes another file."""
    recipe = forest.RECIPE.model_copy(update={"seed": 8})
    again = forest.written(tmp_path / "other", forest.trained(recipe=recipe))
    assert again.model_sha256 != manifest.model_sha256
    assert again.parameters["seed"] == 8


def test_a_model_never_changes_once_written(folder: Path, trained: Trained) -> None:
    """A folder that exists is not written into."""
    before = sha256_of(folder / MODEL)
    with pytest.raises(FileExistsError):
        forest.written(folder, trained)
    assert sha256_of(folder / MODEL) == before


def flat(number: int) -> Listing:
    """A listing with nothing to tell apart."""
    made = forest.listing(number)
    return replace(made, grades=np.zeros_like(made.grades))


def test_listings_without_contrast_teach_nothing() -> None:
    """Queries whose candidates are all of one grade, or that have none, are left out of learning and stopping."""
    train, valid = forest.listings(range(8)), forest.listings(range(100, 104), "valid")
    whole = forest.listing(90)
    empty = replace(whole, ids=(), features=whole.features[:0], grades=whole.grades[:0])
    made = fit([*train, flat(50), empty], [flat(51), *valid], forest.FEATURES, forest.RECIPE)
    assert (len(made.train), len(made.valid)) == (8, 4)


@pytest.mark.parametrize(("train", "valid"), [([], [1]), ([1], [])])
def test_there_must_be_something_to_learn_from(train: list[int], valid: list[int]) -> None:
    """Without one query with contrast on either side there is no training, and the error says so."""
    for nothing in ([], [flat(50)]):
        with pytest.raises(ValueError, match="no training or no validation query"):
            fit(
                forest.listings(train) or nothing,
                forest.listings(valid) or nothing,
                forest.FEATURES,
                forest.RECIPE,
            )


def test_the_file_is_the_forest(trained: Trained, folder: Path, manifest: Manifest) -> None:
    """The file holds the trees up to the best validation round, no more, and scores as the forest in hand does."""
    loaded = lightgbm.Booster(model_file=str(folder / MODEL))
    assert manifest.trees == loaded.num_trees() == trained.booster.best_iteration <= forest.RECIPE.rounds
    matrix = np.concatenate([listing.features for listing in trained.valid])
    np.testing.assert_array_equal(raw_scores(loaded, matrix), raw_scores(trained.booster, matrix))


def validation_ndcg(made: Trained) -> float:
    return float(evaluation.values(made.valid, made.order(), evaluation.ndcg).mean())


def test_patience_ends_the_training() -> None:
    """Training stops once so many rounds brought nothing better, and what it then keeps is the best of them."""

    def after(rounds: int, patience: int = 300) -> Trained:
        return forest.trained(
            recipe=forest.RECIPE.model_copy(update={"rounds": rounds, "patience": patience})
        )

    stopped = after(300, patience=3)
    best = stopped.booster.best_iteration
    assert best < 100
    assert after(best + 3).booster.best_iteration == best
    assert all(validation_ndcg(after(rounds)) <= validation_ndcg(stopped) + 1e-9 for rounds in range(1, best))


def test_open_depth_leaves_out_the_deep_and_unjudged() -> None:
    """Of an open listing only what somebody judged or a backend ranks high is learned from; judged pools stay
    whole."""
    open_, judged = forest.listing(0), forest.listing(0, pool="judged")
    few = dict(list(open_.judged.grades.items())[-2:])
    open_ = replace(open_, judged=open_.judged.model_copy(update={"grades": few}))
    recipe = forest.RECIPE.model_copy(update={"open_depth": 3})
    others, valid = forest.listings(range(1, 8)), forest.listings(range(100, 104), "valid")
    made = fit([open_, judged, *others], valid, forest.FEATURES, recipe)
    cut = made.train[0]
    assert cut.ids == (*open_.ids[:3], *few)
    np.testing.assert_array_equal(cut.features, np.concatenate([open_.features[:3], open_.features[-2:]]))
    assert cut.fused_ranks.tolist() == [1, 2, 3, 11, 12]
    assert cut.ranks.tolist() == [[1, 2, 3, 11, 12]]
    assert cut.grades.tolist() == [*open_.grades[:3], *open_.grades[-2:]]
    assert len(made.train[1]) == len(judged)


def test_categories_are_told_to_the_forest(folder: Path) -> None:
    """A feature declared as a category is split by level, not by size."""
    assert "[categorical_feature: 3]" in (folder / MODEL).read_text(encoding="utf-8")


def test_golden_queries_are_of_the_validation_split(folder: Path, trained: Trained) -> None:
    """Their features are the listings' own, NaN as null, and their scores those of the file, to the last bit."""
    golden = Golden.model_validate_json((folder / GOLDEN).read_bytes())
    loaded = lightgbm.Booster(model_file=str(folder / MODEL))
    assert [query.query for query in golden.queries] == [ls.judged.query for ls in trained.valid[:8]]
    for query, listing in zip(golden.queries, trained.valid, strict=False):
        rows = np.array(query.features, np.float64)
        np.testing.assert_array_equal(rows, listing.features[: len(rows)])
        assert query.ids == listing.ids[: len(rows)]
        assert list(query.scores) == raw_scores(loaded, rows).tolist()


def test_the_manifest_says_what_it_was_made_from(manifest: Manifest, trained: Trained) -> None:
    """Judgements, days, queries and rows by split, parameters, code and libraries."""
    assert (manifest.name, manifest.version) == ("forest", manifest.model_sha256[:12])
    assert manifest.data.source == "made-up.jsonl"
    assert (manifest.data.since, manifest.data.until) == ("2024-01-01", "2024-01-24")
    assert manifest.data.queries == {"train": 24, "valid": 8}
    assert manifest.data.rows == {"train": 24 * 12, "valid": 8 * 12}
    assert manifest.parameters["objective"] == "lambdarank"
    assert manifest.parameters["num_leaves"] == 7
    assert manifest.libraries["lightgbm"] == lightgbm.__version__
    assert "+features." in manifest.code_version


def test_importance_is_shares_of_the_gain(manifest: Manifest) -> None:
    """One share a feature, all of them 1; what made the grades leads, a constant within a query has none."""
    assert list(manifest.importance) == [feature.name for feature in forest.FEATURES]
    assert sum(manifest.importance.values()) == pytest.approx(1)
    assert manifest.importance["coverage"] > manifest.importance["a_score"] > manifest.importance["year"]


def test_profiles_are_of_the_training_rows(manifest: Manifest, trained: Trained) -> None:
    """A profile a feature, with the share that was missing; shares and missing add up to 1."""
    assert list(manifest.profiles) == [feature.name for feature in forest.FEATURES]
    for made in (*manifest.profiles.values(), manifest.score_profile):
        assert sum(made.shares) + made.missing == pytest.approx(1)
        assert len(made.shares) == len(made.edges) + 1
    years = np.concatenate([listing.features[:, 2] for listing in trained.train])
    assert manifest.profiles["year"].missing == pytest.approx(np.isnan(years).mean())


def test_pools_are_measured_apart(tmp_path: Path) -> None:
    """Validation figures of the open and the judged pool do not mix."""
    valid = [*forest.listings(range(100, 104), "valid"), *forest.listings(range(104, 108), "valid", "judged")]
    made = fit(forest.listings(range(8)), valid, forest.FEATURES, forest.RECIPE)
    metrics = forest.written(tmp_path / "forest", made).metrics
    for pool, listings in (("open", made.valid[:4]), ("judged", made.valid[4:])):
        for name, order in (("model", made.order()), ("fused", evaluation.fused)):
            expected = evaluation.values(listings, order, evaluation.ndcg).mean()
            assert metrics.pop(f"valid_{pool}_ndcg10_{name}") == pytest.approx(expected)
    assert metrics == {}


def test_heavy_listings_count_more(tmp_path: Path) -> None:
    """Weights change what is learned, and the figures are means by weight; where all are 1 nothing changes."""
    train, valid = forest.listings(range(8)), forest.listings(range(100, 104), "valid")
    heavy = [replace(listing, weight=float(place**2 + 1)) for place, listing in enumerate(train)]
    held = [replace(listing, weight=float(place**2 + 1)) for place, listing in enumerate(valid)]
    plain, weighed = (fit(listings, held, forest.FEATURES, forest.RECIPE) for listings in (train, heavy))
    assert plain.booster.model_to_string() != weighed.booster.model_to_string()
    metrics = forest.written(tmp_path / "forest", weighed).metrics
    per_query = evaluation.values(weighed.valid, weighed.order(), evaluation.ndcg)
    assert metrics["valid_open_ndcg10_model"] == pytest.approx(np.average(per_query, weights=[1, 2, 5, 10]))


def test_a_profile_by_hand() -> None:
    """Ten quantile bins of what is known: bin i holds v with edges[i-1] < v <= edges[i]."""
    made = profile(np.array([*np.arange(1.0, 101.0), *[NAN] * 25]))
    assert made.missing == pytest.approx(0.2)
    assert len(made.edges) == 9
    assert made.edges[0] == pytest.approx(10.9)
    np.testing.assert_allclose(made.shares, np.full(10, 0.08))


def test_values_on_either_side_of_a_constant_are_seen() -> None:
    """Values that are all alike fall into one bin; what is below or above them falls into another."""
    made = profile(np.full(4, 7.0))
    assert (made.edges, made.shares, made.missing) == ((np.nextafter(7.0, 0.0), 7.0), (0.0, 1.0, 0.0), 0.0)


def test_many_values_at_the_least_one_have_a_bin_of_their_own() -> None:
    """Zero for most documents: a value below zero is not taken for one more of them."""
    made = profile(np.array([0.0] * 8 + [1.0, 2.0]))
    assert made.shares[:2] == (0.0, 0.8)
    assert np.searchsorted(made.edges, [-1.0, 0.0]).tolist() == [0, 1]


def test_every_category_has_a_bin() -> None:
    """Also those between that nobody had, and what comes after the last."""
    made = profile(np.array([0.0, 0.0, 2.0, NAN]), category=True)
    assert (made.edges, made.shares, made.missing) == ((0.0, 1.0, 2.0), (0.5, 0.0, 0.25, 0.0), 0.25)


def test_profiles_are_of_what_is_served(tmp_path: Path) -> None:
    """All rows of the open pool count, those too from which nothing is learned; the manifest says so."""
    listed = [*forest.listings(range(8)), flat(50), forest.listing(60, pool="judged")]
    recipe = forest.RECIPE.model_copy(update={"open_depth": 3})
    made = fit(listed, forest.listings(range(100, 104), "valid"), forest.FEATURES, recipe)
    manifest = forest.written(tmp_path / "forest", made)
    assert manifest.profile_rows == "open"
    open_ = np.concatenate([listing.features for listing in listed[:9]])
    assert manifest.profiles["a_score"] == profile(open_[:, 0])
    alone = forest.written(tmp_path / "judged", replace(made, listed=(listed[-1],)))
    assert alone.profile_rows == "judged"


def test_a_column_of_nothing_is_all_missing() -> None:
    """Where no value is known there is no edge and the one bin is empty."""
    made = profile(np.full(3, NAN))
    assert (made.edges, made.shares, made.missing) == ((), (0.0,), 1.0)


def test_a_recipe_has_no_unknown_part() -> None:
    """A misspelled key of a recipe is a fault, not a default."""
    with pytest.raises(ValueError, match="round"):
        Recipe.model_validate({"round": 3})
