"""Dashboards as Grafana's JSON (schema 39): variables, what changed as annotations, panels with their places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mixer import catalogue as metrics
from models.boards import Board, panels_of
from models.panels import SOURCE, laid_out, rate


def dashboard(board: Board) -> dict[str, Any]:
    """Grafana's JSON of a dashboard."""
    return {
        "uid": board.name,
        "title": board.title,
        "tags": ["mixer"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "Mixer", "tags": ["mixer"], "asDropdown": False,
                   "includeVars": True, "keepTime": True, "targetBlank": False}],
        "templating": {"list": [*_variables(board)]},
        "annotations": {"list": [*_annotations()]},
        "panels": laid_out(board.rows),
    }  # fmt: skip


_VARIABLES = {
    "job": metrics.SERVER_STARTED.name,
    "mix": f'{metrics.CANDIDATES.name}_count{{job=~"$job"}}',
    "model": f'{metrics.MODEL_INFO.name}{{job=~"$job",mix=~"$mix"}}',
    "version": f'{metrics.MODEL_INFO.name}{{job=~"$job",mix=~"$mix",model=~"$model"}}',
}
"""By name, the series whose label of that name a variable lists."""


def _variables(board: Board) -> Iterator[dict[str, Any]]:
    """Those that the board's panels use, and the links to the other boards carry."""
    yield {
        "name": "datasource",
        "label": "data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
    }
    used = " ".join(query.expr for panel in panels_of(board) for query in panel.queries)
    for name, listed in _VARIABLES.items():
        if name in ("job", "mix") or f"${name}" in used:
            yield _variable(name, f"label_values({listed}, {name})")


def _variable(name: str, asked: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": asked, "refId": f"variable-{name}"},
        "definition": asked,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _annotations() -> Iterator[dict[str, Any]]:
    """What changed, drawn over every panel."""
    swapped = rate(metrics.MODEL_SWAPS, "mix", matchers=['outcome="swapped"'])
    changed = rate(metrics.BACKEND_CHANGES, "mix", "backend", "what")
    for name, expr, words, color in (
        ("Model swapped", f"{swapped} > 0", "{{mix}}: another model", "blue"),
        ("Backend changed", f"{changed} > 0", "{{mix}}: {{what}} of {{backend}}", "purple"),
    ):
        yield {"name": name, "datasource": SOURCE, "enable": True, "expr": expr, "step": "30s",
               "titleFormat": words, "iconColor": color}  # fmt: skip
