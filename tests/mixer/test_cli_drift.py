from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mixer.cli import app
from tests import forest

RUNNER = CliRunner()


@pytest.fixture
def config(tmp_path: Path, model_folder: Path) -> Path:
    path = tmp_path / "mixer.yaml"
    features = [feature.model_dump(mode="json") for feature in forest.FEATURES]
    raw = {
        "backends": {"a": {"kind": "remote", "target": "127.0.0.1:1"}},
        "models": {"forest": {"path": str(model_folder)}},
        "mixes": {"default": {"backends": {"a": {}}, "model": "forest", "features": features}},
    }
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def test_rules_are_written(config: Path, tmp_path: Path) -> None:
    """Rules and their tests, with the bounds and labels that were asked for; doubts about the figures are said."""
    bounds = tmp_path / "bounds.yaml"
    bounds.write_text("psi: 0.4\n", encoding="utf-8")
    command = ["rules", "-c", str(config), "--out", str(tmp_path / "out"), "--bounds", str(bounds)]
    done = RUNNER.invoke(app, [*command, "--match", "job=mixer", "--runbooks", "https://example.org/r"])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "mixer.rules.yaml").read_text(encoding="utf-8")
    assert 'psi1h{job="mixer"} > 0.4' in text
    assert 'job="mixer"' in text
    assert "https://example.org/r#mixerscoredrift" in text
    assert (tmp_path / "out" / "mixer.rules.test.yaml").is_file()
    assert "too few queries" in done.output


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--match", "job"], "write label=value"),
        (["--match", 'job="x"'], "write label=value"),
        (["--bounds", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["-c", "nowhere.yaml"], "nowhere.yaml: No such file"),
    ],
)
def test_what_cannot_be_read_is_said(config: Path, tmp_path: Path, wrong: list[str], said: str) -> None:
    """A fault of the command line ends the command with a line that names it."""
    done = RUNNER.invoke(app, ["rules", "-c", str(config), "--out", str(tmp_path / "out"), *wrong])
    assert done.exit_code == 1
    assert said in done.output


def test_bounds_have_no_unknown_part(config: Path, tmp_path: Path) -> None:
    """A misspelled bound is a fault, not a default."""
    bounds = tmp_path / "bounds.yaml"
    bounds.write_text("psy: 0.4\n", encoding="utf-8")
    done = RUNNER.invoke(app, ["rules", "-c", str(config), "--out", str(tmp_path), "--bounds", str(bounds)])
    assert done.exit_code == 1
    assert "psy: unknown key" in done.output


def test_a_model_that_is_not_there_is_said(config: Path, tmp_path: Path, model_folder: Path) -> None:
    """Rules need the manifest of every model."""
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(str(model_folder), str(tmp_path / "gone")), encoding="utf-8")
    done = RUNNER.invoke(app, ["rules", "-c", str(config), "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "manifest.json cannot be read" in done.output
