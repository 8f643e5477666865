"""Trains a LambdaMART model from listings, and writes it down with all that proves it.

LambdaMART: Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82; LightGBM's `lambdarank`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np

from backends.base import FloatColumn
from mixer import features as feature_code
from mixer import text as text_code
from mixer import words as word_code
from mixer.manifest import (
    GOLDEN,
    JUDGED,
    MANIFEST,
    MODEL,
    Golden,
    GoldenQuery,
    Manifest,
    Profile,
    Record,
    TrainingData,
    sha256_of,
)
from mixer.model import forest_of, raw_scores, scorer_name
from mixer.schema import Feature, schema_hash
from models import evaluation, listings
from models.collection import Listing, Pool
from models.judgements import Judgements, counts, window
from models.learn import Learn, Lesson, by_pool, here

_BINS, _LEVELS = 10, 32
_GOLDEN_QUERIES, _GOLDEN_ROWS = 8, 20


class Recipe(Record):
    """How to train; the same recipe on the same listings gives the same file."""

    parameters: Mapping[str, str | int | float | bool] = {
        "learning_rate": 0.05,
        "num_leaves": 31,
        "min_data_in_leaf": 20,
        "feature_fraction": 0.8,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "lambdarank_truncation_level": 20,
    }
    """LightGBM's own names."""
    rounds: int = 500
    patience: int = 50
    """Rounds without a better validation NDCG after which to stop; the best round is kept. 0 trains all rounds."""
    seed: int = 7
    threads: int = 2
    open_depth: int = 0
    """Of an open listing, learn from the judged documents and those within this rank of any backend; 0 takes all."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A forest, and the listings that it was stopped by."""

    booster: lightgbm.Booster
    parameters: dict[str, Any]
    train: tuple[Listing, ...]
    valid: tuple[Listing, ...]
    listed: tuple[Listing, ...] = ()
    """The training queries' listings, whole, as they were served."""

    def order(self) -> evaluation.Order:
        """The order that this forest gives."""
        return evaluation.by_scores(lambda matrix: raw_scores(self.booster, matrix))


def fit(
    train: Sequence[Listing],
    valid: Sequence[Listing],
    features: Sequence[Feature],
    recipe: Recipe,
    learn: Learn = here,
) -> Trained:
    """Train on the one, stop by the other. Raises: ValueError where there is nothing to learn from."""
    listed = tuple(listing for listing in train if len(listing))
    train, valid = (
        _with_contrast([_cut(listing, recipe.open_depth) for listing in train]),
        _with_contrast(valid),
    )
    if not train or not valid:
        raise ValueError("no training or no validation query has both relevant and other candidates")
    lesson = Lesson(
        train,
        valid,
        names=tuple(feature.name for feature in features),
        categories=tuple(feature.name for feature in features if feature.dtype == "category"),
        parameters=_parameters(recipe),
        rounds=recipe.rounds,
        patience=recipe.patience,
    )
    booster, parameters = learn(lesson)
    return Trained(booster, parameters, train, valid, listed)


def _cut(listing: Listing, depth: int) -> Listing:
    """The listing without what nobody judged and no backend ranks within the depth."""
    if listing.pool == "judged" or not depth:
        return listing
    ranked = ((listing.ranks > 0) & (listing.ranks <= depth)).any(axis=0)
    judged = np.array([id_ in listing.judged.grades for id_ in listing.ids], bool)
    keep = np.flatnonzero(ranked | judged)
    return replace(
        listing,
        ids=tuple(listing.ids[place] for place in keep.tolist()),
        features=listing.features[keep],
        ranks=listing.ranks[:, keep],
        fused_ranks=listing.fused_ranks[keep],
        grades=listing.grades[keep],
    )


def _with_contrast(listings: Sequence[Listing]) -> tuple[Listing, ...]:
    """Listings from which an order can be learned: not all of one grade."""
    return tuple(listing for listing in listings if len(listing) and np.ptp(listing.grades))


def _parameters(recipe: Recipe) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "metric": "ndcg",
        "eval_at": [evaluation.DEPTH],
        **recipe.parameters,
        "seed": recipe.seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": recipe.threads,
        "verbosity": -1,
    }


def write(
    trained: Trained,
    name: str,
    features: Sequence[Feature],
    judgements: Judgements,
    folder: Path,
    held_out: Sequence[Listing] = (),
) -> Manifest:
    """Write model.txt, golden.json and manifest.json into a new folder. Raises: FileExistsError.

    Beside them judged.npz, a sample of the listings that were held out of training, by which the gate measures; of
    those that stopped it where none were.
    """
    folder.mkdir(parents=True)
    trained.booster.save_model(str(folder / MODEL), num_iteration=trained.booster.best_iteration)
    booster = lightgbm.Booster(model_file=str(folder / MODEL))
    golden = Golden(queries=tuple(_golden(listing, booster) for listing in trained.valid[:_GOLDEN_QUERIES]))
    (folder / GOLDEN).write_text(golden.model_dump_json(indent=1) + "\n", encoding="utf-8")
    kept, split = (held_out, "test") if listings.sample(held_out) else (trained.valid, "valid")
    if listings.sample(kept):
        listings.write(folder / JUDGED, kept, features, split)
    manifest = _manifest(trained, booster, name, features, judgements, folder)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return manifest


