"""Loads a model folder and scores its golden queries, in a process that may die of it.

Exits 0 where all is well; 1 with one line on standard error where it is not; by a signal where LightGBM dies.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    # Before anything that takes long: a model may be checked while others serve on the same processors.
    os.nice(5)

import lightgbm

from mixer.manifest import MODEL
from mixer.model import check_golden, read_manifest


def main(folder: Path) -> int:
    """Check one folder."""
    try:
        fault = check_golden(folder, read_manifest(folder), lightgbm.Booster(model_file=str(folder / MODEL)))
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        sys.stderr.write(" ".join(fault.split()) + "\n")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
