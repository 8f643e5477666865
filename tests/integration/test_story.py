"""The story of a model's life comes true: `make story`, whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.flaky(reruns=0)  # it takes too long to be told twice
def test_the_story_comes_true(tmp_path: Path) -> None:
    """It ends well, no search failed, and every broken model was stopped by what should stop it."""
    command = [sys.executable, "-m", "mixer.demo.story", "--folder", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert told.returncode == 0, told.stdout[-5000:] + told.stderr[-2000:]
    assert ", 0 failed" in told.stdout.rpartition("The end")[2]
    for stopped in (
        "refused by ndcg_drop",
        "refused by units",
        "checksum: model.txt",
        "canary",
        "taken back at",
    ):
        assert stopped in told.stdout
