"""Keeps the chart's Prometheus rules those of `models.rules`: `python -m tests.check.chart_rules [--write]`.

They are for any mix and model. The chart puts its release's namespace and scrape job in place of the words below.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from mixer.manifest import MANIFEST, Manifest
from models import rule_files
from models.rules import Bounds

ROOT = Path(__file__).parents[2]
PATH = ROOT / "helm" / "mixer" / "files" / "rules" / rule_files.RULES
DEPLOYMENT = {"namespace": "RELEASE_NAMESPACE", "job": "RELEASE_JOB"}
BOUNDS = Bounds(answers=200)
"""A manifest would tell how many answers tell drift from chance; this many do for models of 300 queries or more."""

HEAD = "# Rules for any mix and model, written by `make docs`; the chart names the release.\n"


def write(folder: Path, labels: dict[str, str]) -> Path:
    """Write rules and their unit tests for a deployment with these labels; returns the rules' file."""
    demo = ROOT / "models" / "demo" / "ranker" / MANIFEST
    example = {"default": Manifest.model_validate_json(demo.read_bytes())}
    rule_files.write(example, folder, BOUNDS, labels, sliced=True, named=False)
    return folder / rule_files.RULES


def fresh() -> str:
    """The chart's file as it should be."""
    with TemporaryDirectory() as folder:
        lines = write(Path(folder), DEPLOYMENT).read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join([HEAD, *(line for line in lines if not line.startswith("#"))])


if __name__ == "__main__":
    if "--write" in sys.argv:
        PATH.parent.mkdir(parents=True, exist_ok=True)
        PATH.write_text(fresh(), encoding="utf-8")
    elif not PATH.is_file() or PATH.read_text(encoding="utf-8") != fresh():
        sys.exit(f"{PATH.relative_to(ROOT)} is stale; run `make docs`")
