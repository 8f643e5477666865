"""Writes the dashboards, a JSON file each, for Grafana's provisioning and for the chart."""

from __future__ import annotations

import json
from pathlib import Path

from models.boards import boards
from models.dashboards import dashboard


def texts() -> dict[str, str]:
    """What every file holds, by its name."""
    return {
        f"{board.name}.json": json.dumps(dashboard(board), indent=2, ensure_ascii=False) + "\n"
        for board in boards()
    }


def write(folder: Path) -> list[Path]:
    """Write all of them. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    made = texts()
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in made]
