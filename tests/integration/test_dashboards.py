"""The dashboards' PromQL, as the real promtool reads it."""

from __future__ import annotations

from pathlib import Path

import yaml

from models.boards import boards
from models.dashboards import dashboard
from tests.integration.chart import run
from tests.models.test_dashboards import exprs


def resolved(expr: str) -> str:
    """An expression as Grafana asks it, with every variable at All."""
    for name in ("job", "mix", "model", "version"):
        expr = expr.replace(f'"${name}"', '".*"')
    return expr.replace("$__rate_interval", "1m")


def test_every_expression_is_promql(tmp_path: Path) -> None:
    """What panels and annotations ask is an expression that Prometheus takes."""
    asked = [resolved(expr) for board in boards() for expr in exprs(dashboard(board))]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(asked)]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    assert f"SUCCESS: {len(asked)} rules found" in run("promtool", "check", "rules", str(path))
    assert "$" not in "".join(asked)
