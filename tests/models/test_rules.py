from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixer.catalogue import LABELS, METRICS
from mixer.manifest import Manifest
from models import alerts, rule_files
from models.rules import Bounds, Mixes, any_of, doubts, groups

ROOT = Path(__file__).parents[2]


@pytest.fixture
def manifest(model_folder: Path) -> Manifest:
    return Manifest.model_validate_json((model_folder / "manifest.json").read_bytes())


def rules(mixes: Mixes) -> list[dict[str, Any]]:
    return [rule for group in groups(mixes, Bounds())["groups"] for rule in group["rules"]]


def names(expr: str) -> Iterator[str]:
    """Metrics and recorded series that an expression reads."""
    bare = re.sub(r'"(?:\\.|[^"\\])*"', '""', expr)
    yield from re.findall(r"\b(?:mix\w*:[\w:]+|mixer_\w[\w:]*|grpc_server_\w+)", bare)


def test_rules_read_what_is_there(manifest: Manifest) -> None:
    """Every name is the catalogue's or recorded by a rule before, and every recorded one is read."""
    known = {metric.name + suffix for metric in METRICS for suffix in ("", "_count", "_bucket")}
    recorded: set[str] = set()
    read: set[str] = set()
    for rule in rules(Mixes({"m": manifest, "plain": None}, sliced=True)):
        found = set(names(rule["expr"]))
        assert found <= known | recorded, rule
        read |= found
        recorded |= {rule["record"]} if "record" in rule else set()
    # For people and dashboards: no alert reads them.
    assert recorded - read == {
        "mix_feature:mixer_feature_missing:ratio1h",
        "mix_slice_value:mixer_slice_fallbacks:ratio5m",
    }


@pytest.mark.parametrize("named", [True, False])
def test_rules_of_one_deployment_ask_for_its_labels(manifest: Manifest, named: bool) -> None:
    """The labels that choose among deployments stand in every selector of a metric and of what is recorded, and on
    everything that the rules make: two deployments share one Prometheus."""
    found = rules(Mixes({"m": manifest}, {"job": "mixer"}, sliced=True, named=named))
    recorded = [rule["record"] for rule in found if "record" in rule]
    for rule in found:
        assert rule["labels"]["job"] == "mixer"
        for name in (*(metric.name for metric in METRICS), *recorded):
            for place in re.finditer(rf"(?<![\w:]){name}(?:_count|_bucket)?(?![\w:])", rule["expr"]):
                rest = rule["expr"][place.end() :]
                assert rest.startswith("{"), rule
                assert 'job="mixer"' in rest[: rest.index("}")], rule


def test_rules_for_any_mix_name_none(manifest: Manifest) -> None:
    """They hold for mixes, models and features that are not known when they are written, and raise every alert."""
    found = rules(Mixes({"an example": manifest}, sliced=True, named=False))
    assert not [rule for rule in found if "example" in rule["expr"] or "feature=~" in rule["expr"]]
    assert {rule["alert"] for rule in found if "alert" in rule} == {alert.name for alert in alerts.ALERTS}


def test_a_mix_without_a_model_has_no_drift(manifest: Manifest) -> None:
    """Rules about scores and features are there for models only."""
    assert [group["name"] for group in groups(Mixes({"plain": None}), Bounds())["groups"]] == [
        "mixer-service"
    ]
    assert len(groups(Mixes({"m": manifest}), Bounds())["groups"]) == 2


def test_names_match_only_themselves() -> None:
    """A name is a pattern that means itself, within a quoted string."""
    assert any_of(("a.b", 'c"d')) == '"a\\\\.b|c\\"d"'


def test_doubts_are_said(manifest: Manifest) -> None:
    """What makes figures of drift mislead: no profile to hold against, one of other rows, too few queries."""
    older = manifest.model_copy(update={"profile_rows": ""})
    judged = manifest.model_copy(update={"profile_rows": "judged"})
    said = list(doubts(Mixes({"a": older, "b": judged, "c": None}), Bounds()))
    assert [line[0] for line in said] == ["a", "a", "b", "b", "c"]
    assert "tells not what" in said[0]
    assert "judged documents only" in said[2]
    assert "too few queries" in said[3]


def test_files_say_what_they_are_for(manifest: Manifest, tmp_path: Path) -> None:
    """The rules file names the models that it was made for, and why its figures may mislead."""
    doubted = rule_files.write({"m": manifest}, tmp_path)
    text = (tmp_path / rule_files.RULES).read_text(encoding="utf-8")
    assert f"# m: forest {manifest.version}, sha256 {manifest.model_sha256}\n" in text
    assert all(f"# {line}\n" in text for line in doubted)


def test_every_alert_leads_to_its_runbook(manifest: Manifest) -> None:
    """The address that an alert carries is a section of the runbooks in the repository, which are up to date."""
    text = (ROOT / alerts.RUNBOOKS).read_text(encoding="utf-8")
    assert text == alerts.runbooks(), "stale; run `make docs`"
    anchors = {line.removeprefix("## ").lower() for line in text.splitlines() if line.startswith("## ")}
    raised = [rule for rule in rules(Mixes({"m": manifest}, sliced=True)) if "alert" in rule]
    for rule in raised:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (page, anchor in anchors) == (alerts.RUNBOOKS, True)
    assert {rule["alert"] for rule in raised} == {alert.name for alert in alerts.ALERTS}


@pytest.mark.parametrize("alert", alerts.ALERTS, ids=lambda alert: alert.name)
def test_texts_speak_of_labels_that_exist(alert: alerts.Alert) -> None:
    """Templates read labels of the catalogue; runbooks name metrics and alerts that exist."""
    used = re.findall(r"\$labels\.(\w+)", alert.summary + alert.description)
    assert set(used) <= set(LABELS)
    written = " ".join((alert.means, *alert.look, *alert.do))
    told = {f"{metric.name}{end}" for metric in METRICS for end in ("", "_count")}
    assert {
        name for name in re.findall(r"`((?:mixer|grpc_server)_\w+)`", written) if name not in told
    } == set()
    known = {other.name for other in alerts.ALERTS}
    assert {name for name in re.findall(r"\bMixer[A-Z]\w+", written) if name not in known} == set()
