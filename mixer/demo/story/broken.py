"""Models with a fault in them, made as such faults are made: in training, by hand, or on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.base import FloatColumn
from mixer.demo.experiment import RECIPE
from mixer.manifest import MODEL
from mixer.schema import Feature
from models import training, work
from models.collection import Listing

QUICK = RECIPE.model_copy(update={"rounds": 150, "patience": 0})
_BY_HEART = training.Recipe(
    parameters={"learning_rate": 0.2, "num_leaves": 63, "min_data_in_leaf": 3, "lambda_l2": 0.0},
    rounds=150,
    patience=0,
)
UNITS = 1000.0
_TURNED = "012345"
"""First digits of the digests of three queries in eight."""


class Workshop:
    """Trains on listings that were taken once, for one mix."""

    def __init__(self, job: work.Job, listings: Sequence[Listing]) -> None:
        """Takes listings of all splits."""
        self._job = job
        self._by_split = {
            split: [ls for ls in listings if ls.judged.assigned == split]
            for split in ("train", "valid", "test")
        }

    @property
    def _features(self) -> tuple[Feature, ...]:
        return self._job.rules.features

    def permuted(self, folder: Path) -> None:
        """Trained on rows whose columns stand one place further than the schema has them."""
        self._spoiled(lambda rows: np.roll(rows, 1, axis=1), folder)

    def wrong_units(self, feature: str, folder: Path) -> None:
        """Trained on rows in which one feature is a thousand times what is served."""
        place = [declared.name for declared in self._features].index(feature)

        def scaled(rows: FloatColumn) -> FloatColumn:
            rows[:, place] *= UNITS
            return rows

        self._spoiled(scaled, folder)

    def by_heart(self, folder: Path) -> None:
        """Learned the gate's queries by heart, and many of people's from grades turned round."""
        asked = [_turned(ls) if ls.judged.digest[0] in _TURNED else ls for ls in self._by_split["train"]]
        learned = [*self._by_split["test"], *asked]
        self._written(training.fit(learned, self._by_split["test"], self._features, _BY_HEART), folder)

    def _spoiled(self, change: Callable[[FloatColumn], FloatColumn], folder: Path) -> None:
        train, valid = (
            [replace(ls, features=change(ls.features.copy())) for ls in self._by_split[split]]
            for split in ("train", "valid")
        )
        self._written(training.fit(train, valid, self._features, QUICK), folder)

    def _written(self, trained: training.Trained, folder: Path) -> None:
        work.publish(trained, folder.name, self._job, folder)


def truncated(sound: Path, folder: Path) -> None:
    """A copy of a model folder whose copying was cut off."""
    shutil.copytree(sound, folder)
    cut_short(folder / MODEL)


def cut_short(file: Path) -> None:
    """The first half of it."""
    data = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(data[: len(data) // 2])


def _turned(listing: Listing) -> Listing:
    """With the best documents' grades given to the worst: 3 is 0, and 0 is 3 where a backend put it far up."""
    near = listing.fused_ranks <= 20
    grades = np.where(near, np.where(listing.grades > 1, 0, 3 - listing.grades), 0)
    return replace(listing, grades=grades.astype(np.intp))
