"""Holds the demo's golden vectors against this code: `python -m tests.check.golden_vectors [--write]`."""

from __future__ import annotations

import sys
from pathlib import Path

from mixer import settings
from mixer.model import load, read_manifest
from models import golden_vectors, vector_inputs

ROOT = Path(__file__).parents[2]
FILE = ROOT / "models/demo/golden-vectors.json"
MODEL = ROOT / "models/demo/ranker"
SETTINGS = ROOT / "mixer/demo/mixer.yaml"


def main(write: bool) -> list[str]:
    """Write the file anew, or say what differs from it."""
    model = load(MODEL, read_manifest(MODEL).features)
    if write:
        mix = settings.load(SETTINGS).mixes["default"]
        golden_vectors.write(vector_inputs.vectors(MODEL, model, mix), FILE)
    return list(golden_vectors.faults(golden_vectors.read(FILE), model))


if __name__ == "__main__":
    found = main("--write" in sys.argv)
    for fault in found:
        print(f"{FILE.relative_to(ROOT)}: {fault}", file=sys.stderr)
    sys.exit(1 if found else 0)
