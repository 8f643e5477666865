from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.manifest import Manifest
from models import drift

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=8).filter(lambda shares: sum(shares) > 0.01)


@pytest.fixture
def manifest(model_folder: Path) -> Manifest:
    return Manifest.model_validate_json((model_folder / "manifest.json").read_bytes())


def test_psi_by_hand() -> None:
    """(0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5); counts are as good as shares."""
    expected = 0.1 * math.log(1.2) - 0.1 * math.log(0.8)
    assert drift.psi([0.5, 0.5], [0.6, 0.4]) == pytest.approx(expected)
    assert drift.psi([0.5, 0.5], [60, 40]) == pytest.approx(expected)


@given(st.tuples(SHARES, SHARES).filter(lambda both: len(both[0]) == len(both[1])))
def test_psi_is_symmetric_and_never_negative(both: tuple[list[float], list[float]]) -> None:
    """The same either way, and 0 where nothing moved; an empty bin makes it large, not infinite."""
    old, new = both
    assert drift.psi(old, new) == pytest.approx(drift.psi(new, old))
    assert drift.psi(old, new) >= 0
    assert drift.psi(old, old) == 0
    assert math.isfinite(drift.psi(old, new))


@pytest.mark.parametrize(("old", "new"), [([1.0], [1.0, 2.0]), ([0.0, 0.0], [1.0, 1.0]), ([], [])])
def test_what_cannot_be_compared_is_an_error(old: list[float], new: list[float]) -> None:
    """Other bins, or nothing in them."""
    with pytest.raises(ValueError, match="bin"):
        drift.psi(old, new)


def test_enough_answers_tell_drift_from_chance(manifest: Manifest) -> None:
    """With as many answers as are asked for, chance alone stays on average within half of the bound."""
    many = manifest.data.model_copy(update={"queries": {"train": 1000}})
    needed = drift.answers_needed(manifest.model_copy(update={"data": many}), 0.25)
    assert needed is not None
    random, shares = np.random.default_rng(0), np.full(11, 1 / 11)
    found = [
        drift.psi(random.multinomial(1000, shares).tolist(), random.multinomial(needed, shares).tolist())
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
