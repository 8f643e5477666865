"""What the chart gives to those who watch and scale: scraping, rules as promtool runs them, dashboards, triggers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from mixer.catalogue import METRICS
from models import rule_files
from tests.check import chart_rules
from tests.integration.chart import CHART, SERVICE, Manifest, manifests, of_kind, run, selects, values

MONITORING, KEDA = values("monitoring"), values("keda")
RELEASE = {"namespace": "search", "job": "mixer-admin"}


@pytest.mark.parametrize("name", ["production", "monitoring"])
def test_monitor_scrapes_each_pod_once(name: str) -> None:
    """One service that the ServiceMonitor selects has its port; its name is the job that the rules ask for."""
    found = manifests(values(name))
    monitor = of_kind(found, "ServiceMonitor")["mixer"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    chosen = [each for each in of_kind(found, "Service").values()
              if selects(monitor["spec"]["selector"]["matchLabels"], each["metadata"]["labels"])
              and endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}]  # fmt: skip
    assert [each["metadata"]["name"] for each in chosen] == [RELEASE["job"]]


def rules_of(*args: str) -> Manifest:
    (rule,) = of_kind(manifests(*args), "PrometheusRule").values()
    return dict(rule["spec"])


def test_rules_hold_for_the_release(tmp_path: Path) -> None:
    """promtool takes the rendered rules, and every fault raises its own alert with the labels of this release."""
    (tmp_path / rule_files.RULES).write_text(yaml.safe_dump(rules_of(MONITORING)), encoding="utf-8")
    run("promtool", "check", "rules", str(tmp_path / rule_files.RULES))
    made = tmp_path / "made"
    chart_rules.write(made, RELEASE)
    text = (made / rule_files.TESTS).read_text(encoding="utf-8")
    address = "https://runbooks.example.com/mixer#"
    (tmp_path / rule_files.TESTS).write_text(text.replace("docs/runbooks.md#", address), encoding="utf-8")
    run("promtool", "test", "rules", str(tmp_path / rule_files.TESTS))


def test_rules_are_of_this_release_alone() -> None:
    """No word that stands for the release is left, and the groups of one's own come last."""
    spec = rules_of(MONITORING)
    assert "RELEASE_" not in json.dumps(spec)
    assert [group["name"] for group in spec["groups"]][-1] == "search-team"
    other = rules_of(MONITORING, "--set=prometheusRule.job=other")
    assert {rule["labels"]["job"] for group in other["groups"][:-1] for rule in group["rules"]} == {"other"}


def test_rules_of_ones_own_settings_take_their_place(tmp_path: Path) -> None:
    """What `mixer rules` wrote for these mixes is rendered as it is."""
    rule_files.write({"default": None}, tmp_path)
    path = tmp_path / rule_files.RULES
    spec = rules_of(MONITORING, f"--set-file=prometheusRule.rules={path}")
    assert spec["groups"][:-1] == yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A copy of the chart without dashboards, to put some into."""
    copied = tmp_path / "mixer"
    shutil.copytree(CHART, copied)
    shutil.rmtree(copied / "files" / "dashboards", ignore_errors=True)
    return copied


def dashboards(chart: Path) -> dict[str, Manifest]:
    text = run("helm", "template", "mixer", str(chart), "--namespace=search", MONITORING)
    found = of_kind([each for each in yaml.safe_load_all(text) if each], "ConfigMap")
    return {name: each for name, each in found.items() if "grafana_dashboard" in each["metadata"]["labels"]}


def test_every_dashboard_is_found_by_the_sidecar(chart: Path) -> None:
    """Each file is a ConfigMap of its own, as it is, with the label and where Grafana looks; without files none."""
    assert dashboards(chart) == {}
    folder = chart / "files" / "dashboards"
    folder.mkdir(parents=True)
    board = json.dumps({"title": "{{ no template }}", "panels": [{"expr": 'rate(x{a="b"}[5m])'}]}, indent=1)
    for name in ("mixer-overview", "other"):
        (folder / f"{name}.json").write_text(board, encoding="utf-8")
    found = dashboards(chart)
    assert found.keys() == {"mixer-overview", "mixer-other"}
    overview = found["mixer-overview"]
    assert overview["data"]["mixer-overview.json"].rstrip("\n") == board
    assert overview["metadata"]["namespace"] == "grafana"
    assert overview["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert overview["metadata"]["annotations"] == {"grafana_folder": "Search"}


def test_the_chart_s_own_dashboards_are_whole() -> None:
    """Each one that the repository holds is rendered as it is."""
    files = {path.name: path for path in (CHART / "files").glob("dashboards/*.json")}
    texts = {name: text for each in dashboards(CHART).values() for name, text in each["data"].items()}
    assert texts.keys() == files.keys()
    for name, text in texts.items():
        assert json.loads(text) == json.loads(files[name].read_text(encoding="utf-8"))


def test_triggers_ask_for_metrics_that_exist() -> None:
    """KEDA scales by calls and by those in flight, of this release, in the catalogue's names."""
    triggers = of_kind(manifests(KEDA), "ScaledObject")["mixer"]["spec"]["triggers"]
    queries = {each["metadata"]["query"]: each for each in triggers if each["type"] == "prometheus"}
    asked = 'namespace="search",job="mixer-admin"'
    calls = f'sum(rate(grpc_server_started_total{{{asked},grpc_service="{SERVICE}"}}[2m]))'
    assert queries.keys() == {calls, f"sum(mixer_calls_in_flight{{{asked}}})"}
    assert {"grpc_server_started_total", "mixer_calls_in_flight"} <= {metric.name for metric in METRICS}
    assert queries[calls]["metadata"]["threshold"] == "150"
    assert queries[calls]["authenticationRef"] == {
        "name": "prometheus",
        "kind": "ClusterTriggerAuthentication",
    }
    assert triggers[-1]["type"] == "cron"
    fewer = of_kind(manifests(KEDA, "--set=keda.prometheus.inFlightPerPod=0"), "ScaledObject")["mixer"]
    assert [each["type"] for each in fewer["spec"]["triggers"]] == ["prometheus", "cron"]
