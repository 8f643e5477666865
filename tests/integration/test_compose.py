"""compose.yaml, as Docker Compose's own library reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tests.integration.chart import ROOT, run, tool


def test_compose_takes_the_file() -> None:
    """The file is sound by the Compose specification: its words, their types, its variables."""
    model = yaml.safe_load(run("compose", str(ROOT / "compose.yaml")))
    raw = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert model["services"].keys() == raw["services"].keys()
    assert model["services"]["collector"]["command"][-1] == "--config=/etc/otelcol/collector.yaml"


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """The check can fail: a word that Compose does not know."""
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    spoiled = tmp_path / "compose.yaml"
    spoiled.write_text(text.replace("restart:", "restrat:"))
    done = subprocess.run([tool("compose"), str(spoiled)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "restrat" in done.stdout + done.stderr
