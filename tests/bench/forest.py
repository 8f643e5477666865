"""The model that the benchmark ranks by: of a stated size, trained once on made-up queries, then kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mixer import model
from mixer.schema import Feature
from mixer.settings import parse
from models import training
from models.collection import Listing
from models.judgements import Judged, Judgements
from tests.bench import servers

TREES, LEAVES = 300, 63
QUERIES, HELD = 60, 10
RECIPE = training.Recipe(
    parameters={"num_leaves": LEAVES, "min_data_in_leaf": 5, "learning_rate": 0.05},
    rounds=TREES,
    patience=0,
    threads=1,
)


@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of models by what went into them."""

    folder: Path

    def model(self, backends: int) -> Path:
        """The model for so many backends, trained where there is none that Mixer would read."""
        names = [f"b{number}" for number in range(backends)]
        features = parse(servers.settings(["127.0.0.1:1"] * len(names), 0, "")).mixes["default"].features
        kept = self.folder / _key(features)
        try:
            model.read_manifest(kept)
        except model.ModelRefused:
            shutil.rmtree(kept, ignore_errors=True)
            self._train(features, kept)
        return kept.resolve()

    def _train(self, features: Sequence[Feature], kept: Path) -> None:
        random = np.random.default_rng(0)
        listings = [_listing(random, features, number) for number in range(QUERIES)]
        trained = training.fit(listings[:-HELD], listings[-HELD:], features, RECIPE)
        self.folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=self.folder) as unfinished:
            written = Path(unfinished) / "model"
            manifest = training.write(trained, "bench", features, Judgements("noise", "0" * 64, ()), written)
            assert manifest.trees == TREES, "the forest is not of the size that the table tells"
            written.rename(kept)


def _key(features: Sequence[Feature]) -> str:
    told = [RECIPE.model_dump(), [feature.model_dump() for feature in features], QUERIES, version("lightgbm")]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _listing(random: np.random.Generator, features: Sequence[Feature], number: int) -> Listing:
    """One made-up query of 100 candidates; what a backend did not return has neither score nor rank of it."""
    rows = 100
    matrix = random.random((rows, len(features)))
    grades = np.clip((matrix[:, :3].sum(axis=1) + random.normal(0, 0.5, rows)).astype(np.intp), 0, 3)
    for place in range(servers.COLUMNS, len(features), 2):
        matrix[:, place + 1] = np.ceil(matrix[:, place + 1] * servers.HITS)
        matrix[random.random(rows) < 0.5, place : place + 2] = np.nan
    return Listing(
        judged=Judged(query=str(number), need=str(number), grades={"a": 1}),
        pool="open",
        ids=tuple(map(str, range(rows))),
        backends=(),
        features=matrix,
        ranks=np.zeros((0, rows), np.intp),
        fused_ranks=np.arange(1, rows + 1),
        grades=grades,
        degraded=False,
    )
