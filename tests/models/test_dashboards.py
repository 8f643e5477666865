from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixer.catalogue import LABELS, METRICS, Kind, Metric
from mixer.manifest import Manifest
from models import dashboard_files
from models.boards import boards, home, panels_of, reads
from models.dashboards import dashboard
from models.rules import Bounds, Mixes, groups
from tests.check import dashboards as check
from tests.commands import run, said

BOARDS = [dashboard(board) for board in boards()]
ALL = pytest.mark.parametrize("made", BOARDS, ids=lambda made: str(made["uid"]))
PROMETHEUS_OWN = {"ALERTS", "up"}


def panels(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in made["panels"] if panel["type"] != "row"]


def exprs(made: dict[str, Any]) -> list[str]:
    targets = [target["expr"] for panel in panels(made) for target in panel["targets"]]
    return [*targets, *(each["expr"] for each in made["annotations"]["list"])]


def names(expr: str) -> set[str]:
    """Metrics and recorded series that an expression reads: whatever stands before a selector."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', expr)
    return set(re.findall(r"([a-zA-Z_:][\w:]*)\{", bare))


def test_every_metric_is_on_a_dashboard() -> None:
    """Whatever the catalogue holds is read by some panel."""
    read = [expr for made in BOARDS for expr in exprs(made)]
    assert [metric.name for metric in METRICS if not any(reads(expr, metric) for expr in read)] == []


def test_panels_read_what_is_there(model_folder: Path) -> None:
    """Every name is the catalogue's, recorded by a rule, or Prometheus's own."""
    manifest = Manifest.model_validate_json((model_folder / "manifest.json").read_bytes())
    rules = groups(Mixes({"m": manifest}, sliced=True), Bounds())["groups"]
    recorded = {rule["record"] for group in rules for rule in group["rules"] if "record" in rule}
    histograms = {"_count", "_sum", "_bucket"}
    known = {m.name for m in METRICS if m.kind is not Kind.HISTOGRAM}
    known |= {m.name + suffix for m in METRICS if m.kind is Kind.HISTOGRAM for suffix in histograms}
    for made in BOARDS:
        for expr in exprs(made):
            found = names(expr)
            assert found, expr
            assert found <= known | recorded | PROMETHEUS_OWN, expr


@ALL
def test_labels_are_those_of_the_metrics(made: dict[str, Any]) -> None:
    """What is grouped by, matched or told in a legend is a label of the catalogue."""
    known = {*LABELS, "job", "le", "alertname", "alertstate", "instance"}
    for panel in panels(made):
        for target in panel["targets"]:
            used = {
                label.strip()
                for group in re.findall(r"by \(([^)]*)\)", target["expr"])
                for label in group.split(",")
            }
            used |= set(re.findall(r"[{,](\w+)(?:=|!=|=~|!~)\"", target["expr"]))
            used |= set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert used <= known, target


@ALL
def test_variables_are_declared(made: dict[str, Any]) -> None:
    """A panel asks by no variable that its dashboard lacks; Grafana would ask for the variable's name."""
    declared = {variable["name"] for variable in made["templating"]["list"]}
    used = set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(made["panels"])))
    assert {"datasource", "job", "mix"} <= declared
    assert used <= declared


@ALL
def test_panels_do_not_overlap(made: dict[str, Any]) -> None:
    """Every panel has a place of its own within the 24 columns, and an id of its own."""
    taken: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)


@ALL
def test_panels_say_what_they_show(made: dict[str, Any]) -> None:
    """Nobody has to guess: every panel has a title, a description, a unit, and tells its series apart."""
    for panel in panels(made):
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0


@pytest.mark.parametrize(
    ("labels", "board"),
    [
        (("mix", "backend", "state"), "mixer-backends"),
        (("mix", "arm", "model"), "mixer-experiments"),
        (("mix", "model"), "mixer-models"),
        (("mix", "reason"), "mixer-overview"),
        ((), "mixer-process"),
    ],
)
def test_a_new_metric_finds_its_dashboard(
    labels: tuple[str, ...], board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A metric that nobody placed gets a panel by its kind where its labels belong."""
    new = Metric("mixer_new_thing_total", Kind.COUNTER, "New.", labels)
    assert home(new) == board
    monkeypatch.setattr("models.boards.METRICS", (*METRICS, new))
    having = [
        made.name
        for made in boards.__wrapped__()
        if any(reads(query.expr, new) for panel in panels_of(made) for query in panel.queries)
    ]
    assert having == [board]


def test_reading_is_told_from_likeness() -> None:
    """A metric whose name begins like another's is not taken for it, nor is what the rules record."""
    candidates = next(metric for metric in METRICS if metric.name == "mixer_candidates")
    assert reads("rate(mixer_candidates_count{}[5m])", candidates)
    assert not reads("rate(mixer_candidates_seen_total{}[5m])", candidates)
    assert not reads("mix:mixer_candidates:ratio5m", replace(candidates, name="mix"))


def test_the_command_writes_them(tmp_path: Path) -> None:
    """`mixer dashboards FOLDER` writes a file each and names it; a folder that cannot be is said."""
    printed = said(run("dashboards", tmp_path / "out")).split()
    assert [Path(line).name for line in printed] == list(dashboard_files.texts())
    assert all(json.loads(Path(line).read_text(encoding="utf-8"))["schemaVersion"] == 39 for line in printed)
    (tmp_path / "file").write_text("")
    assert "file" in run("dashboards", tmp_path / "file").stderr


def test_stale_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What differs from the catalogue, is missing, or belongs to none is stale."""
    monkeypatch.setattr(check, "FOLDER", tmp_path)
    first, *rest = [path.name for path in dashboard_files.write(tmp_path)]
    assert check.stale() == []
    (tmp_path / first).write_text("{}")
    (tmp_path / rest[0]).unlink()
    (tmp_path / "other.json").write_text("{}")
    assert check.stale() == sorted([first, rest[0], "other.json"])
