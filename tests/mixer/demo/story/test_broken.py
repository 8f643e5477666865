from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mixer import model
from mixer.demo.story import broken
from mixer.demo.story.broken import Workshop, truncated
from mixer.manifest import MODEL
from models import work
from models.collection import Listing
from models.judgements import Judgements
from models.work import Job
from tests import forest
from tests.samples import mix


def of_split(split: str, numbers: range) -> list[Listing]:
    return [
        replace(ls, judged=ls.judged.model_copy(update={"split": split})) for ls in forest.listings(numbers)
    ]


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """One that trains on the forest's listings."""
    rules = mix("a", features=[feature.model_dump() for feature in forest.FEATURES])
    monkeypatch.setattr(broken, "QUICK", forest.RECIPE)
    monkeypatch.setattr(model, "_test_load", lambda folder, manifest: None)
    monkeypatch.setattr(Job, "rules", rules)
    listings = [
        *of_split("train", range(24)),
        *of_split("valid", range(100, 108)),
        *of_split("test", range(200, 220)),
    ]
    job = work.Job(None, "default", Judgements("made", "0" * 64, tuple(ls.judged for ls in listings)))  # type: ignore[arg-type]
    return Workshop(job, listings)


def test_a_copy_that_was_cut_off(model_folder: Path, tmp_path: Path) -> None:
    """Its manifest is whole, half of its forest is there."""
    truncated(model_folder, tmp_path / "copy")
    assert (tmp_path / "copy" / MODEL).stat().st_size == (model_folder / MODEL).stat().st_size // 2
    with pytest.raises(model.ModelRefused) as refusal:
        model.load(tmp_path / "copy", forest.FEATURES)
    assert refusal.value.check == "checksum"


def test_faults_of_training_load_as_sound_models(shop: Workshop, tmp_path: Path) -> None:
    """Only what they rank tells: nothing in file or manifest is wrong."""
    shop.permuted(tmp_path / "permuted")
    shop.wrong_units(forest.FEATURES[0].name, tmp_path / "units")
    for name in ("permuted", "units"):
        assert model.load(tmp_path / name, forest.FEATURES).manifest.name == name


def test_what_was_learned_by_heart(shop: Workshop, tmp_path: Path) -> None:
    """It ranks the judged queries better than those that people ask."""
    shop.by_heart(tmp_path / "d")
    loaded = model.load(tmp_path / "d", forest.FEATURES)

    def agreement(listings: list[Listing]) -> float:
        return float(np.mean([np.corrcoef(loaded.score(ls.features), ls.grades)[0, 1] for ls in listings]))

    assert agreement(of_split("test", range(200, 220))) > agreement(of_split("train", range(24))) + 0.2
