from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from backends.base import FloatColumn
from mixer import ensemble, model
from mixer.ensemble import Ensemble, Member, RankByEnsemble
from mixer.model import ModelRefused
from mixer.model_settings import ModelSettings
from mixer.rank import ScoringFailed
from mixer.settings import SettingsError, parse
from mixer.values import ModelRef, Ranker
from tests import forest
from tests.doubles import engines, mixers
from tests.doubles.registries import Shelf
from tests.samples import candidates, features

NAN = float("nan")
MODELS: TypeAdapter[ModelSettings] = TypeAdapter(ModelSettings)
MEMORY = {"kind": "memory", "fields": engines.FIELDS, "documents": engines.DOCUMENTS}


class Fixed:
    """Stands in for a loaded model."""

    scorer = "forest"

    def __init__(self, scores: FloatColumn | Exception, sha256: str = "0" * 64) -> None:
        self.ref = ModelRef("fixed", "1", sha256)
        self._scores = scores

    def score(self, matrix: FloatColumn) -> FloatColumn:
        if isinstance(self._scores, Exception):
            raise self._scores
        return self._scores


def of(*members: tuple[float, Any]) -> Ensemble:
    """An ensemble of stand-ins with these weights, called a, b, c, and so on."""
    return Ensemble("all", [Member("abcdef"[n], weight, made) for n, (weight, made) in enumerate(members)])


TWO_ROWS = features(one=[1, 2])


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=5))
def test_the_score_is_the_weighted_sum(told: list[tuple[float, float, float]]) -> None:
    """Summed one by one in the order of the settings; every member's own score stands beside it."""
    scores = RankByEnsemble(of(*((weight, Fixed(np.array([x, y]))) for weight, x, y in told)))(
        candidates([1, 2]), TWO_ROWS
    )
    expected = [0.0, 0.0]
    for weight, *values in told:
        expected = [total + weight * value for total, value in zip(expected, values, strict=True)]
    assert scores.values.tolist() == expected
    assert {name: own.tolist() for name, own in scores.members.items()} == {
        "abcdef"[n]: [x, y] for n, (_, x, y) in enumerate(told)
    }
    assert (scores.ranker, scores.fallback_reason, scores.scorer) == (Ranker.MODEL, "", "forest")


def test_the_hash_covers_members_weights_and_order() -> None:
    """Whoever changes what is summed, or how much it counts, has another model."""
    one, two = Fixed(np.zeros(2), "1" * 64), Fixed(np.zeros(2), "2" * 64)
    made = [of((1, one), (2, two)), of((2, one), (1, two)), of((1, two), (2, one)), of((1, one))]
    assert len({each.ref.sha256 for each in made}) == len(made)
    assert of((1.0, one), (2.0, two)).ref == made[0].ref
    assert made[0].ref.version == made[0].ref.sha256[:12]


def test_a_member_that_fails_costs_the_order_of_all() -> None:
    """The rest of an ensemble is not the model that was tested: the fused order stands and says why."""
    rank = RankByEnsemble(of((1, Fixed(np.ones(2))), (1, Fixed(ScoringFailed()))))
    logging.disable(logging.CRITICAL)
    scores = rank(candidates([1, 2]), TWO_ROWS)
    logging.disable(logging.NOTSET)
    assert (scores.ranker, scores.fallback_reason) == (Ranker.FUSED, "scoring_failed")
    assert scores.model == of((1, Fixed(np.ones(2))), (1, Fixed(ScoringFailed()))).ref
    assert scores.members == {}


def test_a_row_that_a_member_gives_no_number_sinks() -> None:
    """A sum with something that is no number is none; where all are so the fused order stands."""
    some = RankByEnsemble(of((1, Fixed(np.array([NAN, 1.0]))), (1, Fixed(np.ones(2)))))
    none = RankByEnsemble(of((1, Fixed(np.array([NAN, NAN]))), (1, Fixed(np.ones(2)))))
    assert np.isnan(some(candidates([1, 2]), TWO_ROWS).values).tolist() == [True, False]
    assert none(candidates([1, 2]), TWO_ROWS).fallback_reason == "scores_not_finite"


def declared(folder: Path, **more: Any) -> Mapping[str, ModelSettings]:
    raw: dict[str, Any] = {
        "m": {"path": folder},
        "again": {"path": folder},
        "both": {"members": [{"model": "m", "weight": 0.25}, {"model": "again"}]},
        **more,
    }
    return {name: MODELS.validate_python(value) for name, value in raw.items()}


def test_an_ensemble_is_loaded_member_by_member(model_folder: Path) -> None:
    """Every member passes the checks of a model; together they score what they score alone."""
    alone = ensemble.load("m", declared(model_folder), forest.FEATURES)
    both = ensemble.load("both", declared(model_folder), forest.FEATURES)
    matrix = np.random.default_rng(1).normal(size=(40, len(forest.FEATURES)))
    assert isinstance(alone, model.LightGbmModel)
    assert isinstance(both, Ensemble)
    own = alone.score(matrix)
    assert both.score(matrix).tolist() == (0.25 * own + 1.0 * own).tolist()
    assert sum(both.importance.values()) == pytest.approx(1.0)
    assert both.importance == pytest.approx(alone.importance)


