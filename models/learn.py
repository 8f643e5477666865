"""Grows a forest from listings, on this machine; `models.distributed` grows one on several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np

from backends.base import FloatColumn
from models.collection import Listing


@dataclass(frozen=True, slots=True)
class Lesson:
    """What to learn from, what to stop by, and how; every listing has something to order."""

    train: tuple[Listing, ...]
    valid: tuple[Listing, ...]
    names: tuple[str, ...]
    """Of the features, in order."""
    categories: tuple[str, ...]
    """Those of the names whose values are categories."""
    parameters: dict[str, Any]
    """LightGBM's own."""
    rounds: int
    patience: int


Learn = Callable[[Lesson], tuple[lightgbm.Booster, dict[str, Any]]]
"""Gives the forest, its best round marked, and the parameters that made it."""


def here(lesson: Lesson) -> tuple[lightgbm.Booster, dict[str, Any]]:
    """Learn in this process."""
    learned = _dataset(lesson, lesson.train)
    held = [_dataset(lesson, pool, learned) for pool in by_pool(lesson.valid).values()]
    booster = lightgbm.train(
        lesson.parameters,
        learned,
        num_boost_round=lesson.rounds,
        valid_sets=held,
        callbacks=[_StopAtBestMean(lesson.patience)] if lesson.patience else [],
    )
    return booster, lesson.parameters


class _StopAtBestMean:
    """Stops where the mean over the validation sets has not risen for a while."""

    order, before_iteration = 30, False

    def __init__(self, patience: int) -> None:
        self._patience, self._best, self._at = patience, -np.inf, 0

    def __call__(self, env: lightgbm.callback.CallbackEnv) -> None:
        results = env.evaluation_result_list or []
        mean = float(np.mean([result[2] for result in results]))
        if mean > self._best:
            self._best, self._at = mean, env.iteration
        if env.iteration - self._at >= self._patience or env.iteration + 1 == env.end_iteration:
            raise lightgbm.callback.EarlyStopException(self._at, results)


def by_pool(listings: Sequence[Listing]) -> dict[str, list[Listing]]:
    """The listings of each pool."""
    pools: dict[str, list[Listing]] = {}
    for listing in listings:
        pools.setdefault(listing.pool, []).append(listing)
    return pools


def _dataset(
    lesson: Lesson, listings: Sequence[Listing], reference: lightgbm.Dataset | None = None
) -> lightgbm.Dataset:
    return lightgbm.Dataset(
        np.concatenate([listing.features for listing in listings]),
        label=np.concatenate([listing.grades for listing in listings]),
        weight=weights(listings),
        group=[len(listing) for listing in listings],
        feature_name=list(lesson.names),
        categorical_feature=list(lesson.categories),
        reference=reference,
        params=lesson.parameters,
        free_raw_data=False,
    )


def weights(listings: Sequence[Listing]) -> FloatColumn | None:
    """A weight a row; none where all count alike."""
    each = np.array([listing.weight for listing in listings])
    return np.repeat(each, [len(listing) for listing in listings]) if (each != 1).any() else None
