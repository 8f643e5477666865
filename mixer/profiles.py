"""What is served, counted by the bins of the profiles that the ranking model's manifest holds, for every model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from backends.base import FloatColumn
from mixer import catalogue
from mixer.catalogue import Metric
from mixer.manifest import Manifest, Profile
from mixer.metrics import Metrics
from mixer.values import Features, Ranker, Scores

if TYPE_CHECKING:
    from mixer.bins import Bins

MISSING = "missing"
"""The bin of values that are not known."""
_KEPT = 16
"""Models whose counts are kept; of one more, the first is forgotten."""

Labels = dict[str, str]


class ProfileCounts:
    """Scores and features of one mix by the bins of the model that ranked, or should have.

    Answers are counted in arrays; metrics get the counts when they are read.
    """

    def __init__(self, mix: str, metrics: Metrics, slices: Mapping[str, Sequence[str]] | None = None) -> None:
        """Counts nothing until it is told of a model. Takes the values of the slices that scores are counted by."""
        self._mix, self._metrics, self._slices = mix, metrics, slices or {}
        self._models: dict[str, _Model] = {}
        metrics.before_reading(self._settle)

    def reference(self, manifest: Manifest) -> None:
        """A model ranks from now on: its profiles are what its answers are held against."""
        if manifest.model_sha256 in self._models:
            return
        while len(self._models) >= _KEPT:
            self._models.pop(next(iter(self._models))).forget()
        labels = {"mix": self._mix, "version": manifest.version}
        made = _Model(self._metrics, manifest, labels, self._slices)
        # Replaced as a whole: it is read while models are swapped.
        self._models = {**self._models, manifest.model_sha256: made}

    def count(self, features: Features, scores: Scores) -> None:
        """One answer; a fallback's scores are not the model's, but the features are those that it was shown."""
        model = self._models.get(scores.model.sha256) if scores.model else None
        if model is None:
            return
        if features.names == model.names:
            model.features.count(features.matrix.T)
        if scores.ranker is Ranker.MODEL:
            model.scores.count(_finite(scores))

    def count_slices(self, scores: Scores, slices: Mapping[str, str]) -> None:
        """One answer's scores, for each slice that it is in."""
        model = self._models.get(scores.model.sha256) if scores.model else None
        if model is None or scores.ranker is not Ranker.MODEL:
            return
        values = _finite(scores)
        for key in slices.items():
            model.slices[key].count(values)

    def _settle(self) -> None:
        for model in list(self._models.values()):
            for counted in model.all:
                counted.settle()


def _finite(scores: Scores) -> FloatColumn:
    """Those scores that are a number, as one row."""
    values: FloatColumn = scores.values[np.isfinite(scores.values)][None]
    return values


class _Model:
    """The bins of one model."""

    def __init__(
        self, metrics: Metrics, manifest: Manifest, labels: Labels, slices: Mapping[str, Sequence[str]]
    ) -> None:
        self.names = tuple(feature.name for feature in manifest.features)
        columns = [{**labels, "feature": name} for name in self.names]
        profiles = [manifest.profiles[name] for name in self.names]
        score, feature = _Counters(metrics, *_SCORES), _Counters(metrics, *_FEATURES)
        self.scores = _Counted(score, [manifest.score_profile], [labels])
        self.features = _Counted(feature, profiles, columns)
        sliced = _Counters(metrics, catalogue.SLICE_SCORE_BIN)
        self.slices = {
            (name, value): _Counted(
                sliced, [manifest.score_profile], [{**labels, "slice": name, "value": value}]
            )
            for name, values in slices.items()
            for value in values
        }
        self.all = (self.scores, self.features, *self.slices.values())

    def forget(self) -> None:
        """No such model is counted any more."""
        for counted in self.all:
            counted.forget()


_SCORES = (catalogue.SCORE_BIN, catalogue.SCORE_BIN_REFERENCE)
_FEATURES = (catalogue.FEATURE_BIN, catalogue.FEATURE_BIN_REFERENCE)


class _Counters:
    """A counter of bins, and the gauge, if there is one, with the shares that its model was trained on."""

    def __init__(self, metrics: Metrics, counter: Metric, reference: Metric | None = None) -> None:
        self._metrics, self._counter, self._reference = metrics, counter, reference

    def bound(self, profile: Profile, labels: Labels) -> list[Callable[[float], None]]:
        """For each bin, and last for what is missing, what adds to its count."""
        for share, label in zip((*profile.shares, profile.missing), _labels(profile, labels), strict=True):
            if self._reference:
                self._metrics.gauge(self._reference, **label).set(share)
        return [self._metrics.counter(self._counter, **label).inc for label in _labels(profile, labels)]

    def forget(self, profile: Profile, labels: Labels) -> None:
        for label in _labels(profile, labels):
            self._metrics.forget(self._counter, **label)
            if self._reference:
                self._metrics.forget(self._reference, **label)


def _labels(profile: Profile, labels: Labels) -> list[Labels]:
    return [{**labels, "bin": name} for name in (*map(str, range(len(profile.shares))), MISSING)]


class _Counted:
    """Some columns' bins, and the counters that show them."""

    def __init__(self, counters: _Counters, profiles: Sequence[Profile], labels: Sequence[Labels]) -> None:
        from mixer.bins import Bins  # compiled code, which only a mix with a model needs

        self._counters, self._columns = counters, list(zip(profiles, labels, strict=True))
        self._incs = [counters.bound(profile, label) for profile, label in self._columns]
        self._bins: Bins = Bins(profiles)
        self._shown = self._bins.counts()
        self.count = self._bins.count

    def settle(self) -> None:
        """Add to the counters what was counted since."""
        now, before = self._bins.counts(), self._shown
        self._shown = now
        for incs, counts, shown in zip(self._incs, now, before, strict=True):
            for inc, count, old in zip(incs, counts, shown, strict=True):
                if count != old:
                    inc(count - old)

    def forget(self) -> None:
        for profile, labels in self._columns:
            self._counters.forget(profile, labels)
