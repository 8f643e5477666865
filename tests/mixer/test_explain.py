from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import FloatColumn
from mixer import wire_explain
from mixer.arrange import Arrange
from mixer.explain import Answered, Explain, Explanation, parts_of
from mixer.merge import Merge
from mixer.model import LightGbmModel, load
from mixer.settings import MixSettings
from mixer.values import Answer, ModelRef, Ranker, Scores
from tests import forest
from tests.samples import MODEL, SIGNER, answer, features, hits, mix, plan, reply, request

IDS = "abcdef"


class Linear:
    """A model of which each feature's part is known: its value."""

    def __init__(self, bias: float = 0.5, ref: ModelRef = MODEL) -> None:
        self.ref, self._bias = ref, bias

    def score(self, matrix: FloatColumn) -> FloatColumn:
        total: FloatColumn = matrix.sum(axis=1) + self._bias
        return total

    def contributions(self, matrix: FloatColumn) -> FloatColumn:
        return np.column_stack([matrix, np.full(len(matrix), self._bias)])


def ranked(rules: MixSettings, values: FloatColumn, lists: Sequence[Sequence[str]] = (IDS, "fed")) -> Answer:
    """An answer to `csv` of backends `a` and `b`, scored by `Linear`."""
    replies = [
        reply(name, hits(ids, texts={"kind": ["k" if id_ in "abc" else "" for id_ in ids]}))
        for name, ids in zip(rules.backends, lists, strict=True)
    ]
    candidates = Merge(rules)(plan(rules), replies)
    asked = plan(rules, request("csv", page_size=4))
    table = features(one=values[0], two=values[1])
    scores = Scores(table.matrix.sum(axis=1) + 0.5, Ranker.MODEL, MODEL)
    page = Arrange(rules, SIGNER)(asked, replies, candidates, scores)
    return Answer(asked, tuple(replies), candidates, table, scores, page, model=Linear())


def always() -> bool:
    return True


def nobody(name: str) -> Linear:
    raise AssertionError(name)


def explained(rules: MixSettings, made: Answer, rows: Sequence[int] | None = None) -> Explanation:
    wanted = made.page.order if rows is None else np.array(rows, np.intp)
    return Explain(rules, nobody)(made, wanted, always)


VALUES = np.array([[1.0, 6.0, 3.0, 5.0, 2.0, 4.0], [0.0] * 6])
RULES: dict[str, Any] = {
    "pins": [{"query": "CSV", "ids": ["e", "nowhere"]}],
    "diversity": {"field": "kind", "max": 1, "within": 3},
}


def test_places_after_each_step() -> None:
    """Each step's places are those of its own order: the fusion, the score, diversity, the pins."""
    rules = mix("a", "b", **RULES)
    told = explained(rules, ranked(rules, VALUES), rows=range(6))
    assert told.fused_ranks.tolist() == [4, 5, 6, 3, 2, 1]
    assert told.scored_ranks.tolist() == [6, 1, 4, 2, 5, 3]
    # b alone of a, b, c is among the first three; d, f have no value of the field.
    assert told.spread_ranks.tolist() == [6, 1, 4, 2, 5, 3]
    assert told.ranks.tolist() == [6, 2, 5, 3, 1, 4]


