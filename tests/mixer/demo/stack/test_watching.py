from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixer.catalogue import ATTRIBUTES
from mixer.demo.show import Stage
from mixer.demo.stack import containers, watching
from models import rule_files

HERE = Path(watching.__file__).parent
TARGETS = {"mixer": "127.0.0.1:1", "spans": "127.0.0.1:2", "collector": "127.0.0.1:3"}


def rules(folder: Path) -> list[dict[str, Any]]:
    text = (folder / rule_files.RULES).read_text(encoding="utf-8")
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def test_everything_that_the_configuration_names_is_beside_it(stage: Stage, tmp_path: Path) -> None:
    """Prometheus's configuration refers to files of its folder: rules, and targets of every job."""
    config = watching.write(tmp_path, TARGETS, stage.settings)
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    assert all((tmp_path / name).is_file() for name in raw["rule_files"])
    asked = {
        job["job_name"]: json.loads((tmp_path / name).read_text(encoding="utf-8"))[0]["targets"]
        for job in raw["scrape_configs"]
        for files in job["file_sd_configs"]
        for name in files["files"]
    }
    assert asked == {job: [address] for job, address in TARGETS.items()}


def test_alerts_of_a_look_wait_less(stage: Stage, tmp_path: Path) -> None:
    """With a time, what waits waits that long and what does not does not; nothing else of a rule changes."""
    (tmp_path / "own").mkdir()
    (tmp_path / "hasty").mkdir()
    watching.write(tmp_path / "own", TARGETS, stage.settings)
    watching.write(tmp_path / "hasty", TARGETS, stage.settings, alert_after_s=5)
    own, hasty = rules(tmp_path / "own"), rules(tmp_path / "hasty")
    assert {rule.pop("for") for rule in hasty if "for" in rule} == {"5s", "0m"}
    waits = [rule.pop("for") for rule in own if "for" in rule]
    assert "10m" in waits
    assert own == hasty


def test_words_of_the_collector_are_those_of_the_catalogue() -> None:
    """Policies and dimensions name attributes that spans have, of the type that the policy asks for."""
    raw = yaml.safe_load((HERE / "collector.yaml").read_text(encoding="utf-8"))
    known = {attribute.key: attribute.type for attribute in ATTRIBUTES}
    policies = raw["processors"]["tail_sampling"]["policies"]
    asked = {
        body["key"]: kind.removesuffix("_attribute")
        for policy in policies
        for kind, body in policy.items()
        if kind.endswith("_attribute")
    }
    assert asked == {"mixer.degraded": "boolean", "mixer.fallback_reason": "string"}
    assert {key: known[key] for key in asked} == {"mixer.degraded": "bool", "mixer.fallback_reason": "string"}
    assert {each["name"] for each in raw["connectors"]["spanmetrics"]["dimensions"]} <= known.keys()
    assert [policy["type"] for policy in policies][-2:] == ["latency", "probabilistic"]


def test_spans_are_counted_before_any_is_dropped() -> None:
    """The pipeline that makes metrics has no sampler; the one that keeps has its spans from there alone."""
    pipelines = yaml.safe_load((HERE / "collector.yaml").read_text(encoding="utf-8"))["service"]["pipelines"]
    assert "tail_sampling" not in pipelines["traces/all"]["processors"]
    assert set(pipelines["traces/all"]["exporters"]) == {"spanmetrics", "forward"}
    assert pipelines["traces/kept"]["receivers"] == ["forward"]
    more = yaml.safe_load((HERE / "honeycomb.yaml").read_text(encoding="utf-8"))["service"]["pipelines"]
    assert set(pipelines["traces/kept"]["exporters"]) < set(more["traces/kept"]["exporters"])


@pytest.mark.parametrize("address", containers.HOSTS)
def test_containers_find_each_other(address: str) -> None:
    """Of the loopback nothing is left in what containers read: every address is a service of its own name."""
    text = containers.settings_text()
    assert "127.0.0.1" not in text
    assert containers.HOSTS[address] in text
