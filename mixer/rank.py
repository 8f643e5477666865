"""Features to scores: the model's, or the fused order where there is no model that can be used."""

from __future__ import annotations

import logging
from typing import Protocol

import numpy as np

from backends.base import FloatColumn
from mixer.values import Candidates, Features, ModelRef, Ranker, Scores

log = logging.getLogger(__name__)


class ScoringFailed(Exception):
    """The model could not score these rows."""


class Scorer(Protocol):
    """A loaded model."""

    ref: ModelRef
    scorer: str

    def score(self, matrix: FloatColumn) -> FloatColumn:
        """Raw scores (n,) of rows (n, f). Raises: ScoringFailed."""
        ...


class Rank(Protocol):
    """The stage."""

    def __call__(self, candidates: Candidates, features: Features) -> Scores:
        """Scores (n,) of all candidates."""
        ...


class RankByFusion:
    """The stage without a model: the prior order stands."""

    def __init__(self, model: ModelRef | None = None, reason: str = "") -> None:
        """A model that should have ranked, and why it cannot; neither where the mix has none."""
        self._model = model
        self._reason = reason

    def __call__(self, candidates: Candidates, features: Features) -> Scores:
        """The fused scores, untouched."""
        return Scores(candidates.fused, Ranker.FUSED, self._model, self._reason)


class RankByModel:
    """The stage with a model; a failure to score leaves the prior order standing and says so."""

    def __init__(self, scorer: Scorer) -> None:
        """Takes a model whose checks passed."""
        self._scorer = scorer

    def __call__(self, candidates: Candidates, features: Features) -> Scores:
        """The model's raw scores; rows that have no finite one sink to the end."""
        try:
            scores = self._score(features.matrix)
        except ScoringFailed:
            log.exception("the model failed to score")
            return self._fused(candidates, "scoring_failed")
        if len(scores.values) and not np.isfinite(scores.values).any():
            return self._fused(candidates, "scores_not_finite")
        return scores

    def _score(self, matrix: FloatColumn) -> Scores:
        return Scores(self._scorer.score(matrix), Ranker.MODEL, self._scorer.ref, scorer=self._scorer.scorer)

    def _fused(self, candidates: Candidates, reason: str) -> Scores:
        return Scores(candidates.fused, Ranker.FUSED, self._scorer.ref, reason)
