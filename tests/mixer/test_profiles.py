from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixer import catalogue, profiles
from mixer.manifest import Manifest, Profile
from mixer.metrics import Metrics
from mixer.profiles import ProfileCounts
from mixer.values import Features, ModelRef, Ranker, Scores

NAN = float("nan")
SHARES = Profile(edges=(0.0, 1.0), shares=(0.2, 0.4, 0.3), missing=0.1)


@pytest.fixture
def manifest(model_folder: Path) -> Manifest:
    made = Manifest.model_validate_json((model_folder / "manifest.json").read_bytes())
    names = [feature.name for feature in made.features]
    update = {"score_profile": SHARES, "profiles": dict.fromkeys(names, SHARES)}
    return made.model_copy(update=update)


class Counted:
    def __init__(self) -> None:
        self.metrics = Metrics()
        self.counts = ProfileCounts("m", self.metrics)

    def bins(self, name: str, **labels: str) -> list[float | None]:
        value = self.metrics.registry.get_sample_value
        return [value(name, {"mix": "m", "bin": bin_, **labels}) for bin_ in ("0", "1", "2", "missing")]


def features(manifest: Manifest, *first: float) -> Features:
    """Rows whose first feature has these values; all others are missing."""
    matrix = np.full((len(first), len(manifest.features)), NAN)
    matrix[:, 0] = first
    none = np.zeros(len(manifest.features), np.intp)
    return Features(tuple(feature.name for feature in manifest.features), matrix, none, none)


def scores(manifest: Manifest, *values: float, ranker: Ranker = Ranker.MODEL) -> Scores:
    ref = ModelRef(manifest.name, manifest.version, manifest.model_sha256)
    reason = "" if ranker is Ranker.MODEL else "scoring_failed"
    return Scores(np.array(values), ranker, ref, reason)


def test_what_is_served_is_counted_beside_what_was_trained_on(manifest: Manifest) -> None:
    """Scores and every feature by the manifest's bins, under the model's version, with the trained shares beside."""
    counted = Counted()
    counted.counts.reference(manifest)
    shown = features(manifest, -1.0, 0.5, 2.0, NAN)
    counted.counts.count(shown, scores(manifest, -5, 0, 0.5, 7))
    counted.counts.count(shown, scores(manifest, 0.5, 0.6, 0.7, NAN))
    one, other = shown.names[:2]
    version = manifest.version
    assert counted.bins("mixer_score_bin_total", version=version) == [2, 4, 1, 0]
    assert counted.bins("mixer_score_bin_reference_ratio", version=version) == [0.2, 0.4, 0.3, 0.1]
    assert counted.bins("mixer_feature_bin_total", version=version, feature=one) == [2, 2, 2, 2]
    assert counted.bins("mixer_feature_bin_total", version=version, feature=other) == [0, 0, 0, 8]
    reference = counted.bins("mixer_feature_bin_reference_ratio", version=version, feature=one)
    assert reference == [0.2, 0.4, 0.3, 0.1]


def test_a_bin_exists_before_it_is_hit(manifest: Manifest) -> None:
    """Every bin is at 0 from the start, so that its first hits are seen as an increase."""
    counted = Counted()
    counted.counts.reference(manifest)
    assert counted.bins("mixer_score_bin_total", version=manifest.version) == [0, 0, 0, 0]


def test_a_fallback_s_features_count_and_its_scores_do_not(manifest: Manifest) -> None:
    """Fused scores are not the model's; what the model would have seen is."""
    counted = Counted()
    counted.counts.reference(manifest)
    shown = features(manifest, 0.5)
    counted.counts.count(shown, scores(manifest, 0.5, ranker=Ranker.FUSED))
    assert counted.bins("mixer_score_bin_total", version=manifest.version) == [0, 0, 0, 0]
    one = shown.names[0]
    assert counted.bins("mixer_feature_bin_total", version=manifest.version, feature=one) == [0, 1, 0, 0]


def test_two_models_are_counted_apart(manifest: Manifest) -> None:
    """Bins of one model mean nothing for another: each answer counts for the model that ranked it."""
    counted = Counted()
    other = manifest.model_copy(update={"version": "other", "model_sha256": "0" * 64})
    for model in (manifest, other, manifest):
        counted.counts.reference(model)
    counted.counts.count(features(manifest, 1.0), scores(manifest, 0.5))
    counted.counts.count(features(manifest, 1.0), scores(other, -0.5))
    assert counted.bins("mixer_score_bin_total", version=manifest.version) == [0, 1, 0, 0]
    assert counted.bins("mixer_score_bin_total", version="other") == [1, 0, 0, 0]


def test_models_of_long_ago_are_forgotten(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many models swapped in one after another only the last ones have series."""
    monkeypatch.setattr(profiles, "_KEPT", 2)
    counted = Counted()
    for number in range(5):
        update = {"version": f"v{number}", "model_sha256": f"{number:064}"}
        counted.counts.reference(manifest.model_copy(update=update))
    told = {
        sample.labels["version"]
        for family in counted.metrics.registry.collect()
        for sample in family.samples
        if "bin" in sample.labels
    }
    assert told == {"v3", "v4"}


def test_a_mix_without_a_model_counts_nothing(manifest: Manifest) -> None:
    """Neither scores that no model made nor those of one that was never announced."""
    counted = Counted()
    counted.counts.count(features(manifest, 1.0), Scores(np.ones(1), Ranker.FUSED))
    counted.counts.count(features(manifest, 1.0), scores(manifest, 1.0))
    families = {family.name: family.samples for family in counted.metrics.registry.collect()}
    assert families[catalogue.SCORE_BIN.name.removesuffix("_total")] == []
