"""What all tests share: how hypothesis looks for counter-examples, and one trained model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import forest

# No rule here is about time: a busy machine fails none.
settings.register_profile(
    "mixer",
    deadline=None,
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("mixer")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound model folder, for reading only."""
    folder = tmp_path_factory.mktemp("model") / "forest"
    forest.written(folder)
    return folder
