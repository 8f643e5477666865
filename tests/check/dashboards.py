"""Keeps the chart's dashboards those of the catalogue: `python -m tests.check.dashboards [--write]`."""

from __future__ import annotations

import sys
from pathlib import Path

from models import dashboard_files

FOLDER = Path(__file__).parents[2] / "helm" / "mixer" / "files" / "dashboards"


def stale() -> list[str]:
    """Files that are missing, differ, or belong to no dashboard."""
    made = dashboard_files.texts()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*")}
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))


if __name__ == "__main__":
    if "--write" in sys.argv:
        for name in stale():
            (FOLDER / name).unlink(missing_ok=True)
        dashboard_files.write(FOLDER)
    elif found := stale():
        sys.exit(f"{FOLDER}: {', '.join(found)} stale; run `make docs`")