def test_the_rule_for_diversity_has_a_step_of_its_own() -> None:
    """What it moved stands in the ranks after it, and nowhere before."""
    rules = mix("a", "b", diversity={"field": "kind", "max": 1, "within": 3})
    values = np.array([[6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [0.0] * 6])
    told = explained(rules, ranked(rules, values), rows=range(6))
    assert told.scored_ranks.tolist() == [1, 2, 3, 4, 5, 6]
    assert told.spread_ranks.tolist() == told.ranks.tolist() == [1, 4, 5, 2, 3, 6]


def test_without_rules_the_places_are_those_of_the_score() -> None:
    """Then nothing happens after the model."""
    rules = mix("a", "b")
    told = explained(rules, ranked(rules, VALUES))
    assert told.ranks.tolist() == told.spread_ranks.tolist() == told.scored_ranks.tolist() == [*range(1, 7)]


@given(
    st.lists(st.permutations(IDS).map(lambda ids: ids[:4]), min_size=3, max_size=3),
    st.sampled_from(["rrf", "linear"]),
    st.booleans(),
    st.tuples(*[st.floats(0, 3)] * 3),
)
def test_votes_add_up_to_the_fused_score(
    lists: list[list[str]], kind: str, grouped: bool, weights: tuple[float, ...]
) -> None:
    """The counted votes of a document are its fused score, with any fusion, weights and groups."""
    names = "abc"
    members = {
        name: {"weight": weight, "group": "g" if grouped and name != "a" else ""}
        for name, weight in zip(names, weights, strict=True)
    }
    rules = mix(*names, members=members, fusion={"kind": kind})
    replies = [reply(name, hits(ids)) for name, ids in zip(names, lists, strict=True)]
    merge = Merge(rules)
    candidates = merge(plan(rules), replies)
    votes = merge.counted_votes(candidates)
    assert votes.sum(axis=0) == pytest.approx(candidates.fused)
    if grouped:
        assert not ((votes[1] > 0) & (votes[2] > 0)).any()


def test_the_parts_of_a_forest_s_score(model_folder: Path) -> None:
    """TreeSHAP: each row's parts and the bias add up to the score, missing values and categories and all."""
    model: LightGbmModel = load(model_folder, forest.FEATURES)
    matrix = np.concatenate([forest.listing(number).features for number in range(5)])
    scores = model.score(matrix)
    told = parts_of(model, matrix, scores, always)
    assert told.lacking == ""
    assert told.values.shape == matrix.shape
    assert told.values.sum(axis=1) + told.bias == pytest.approx(scores, rel=1e-9)
    assert np.isnan(matrix).any()
    assert (np.abs(told.values).sum(axis=0)[:3] > 0).all()


class Against(Linear):
    """A model that orders everything the other way round."""

    def score(self, matrix: FloatColumn) -> FloatColumn:
        return -super().score(matrix)


def test_by_another_model() -> None:
    """The same candidates in that model's order, the rules applied to it; where each was served is told beside it."""
    rules = mix("a", "b", pins=[{"query": "csv", "ids": ["e"]}])
    made = ranked(rules, VALUES)
    explain = Explain(rules, lambda name: Against(ref=ModelRef(name, "2", "0" * 64)))
    other = explain.by(made, "against")
    ids = np.array(made.candidates.ids)
    assert "".join(ids[made.page.order]) == "ebdfca"
    assert "".join(ids[other.page.order]) == "eacfdb"
    assert (other.scores.ranker, other.model and other.model.ref.name) == (Ranker.MODEL, "against")
    told = wire_explain.response_from(
        explain(other, other.page.rows, always), Answered(made, "", 0.0), shown=()
    )
    assert [hit.id for hit in told.answer.hits] == [*"eacf"]
    assert [place.rank for place in told.placements] == [1, 2, 3, 4]
    assert [place.served_rank for place in told.placements] == [1, 6, 5, 4]
    assert told.served_by.name == MODEL.name


def test_rows_that_are_not_reached_in_time() -> None:
    """The rows before the end of the time are there, the reason is said, and the last ones lack."""
    clock = count()
    matrix = np.ones((5, 2))
    told = parts_of(Linear(), matrix, np.full(5, 2.5), lambda: next(clock) < 3)
    assert (told.values.tolist(), told.bias, told.lacking) == ([[1.0, 1.0]] * 3, 0.5, "time")
    none = parts_of(Linear(), matrix, np.full(5, 2.5), lambda: False)
    assert (len(none.values), none.lacking) == (0, "time")


@pytest.mark.parametrize("score", [2.6, np.inf, np.nan])
def test_parts_that_do_not_add_up_are_never_shown(score: float) -> None:
    """Parts of another score would explain something that was not served."""
    told = parts_of(Linear(), np.ones((2, 2)), np.array([2.5, score]), always)
    assert (len(told.values), told.lacking) == (0, "not_additive")


def test_who_cannot_tell() -> None:
    """Without a model's score, or without the very model, there are no parts, and the rest is told all the same."""
    rules = mix("a", "b")
    made = ranked(rules, VALUES)
    fused = replace(made, scores=replace(made.scores, ranker=Ranker.FUSED, fallback_reason="scoring_failed"))
    other = Linear(ref=ModelRef("forest", "2", "0" * 64))
    rows = made.page.rows
    for changed, model, lacking in (
        (fused, Linear(), "no_model"),
        (made, None, "model_gone"),
        (made, other, "model_gone"),
    ):
        told = Explain(rules, nobody)(replace(changed, model=model), rows, always)
        assert told.contributions.lacking == lacking
        assert told.contributions.values.shape == (0, 2)
        assert told.ranks.tolist() == [1, 2, 3, 4]


def test_nothing_found() -> None:
    """An answer without candidates has nothing to explain, and no fault."""
    rules = mix("a")
    empty = answer(
        candidates=Merge(rules)(plan(rules), [reply("a", hits())]),
        features=replace(features(one=[1.0]), matrix=np.empty((0, 1))),
        scores=Scores(np.empty(0), Ranker.MODEL, MODEL),
    )
    empty = replace(empty, page=replace(empty.page, order=np.empty(0, np.intp)))
    told = explained(rules, replace(empty, model=Linear()), rows=[])
    assert (len(told.ranks), told.votes.shape, told.contributions.lacking) == (0, (1, 0), "")