def test_a_refused_member_is_named(model_folder: Path) -> None:
    """One member that fails a check refuses the ensemble."""
    models = declared(model_folder, again={"path": model_folder / "gone"})
    with pytest.raises(ModelRefused, match="member 'again': ") as refused:
        ensemble.load("both", models, forest.FEATURES)
    assert refused.value.check == "manifest"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"path": "a", "members": [{"model": "m"}]},
        {"members": []},
        {"members": [{"model": "m", "weight": 0}]},
    ],
)
def test_a_model_is_a_folder_or_has_members(wrong: dict[str, Any]) -> None:
    """One of the two, and every member counts for something."""
    with pytest.raises(ValidationError):
        MODELS.validate_python(wrong)


def test_members_that_stand_twice_are_a_fault() -> None:
    """A model's weight stands in one place."""
    with pytest.raises(ValidationError, match="'m' stands twice"):
        MODELS.validate_python({"members": [{"model": "m"}, {"model": "n"}, {"model": "m"}]})


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (
            "{m: {path: x}, all: {members: [{model: m}, {model: n}]}}",
            "models.all.members.1.model: no model is called 'n'",
        ),
        (
            "{m: {path: x}, all: {members: [{model: m}]}, more: {members: [{model: all}]}}",
            "models.more.members.0.model: 'all' is an ensemble itself",
        ),
    ],
)
def test_a_member_that_is_no_model_is_a_fault(models: str, told: str) -> None:
    """What a member refers to is a model folder of the same settings."""
    text = (
        "backends: {a: {kind: memory, fields: {}, documents: []}}\n"
        f"models: {models}\nmixes: {{default: {{backends: {{a: {{}}}}}}}}\n"
    )
    with pytest.raises(SettingsError) as faults:
        parse(text)
    assert told in str(faults.value)


async def test_an_ensemble_ranks_and_says_so(model_folder: Path) -> None:
    """Over the socket its name and hash stand in the answer, and each member's scores on the rank span."""
    rules = {"model": "both", "features": [feature.model_dump() for feature in forest.FEATURES]}
    models = {name: value.model_dump(exclude_defaults=True) for name, value in declared(model_folder).items()}
    with mixers.tracing() as traced:
        async with mixers.running(mixers.settings({"a": MEMORY}, rules, models=models)) as mixer:
            result = await mixer.search("csv file")
            assert mixer.app.faults == {}
            assert (mixer.value("mixer_model_age_seconds", mix="default") or 0) > 0
    attributes = traced.one("rank").attributes or {}
    assert result.ranker == "model"
    assert result.model
    assert (result.model.name, attributes["mixer.model.sha256"]) == ("both", result.model.sha256)
    own = np.array(attributes["mixer.top.member.m"])
    assert own.tolist() == list(attributes["mixer.top.member.again"])  # type: ignore[arg-type]
    assert list(attributes["mixer.top.scores"]) == (0.25 * own + own).tolist()  # type: ignore[arg-type]


async def test_a_member_of_a_registry_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the member's version changes the ensemble is put together anew: another hash, other scores, no restart."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    shelf = Shelf(tmp_path)
    a, b = shelf.publish(6), shelf.publish(9)
    shelf.promote(a)
    models = {
        "still": {"path": str(tmp_path / "drafts" / "6")},
        "moving": shelf.settings,
        "both": {"members": [{"model": "still"}, {"model": "moving", "weight": 0.5}]},
    }
    rules = {"model": "both", "features": [feature.model_dump() for feature in forest.FEATURES]}
    async with mixers.running(mixers.settings({"a": MEMORY}, rules, models=models)) as mixer:
        before = await mixer.search("csv file", features=True)
        shelf.promote(b)
        lane = mixer.app.mixes["default"].lane
        await mixers.until(lambda: lane.stands.loaded.ref.sha256 != before.model.sha256)  # type: ignore[union-attr]
        after = await mixer.search("csv file", features=True)
        named = {s.labels["version"] for s in mixer.samples if s.name == "mixer_model_info"}
        # A member's own profile is of no use to the sum's scores: nothing is held against it.
        assert not [s for s in mixer.samples if s.name == "mixer_score_bin_reference_ratio"]
    assert before.model
    assert after.model
    for result, moving in ((before, a), (after, b)):
        still, moved = (shelf.scores(m.version, result.features) for m in (a, moving))
        assert [hit.score for hit in result.hits] == (1.0 * still + 0.5 * moved).tolist()
    assert named == {after.model.version, a.version, b.version}


async def test_an_ensemble_waits_for_a_member_of_a_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one has no current version the mix is not ready and names it; it becomes ready with it."""
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    shelf = Shelf(tmp_path)
    a = shelf.publish(6)
    models = {
        "still": {"path": str(tmp_path / "drafts" / "6")},
        "moving": shelf.settings,
        "both": {"members": [{"model": "still"}, {"model": "moving"}]},
    }
    rules = {"model": "both", "features": [feature.model_dump() for feature in forest.FEATURES]}
    async with mixers.running(mixers.settings({"a": MEMORY}, rules, models=models)) as mixer:
        assert "member 'moving': ranker has no current version" in mixer.app.faults["default"]
        shelf.promote(a)
        await mixers.until(lambda: not mixer.app.faults)
        result = await mixer.search("csv file")
    assert (result.ranker, result.model.name if result.model else "") == ("model", "both")
