"""The benchmark's model."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixer import model
from tests.bench import forest
from tests.bench.forest import Shelf


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forest, "TREES", 2)
    monkeypatch.setattr(forest, "RECIPE", forest.RECIPE.model_copy(update={"rounds": 2}))


def test_a_model_is_trained_once(tmp_path: Path) -> None:
    """The next run finds it; another number of backends has another, for it has other features."""
    shelf = Shelf(tmp_path / "models")
    first = shelf.model(3)
    at = (first / "model.txt").stat().st_mtime_ns
    assert shelf.model(3) == first
    assert (first / "model.txt").stat().st_mtime_ns == at
    assert shelf.model(2) != first
    manifest = model.read_manifest(first)
    assert manifest.trees == 2
    assert len(manifest.features) == 16


def test_a_model_that_mixer_does_not_read_is_trained_anew(tmp_path: Path) -> None:
    """One of an older format, for example."""
    shelf = Shelf(tmp_path)
    kept = shelf.model(1)
    (kept / "manifest.json").write_text("{}")
    assert shelf.model(1) == kept
    assert model.read_manifest(kept).trees == 2
