"""Several models as one: the weighted sum of their scores, with each one's own beside it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.base import FloatColumn
from mixer import sources
from mixer.model import LightGbmModel, ModelRefused
from mixer.model_settings import (
    EnsembleModelSettings,
    FolderModelSettings,
    MemberSettings,
    ModelSettings,
    RegistryModelSettings,
)
from mixer.rank import RankByModel
from mixer.schema import Feature
from mixer.values import ModelRef, Ranker, Scores


@dataclass(frozen=True, slots=True)
class Member:
    """A model of an ensemble, by its name in the settings, and the weight of its scores."""

    name: str
    weight: float
    model: LightGbmModel


class Ensemble:
    """Models of one feature schema, scored one after another on the calling thread."""

    def __init__(self, name: str, members: Sequence[Member]) -> None:
        """Named as in the settings; its hash covers its members' hashes and weights, in order."""
        self.members = tuple(members)
        parts = [[member.model.ref.sha256, float(member.weight)] for member in members]
        sha256 = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        self.ref = ModelRef(name, sha256[:12], sha256)
        self.scorer = ", ".join(sorted({member.model.scorer for member in members}))

    @property
    def importance(self) -> Mapping[str, float]:
        """Share of the total gain by feature, each member's by its weight; all of them add up to 1."""
        total = sum(member.weight for member in self.members)
        told = [(member.weight / total, member.model.manifest.importance) for member in self.members]
        return {name: sum(weight * gains[name] for weight, gains in told) for name in told[0][1]}

    def score(self, matrix: FloatColumn) -> FloatColumn:
        """The weighted sum (n,) of the members' raw scores of rows (n, f). Raises: ScoringFailed."""
        return self.sum(self.each(matrix))

    def contributions(self, matrix: FloatColumn) -> FloatColumn:
        """What each feature adds to a row's score, and the bias last (n, f + 1): members' parts by their weights."""
        return self.sum({member.name: member.model.contributions(matrix) for member in self.members})

    def each(self, matrix: FloatColumn) -> dict[str, FloatColumn]:
        """Every member's raw scores (n,), unweighted. Raises: ScoringFailed where any of them fails."""
        return {member.name: member.model.score(matrix) for member in self.members}

    def sum(self, scores: Mapping[str, FloatColumn]) -> FloatColumn:
        """One by one, in the order of the settings: the same doubles on every machine."""
        first, *others = self.members
        total: FloatColumn = first.weight * scores[first.name]
        for member in others:
            total = total + member.weight * scores[member.name]
        return total


class RankByEnsemble(RankByModel):
    """The stage with an ensemble. Where a member fails the prior order stands: the rest is not what was tested."""

    def __init__(self, ensemble: Ensemble) -> None:
        """Takes an ensemble whose members passed their checks."""
        super().__init__(ensemble)
        self._ensemble = ensemble

    def _score(self, matrix: FloatColumn) -> Scores:
        each, of = self._ensemble.each(matrix), self._ensemble
        return Scores(of.sum(each), Ranker.MODEL, of.ref, scorer=of.scorer, members=each)


def load(
    name: str, models: Mapping[str, ModelSettings], features: Sequence[Feature]
) -> LightGbmModel | Ensemble:
    """The model or the ensemble of this name in the settings, all checks passed. Takes seconds a model.

    Raises: ModelRefused, that of a member naming it.
    """
    declared = models[name]
    if not isinstance(declared, EnsembleModelSettings):
        return sources.load(declared, features)
    return Ensemble(name, [_member(member, models, features) for member in declared.members])


def folders(name: str, models: Mapping[str, ModelSettings]) -> list[Path]:
    """The folders of this model, or of its members, as they are now. Raises: ModelRefused."""
    declared = models[name]
    if not isinstance(declared, EnsembleModelSettings):
        return [sources.folder_of(declared)]
    return [folder for member in declared.members for folder in folders(member.model, models)]


def _member(
    declared: MemberSettings, models: Mapping[str, ModelSettings], features: Sequence[Feature]
) -> Member:
    try:
        return Member(declared.model, declared.weight, sources.load(alone(declared.model, models), features))
    except ModelRefused as refusal:
        raise refused(declared.model, refusal) from refusal


def alone(name: str, models: Mapping[str, ModelSettings]) -> FolderModelSettings | RegistryModelSettings:
    """A model that may be a member. Raises: ValueError for an ensemble, which settings refuse before."""
    declared = models[name]
    if isinstance(declared, EnsembleModelSettings):
        raise ValueError(f"{name!r} is an ensemble itself")
    return declared


def refused(member: str, refusal: ModelRefused) -> ModelRefused:
    """The refusal of an ensemble for one of its members."""
    return ModelRefused(refusal.check, f"member {member!r}: {refusal}", refusal.ref)
