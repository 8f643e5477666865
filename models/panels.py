"""Panels of a dashboard, the PromQL that they ask, and both as Grafana's JSON (schema 39).

Series are asked for by the catalogue's metrics, so that no panel names one that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mixer.catalogue import Kind, Metric

Style = Literal["timeseries", "stat", "table", "heatmap"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS, _HEIGHTS = 24, {"stat": 4, "timeseries": 8, "table": 8, "heatmap": 8}
_SCOPES = ("mix", "model", "version")
"""Labels that a variable of the dashboard chooses values of."""


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: what it is called, what it says, and what it asks."""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    style: Style = "timeseries"
    width: int = 8
    """Of 24 columns."""


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one title."""

    title: str
    panels: tuple[Panel, ...]


def series(metric: Metric, *matchers: str, suffix: str = "") -> str:
    """The metric's series that the dashboard's variables choose."""
    scoped = [f'{label}=~"${label}"' for label in _SCOPES if label in metric.labels]
    chosen = ",".join(['job=~"$job"', *scoped, *matchers])
    return f"{metric.name}{suffix}{{{chosen}}}"


def rate(metric: Metric, *by: str, matchers: Sequence[str] = (), suffix: str = "") -> str:
    """What is added a second, summed over all but these labels."""
    return f"sum{_by(by)} (rate({series(metric, *matchers, suffix=suffix)}[$__rate_interval]))"


def quantile(q: float, metric: Metric, *by: str) -> str:
    """A quantile of a histogram's values of late."""
    return f"histogram_quantile({q:g}, {rate(metric, *by, 'le', suffix='_bucket')})"


def latest(metric: Metric, *by: str) -> str:
    """A gauge over all processes, as workers of one server make one of theirs."""
    how = metric.merged.removeprefix("live")
    return f"{how}{_by(by)} ({series(metric)})"


def share(part: str, whole: str) -> str:
    """A share of what there is; 0 where none of the part was ever counted."""
    return f"({part} or vector(0)) / ({whole} > 0)"


def _by(labels: Sequence[str]) -> str:
    return f" by ({', '.join(labels)})" if labels else ""


def of(
    metric: Metric, *by: str, title: str = "", style: Style = "timeseries", width: int = 8, more: str = ""
) -> Panel:
    """The panel that a metric of its kind gets, by these labels; the catalogue says what it is."""
    return Panel(
        title or name_of(metric),
        f"{metric.help} `{metric.name}`{f'. {more}' if more else ''}",
        tuple(_queries(metric, by)),
        unit_of(metric),
        style,
        width,
    )


def _queries(metric: Metric, by: Sequence[str]) -> Iterator[Query]:
    legend = legend_of(by)
    if metric.kind is Kind.COUNTER:
        yield Query(rate(metric, *by), legend)
    elif metric.kind is Kind.GAUGE:
        yield Query(latest(metric, *by), legend)
    else:
        for q in (0.5, 0.99):
            yield Query(quantile(q, metric, *by), f"p{100 * q:g} {legend}".strip())


def name_of(metric: Metric) -> str:
    """A metric's name in words."""
    bare = metric.name.removeprefix("mixer_").removesuffix("_total").removesuffix("_seconds")
    return bare.replace("_", " ").capitalize()


def legend_of(labels: Sequence[str]) -> str:
    """A legend that tells the values of these labels."""
    return " ".join(f"{{{{{label}}}}}" for label in labels)


def unit_of(metric: Metric) -> str:
    """Grafana's unit, out of the unit in the metric's name."""
    if metric.kind is Kind.COUNTER:
        return "percentunit" if metric.name.endswith("_seconds_total") else "cps"
    units = {"timestamp_seconds": "dateTimeFromNow", "seconds": "s", "ratio": "percentunit", "bytes": "bytes"}
    return next((unit for end, unit in units.items() if metric.name.endswith(f"_{end}")), "short")


def laid_out(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All panels with their places, from left to right, a title above each row."""
    made: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        made.append({"id": len(made) + 1, "type": "row", "title": row.title, "collapsed": False, "panels": [],
                     "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": top}})  # fmt: skip
        top += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                left, top, height = 0, top + height, 0
            tall = _HEIGHTS[panel.style]
            place = {"h": tall, "w": panel.width, "x": left, "y": top}
            made.append({"id": len(made) + 1, **_written(panel), "gridPos": place})
            left, height = left + panel.width, max(height, tall)
        top += height
    return made


def _written(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.style,
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "options": _OPTIONS[panel.style],
        "targets": [_target(panel, *numbered) for numbered in enumerate(panel.queries)],
        "transformations": _TABLE if panel.style == "table" else [],
    }


def _target(panel: Panel, number: int, query: Query) -> dict[str, Any]:
    at_once = panel.style in ("stat", "table")
    formats = {"table": "table", "heatmap": "heatmap"}
    return {
        "refId": chr(ord("A") + number),
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": at_once,
        "range": not at_once,
        "format": formats.get(panel.style, "time_series"),
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "none",
        "textMode": "auto",
    },
    "table": {"showHeader": True, "cellHeight": "sm", "footer": {"show": False}},
    "heatmap": {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
        "yAxis": {"unit": "s"},
        "tooltip": {"mode": "single", "yHistogram": False},
        "legend": {"show": True},
    },
}
_TABLE = [{"id": "organize", "options": {"excludeByName": {"Time": True}}}]
