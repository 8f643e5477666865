"""What all tests share: how hypothesis looks for counter-examples, trained models, the log, logged searches."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings

from mixer import telemetry
from mixer.model import LightGbmModel, load
from tests import forest, served

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


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same features."""
    folder = tmp_path_factory.mktemp("other") / "forest"
    recipe = forest.RECIPE.model_copy(update={"rounds": 5, "patience": 5})
    forest.written(folder, forest.trained(recipe=recipe))
    return folder


@pytest.fixture(scope="session")
def logged_model(model_folder: Path) -> LightGbmModel:
    return load(model_folder, forest.FEATURES)


@pytest.fixture(scope="session")
def log(logged_model: LightGbmModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety searches over two hours, and a file that was torn."""
    folder = served.write(tmp_path_factory.mktemp("log"), [served.row(n, logged_model) for n in range(90)])
    (folder / "date=2024-05-01/hour=10/torn.parquet").write_bytes(b"PAR1 no more")
    return folder


@pytest.fixture
def logged() -> Iterator[StringIO]:
    """What is logged, as the server sets logging up."""
    root, out = logging.getLogger(), StringIO()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    with patch.object(sys, "stdout", out):
        telemetry.start_logging("info")
    yield out
    root.handlers[:] = handlers
    root.setLevel(level)
