from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixer import stability
from mixer.manifest import Manifest
from models import drift


@pytest.fixture
def manifest(model_folder: Path) -> Manifest:
    return Manifest.model_validate_json((model_folder / "manifest.json").read_bytes())


def test_enough_answers_tell_drift_from_chance(manifest: Manifest) -> None:
    """With as many answers as are asked for, chance alone stays on average within half of the bound."""
    many = manifest.data.model_copy(update={"queries": {"train": 1000}})
    needed = drift.answers_needed(manifest.model_copy(update={"data": many}), 0.25)
    assert needed is not None
    random, shares = np.random.default_rng(0), np.full(11, 1 / 11)
    found = [
        stability.psi(random.multinomial(1000, shares).tolist(), random.multinomial(needed, shares).tolist())
        for _ in range(300)
    ]
    assert 0.1 < float(np.mean(found)) < 0.14


def test_a_model_of_few_queries_can_tell_nothing(manifest: Manifest) -> None:
    """Where the training itself was too small, no number of answers is enough."""
    assert drift.answers_needed(manifest, 0.25) is None


def test_the_weighty_features_hold_most_of_the_gain(manifest: Manifest) -> None:
    """The fewest of them, the weightiest first."""
    held = drift.weighty(manifest)
    gains = [manifest.importance[name] for name in held]
    assert gains == sorted(gains, reverse=True)
    assert sum(gains) >= 0.9 > sum(gains[:-1])
