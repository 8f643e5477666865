"""Why hits stand where they stand: every step's order, every backend's vote, every feature's part in the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal

import numpy as np

from backends.base import FloatColumn
from mixer.arrange import Rules, Steps, total_order
from mixer.errors import UnfitModel
from mixer.merge import Merge
from mixer.rank import ScoringFailed
from mixer.settings import MixSettings
from mixer.values import Answer, Explainable, IntColumn, Page, Ranker, Scores

Lacking = Literal["", "no_model", "model_gone", "not_additive", "time"]

_ADDS_UP = 1e-9
"""Of a score: how far from it its parts may add up to."""


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and what its caller was told beside it."""

    answer: Answer
    trace_id: str
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Contributions:
    """What each feature adds to the score of the first m hits (m, f), beside the bias; and why m is not all of them."""

    bias: float
    values: FloatColumn
    lacking: Lacking = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """k rows of an answer explained: ranks (k,) from 1 after each step, 0 where not known; `votes` (b, k)."""

    answer: Answer
    rows: IntColumn
    fused_ranks: IntColumn
    scored_ranks: IntColumn
    spread_ranks: IntColumn
    ranks: IntColumn
    votes: FloatColumn
    contributions: Contributions
    elapsed_s: float
    """That it took."""


class Explain:
    """Explains the answers of one mix."""

    def __init__(self, mix: MixSettings, model_called: Callable[[str], Explainable]) -> None:
        """Takes the mix that answered, and what finds a model of the settings for it."""
        self._merge, self._rules, self._model_called = Merge(mix), Rules(mix), model_called

    def by(self, answer: Answer, name: str) -> Answer:
        """The answer as this model of the settings would have ordered the same candidates. May take seconds.

        Raises: UnfitModel.
        """
        model = self._model_called(name)
        try:
            values = model.score(answer.features.matrix)
        except ScoringFailed as error:
            raise UnfitModel(f"model: {name!r} cannot score these candidates") from error
        scores = Scores(values, Ranker.MODEL, model.ref)
        steps = self._steps(answer, scores)
        page = Page(steps.final, answer.page.offset, answer.page.size, frozenset(steps.pinned.tolist()))
        return replace(answer, scores=scores, page=page, model=model)

    def __call__(self, answer: Answer, rows: IntColumn, in_time: Callable[[], bool]) -> Explanation:
        """Rows of an answer, by the model that ranked it; `in_time` is asked before each row."""
        began_s = perf_counter()
        candidates, steps = answer.candidates, self._steps(answer, answer.scores)
        orders = (candidates.prior, steps.scored, steps.spread, answer.page.order)
        fused, scored, spread, final = (order.argsort()[rows] + 1 for order in orders)
        return Explanation(
            answer=answer,
            rows=rows,
            fused_ranks=fused,
            scored_ranks=scored,
            # By turns of two arms, which no step here retraces.
            spread_ranks=np.zeros_like(spread) if answer.page.draft else spread,
            ranks=final,
            votes=self._merge.counted_votes(candidates)[:, rows],
            contributions=contributions(answer, rows, in_time),
            elapsed_s=perf_counter() - began_s,
        )

    def _steps(self, answer: Answer, scores: Scores) -> Steps:
        candidates = answer.candidates
        return self._rules(answer.plan.request.query, candidates, total_order(candidates, scores))


def contributions(answer: Answer, rows: IntColumn, in_time: Callable[[], bool]) -> Contributions:
    """Every feature's part in the scores of these rows, as far as time allows."""
    scores, model = answer.scores, answer.model
    if scores.ranker is not Ranker.MODEL:
        return _none(answer, "no_model")
    if model is None or model.ref != scores.model:
        return _none(answer, "model_gone")
    return parts_of(model, answer.features.matrix[rows], scores.values[rows], in_time)


def parts_of(
    model: Explainable, matrix: FloatColumn, scores: FloatColumn, in_time: Callable[[], bool]
) -> Contributions:
    """Every feature's part in the scores (k,) that the model gave rows (k, f), as far as time allows."""
    made: list[FloatColumn] = []
    for row in matrix:
        if not in_time():
            break
        made.append(model.contributions(row[None])[0])
    parts = np.array(made).reshape(len(made), matrix.shape[1] + 1)
    if not np.allclose(parts.sum(axis=1), scores[: len(made)], rtol=_ADDS_UP, atol=_ADDS_UP, equal_nan=True):
        return Contributions(0.0, parts[:0, :-1], "not_additive")
    bias = float(parts[0, -1]) if made else 0.0
    return Contributions(bias, parts[:, :-1], "" if len(made) == len(matrix) else "time")


def _none(answer: Answer, lacking: Lacking) -> Contributions:
    return Contributions(0.0, np.empty((0, len(answer.features.names))), lacking)
