"""Keeps docs/runbooks.md that of the alerts: `python -m tests.check.runbooks [--write]`."""

from __future__ import annotations

import sys
from pathlib import Path

from models.alerts import RUNBOOKS, runbooks

PATH = Path(__file__).parents[2] / RUNBOOKS


if __name__ == "__main__":
    if "--write" in sys.argv:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(runbooks(), encoding="utf-8")
    elif not PATH.is_file() or PATH.read_text(encoding="utf-8") != runbooks():
        sys.exit(f"{RUNBOOKS} is stale; run `make docs`")
