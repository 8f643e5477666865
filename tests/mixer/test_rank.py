from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import FloatColumn
from mixer.arrange import total_order
from mixer.rank import RankByFusion, RankByModel, ScoringFailed
from mixer.values import Features, ModelRef, Ranker
from tests.samples import MODEL, candidates, features

NAN = float("nan")


class Fixed:
    """A scorer with an answer, or a failure, of the test's own."""

    ref: ModelRef = MODEL
    scorer: str = "fixed"

    def __init__(self, answer: FloatColumn | Exception) -> None:
        self.answer = answer
        self.seen: FloatColumn | None = None

    def score(self, matrix: FloatColumn) -> FloatColumn:
        self.seen = matrix
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


NO_FEATURES = Features((), np.empty((0, 0)), np.empty(0, np.intp), np.empty(0, np.intp))


@given(st.lists(st.floats(0, 1), max_size=20))
def test_the_fallback_is_the_identity_on_the_prior_order(fused: list[float]) -> None:
    """Without a usable model the fused order stands, untruncated and unchanged, ties too."""
    found = candidates(fused)
    failing = RankByModel(Fixed(ScoringFailed()))
    logging.disable(logging.CRITICAL)
    try:
        for rank in (RankByFusion(), RankByFusion(MODEL, "checksum_failed"), failing):
            scores = rank(found, NO_FEATURES)
            assert total_order(found, scores).tolist() == found.prior.tolist()
            assert scores.values.tolist() == found.fused.tolist()
    finally:
        logging.disable(logging.NOTSET)


def test_a_mix_without_a_model_is_not_degraded() -> None:
    """Where the mix names no model, the fused order is what was asked for: no reason, no model."""
    scores = RankByFusion()(candidates([1]), NO_FEATURES)
    assert (scores.ranker, scores.model, scores.fallback_reason) == (Ranker.FUSED, None, "")


def test_a_refused_model_is_named() -> None:
    """Where a model should have ranked, the scores say which, and why it does not."""
    scores = RankByFusion(MODEL, "checksum_failed")(candidates([1]), NO_FEATURES)
    assert (scores.ranker, scores.model, scores.fallback_reason) == (Ranker.FUSED, MODEL, "checksum_failed")


def test_the_model_s_scores_are_the_order_s() -> None:
    """The model sees the feature matrix itself, and its raw scores come out untouched."""
    scorer, made = Fixed(np.array([0.1, -3.0])), features(one=[1, 2])
    scores = RankByModel(scorer)(candidates([2, 1]), made)
    assert scorer.seen is made.matrix
    assert scores.values.tolist() == [0.1, -3.0]
    assert (scores.ranker, scores.model, scores.fallback_reason) == (Ranker.MODEL, MODEL, "")


def test_a_failure_to_score_is_loud_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """A model that cannot score costs its order only; the log and the scores say so."""
    scores = RankByModel(Fixed(ScoringFailed()))(candidates([1, 2]), NO_FEATURES)
    assert (scores.ranker, scores.model, scores.fallback_reason) == (Ranker.FUSED, MODEL, "scoring_failed")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.records[0].exc_info


def test_a_programmer_s_error_is_not_hidden() -> None:
    """Only a failure to score falls back; a mistake in the code ends the request."""
    with pytest.raises(ZeroDivisionError):
        RankByModel(Fixed(ZeroDivisionError()))(candidates([1]), NO_FEATURES)


@pytest.mark.parametrize("wrong", [NAN, np.inf, -np.inf])
def test_scores_without_a_finite_one_are_no_order(wrong: float) -> None:
    """Where no score is finite the fused order stands, and the reason is named."""
    scores = RankByModel(Fixed(np.array([wrong, wrong])))(candidates([1, 2]), NO_FEATURES)
    assert (scores.ranker, scores.fallback_reason) == (Ranker.FUSED, "scores_not_finite")
    assert scores.values.tolist() == [1, 2]


def test_some_scores_without_a_number_are_still_a_model_s() -> None:
    """One finite score is enough for the model's order to stand; the others sink."""
    found = candidates([3, 2, 1])
    scores = RankByModel(Fixed(np.array([NAN, 0.0, 1.0])))(found, NO_FEATURES)
    assert scores.ranker is Ranker.MODEL
    assert total_order(found, scores).tolist() == [2, 1, 0]


def test_nothing_to_rank_is_no_fallback() -> None:
    """An empty list is ranked by the model: nothing failed."""
    scores = RankByModel(Fixed(np.empty(0)))(candidates([]), NO_FEATURES)
    assert (scores.ranker, scores.fallback_reason) == (Ranker.MODEL, "")