def _golden(listing: Listing, booster: lightgbm.Booster) -> GoldenQuery:
    rows = listing.features[:_GOLDEN_ROWS]
    return GoldenQuery(
        query=listing.judged.query,
        ids=listing.ids[:_GOLDEN_ROWS],
        features=tuple(tuple(None if np.isnan(v) else v for v in row) for row in rows.tolist()),
        scores=tuple(raw_scores(booster, rows).tolist()),
    )


def _manifest(
    trained: Trained,
    booster: lightgbm.Booster,
    name: str,
    features: Sequence[Feature],
    judgements: Judgements,
    folder: Path,
) -> Manifest:
    pool, matrix = _served_rows(trained)
    sha256 = sha256_of(folder / MODEL)
    gains = booster.feature_importance("gain")
    return Manifest(
        name=name,
        version=sha256[:12],
        created_at_s=round(time.time(), 3),
        model_sha256=sha256,
        golden_sha256=sha256_of(folder / GOLDEN),
        features=tuple(features),
        schema_sha256=schema_hash(features),
        trees=booster.num_trees(),
        parameters={key: _scalar(value) for key, value in trained.parameters.items()},
        data=_data(trained, judgements),
        metrics=_metrics(trained),
        importance=dict(zip(booster.feature_name(), (gains / max(gains.sum(), 1e-12)).tolist(), strict=True)),
        profiles={
            feature.name: profile(matrix[:, place], feature.dtype == "category")
            for place, feature in enumerate(features)
        },
        score_profile=profile(raw_scores(booster, matrix)),
        profile_rows=pool,
        code_version=_code_version(),
        libraries={library: version(library) for library in ("lightgbm", "numpy", "mixer")},
        scorer=scorer_name(forest_of(folder, len(features), booster)),
        judged_sha256=sha256_of(folder / JUDGED) if (folder / JUDGED).exists() else "",
    )


def _scalar(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def _data(trained: Trained, judgements: Judgements) -> TrainingData:
    since, until = window(judgements.queries)
    rows = {"train": sum(map(len, trained.train)), "valid": sum(map(len, trained.valid))}
    return TrainingData(
        source=judgements.source,
        sha256=judgements.sha256,
        since=since,
        until=until,
        queries=counts(judgements.queries),
        rows=rows,
    )


def _metrics(trained: Trained) -> dict[str, float]:
    """Validation NDCG of the model and of the fused order, by pool."""
    rankings = {"model": trained.order(), "fused": evaluation.fused}
    return {
        f"valid_{pool}_ndcg10_{name}": _mean(listings, order)
        for pool, listings in by_pool(trained.valid).items()
        for name, order in rankings.items()
    }


def _mean(listings: Sequence[Listing], order: evaluation.Order) -> float:
    weights = [listing.weight for listing in listings]
    return float(np.average(evaluation.values(listings, order, evaluation.ndcg), weights=weights))


def _served_rows(trained: Trained) -> tuple[Pool, FloatColumn]:
    """The rows (n, f) most like those of serving, and the pool that they are of."""
    listed = trained.listed or trained.train
    pool: Pool = "open" if any(listing.pool == "open" for listing in listed) else "judged"
    return pool, np.concatenate([listing.features for listing in listed if listing.pool == pool])


def profile(column: FloatColumn, category: bool = False) -> Profile:
    """How a column (n,) is spread: quantile bins of what is known, and the share that is missing.

    Every category has a bin of its own. Where many values are the least one, what is below it has a bin too.
    """
    known = column[~np.isnan(column)]
    if not len(known):
        return Profile(edges=(), shares=(0.0,), missing=1.0)
    edges = _levels(known) if category and known.max() < _LEVELS else _quantiles(known)
    bins = np.bincount(np.searchsorted(edges, known), minlength=len(edges) + 1) / len(column)
    return Profile(
        edges=tuple(edges.tolist()), shares=tuple(bins.tolist()), missing=1.0 - len(known) / len(column)
    )


def _levels(known: FloatColumn) -> FloatColumn:
    return np.arange(np.floor(known.max()) + 1)


def _quantiles(known: FloatColumn) -> FloatColumn:
    edges: FloatColumn = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
    least = known.min()
    return np.array([np.nextafter(least, -np.inf), *edges]) if edges[0] == least else edges


def _code_version() -> str:
    """The package's version and a digest of the code that makes features."""
    digest = hashlib.sha256()
    for module in (feature_code, text_code, word_code):
        digest.update(Path(str(module.__file__)).read_bytes())
    return f"{version('mixer')}+features.{digest.hexdigest()[:12]}"
