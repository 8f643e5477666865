"""A small forest trained on made-up listings, for the tests of what loads, serves and measures models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from mixer.manifest import Manifest
from mixer.schema import Feature
from models.collection import Listing, Pool
from models.judgements import Judged, Judgements, Split
from models.training import Recipe, Trained, fit, write

FEATURES: tuple[Feature, ...] = TypeAdapter(tuple[Feature, ...]).validate_python(
    [
        {"name": "a_score", "source": "backend", "backend": "a", "value": "score"},
        {"name": "coverage", "source": "text", "fields": ["title"], "measure": "query_coverage"},
        {"name": "year", "source": "number", "field": "year", "low": 1900, "high": 2100},
        {
            "name": "plan",
            "source": "context",
            "key": "plan",
            "levels": ["free", "paid"],
            "dtype": "category",
        },
    ]
)
RECIPE = Recipe(
    rounds=12,
    patience=12,
    threads=1,
    parameters={"num_leaves": 7, "min_data_in_leaf": 2, "learning_rate": 0.2, "feature_fraction": 0.9},
)


def listing(number: int, split: Split = "train", pool: Pool = "open", n: int = 12) -> Listing:
    """A query whose grades follow the features, with noise and missing years."""
    random = np.random.default_rng(number)
    matrix = random.normal(size=(n, len(FEATURES)))
    matrix[:, 2] = np.where(random.random(n) < 0.3, np.nan, 1950 + 50 * random.random(n))
    matrix[:, 3] = random.integers(0, 2)
    worth = matrix[:, 0] + 2 * matrix[:, 1] + 0.3 * random.normal(size=n)
    grades = np.clip(np.round(worth + 0.5), 0, 3).astype(np.intp)
    ids = tuple(f"{number}-{row:02}" for row in range(n))
    return Listing(
        judged=Judged(
            query=f"query {number}",
            need=f"need {number}",
            grades=dict(zip(ids, grades.tolist(), strict=True)),
            split=split,
            day=f"2024-01-{number % 28 + 1:02}",
        ),
        pool=pool,
        ids=ids,
        backends=("a",),
        features=matrix,
        ranks=np.arange(1, n + 1)[None],
        fused_ranks=np.arange(1, n + 1),
        grades=grades,
        degraded=False,
    )


def listings(numbers: Sequence[int], split: Split = "train", pool: Pool = "open") -> list[Listing]:
    """One a number."""
    return [listing(number, split, pool) for number in numbers]


def trained(features: Sequence[Feature] = FEATURES, recipe: Recipe = RECIPE) -> Trained:
    """A forest of 24 training and 8 validation queries."""
    return fit(listings(range(24)), listings(range(100, 108), "valid"), features, recipe)


def written(folder: Path, forest: Trained | None = None) -> Manifest:
    """The forest in a model folder."""
    made = forest or trained()
    judged = tuple(ls.judged for ls in (*made.train, *made.valid))
    return write(made, "forest", FEATURES, Judgements("made-up.jsonl", "0" * 64, judged), folder)
