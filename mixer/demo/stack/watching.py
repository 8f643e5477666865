"""What Prometheus reads: its configuration, whom it asks, and the rules of the demo's settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mixer import model, settings
from mixer.demo.show import MODEL
from models import rule_files

HERE = Path(__file__).parent
CONFIG = "prometheus.yaml"
JOBS = ("mixer", "spans", "collector")


def write(folder: Path, targets: Mapping[str, str], config: Path, alert_after_s: float | None = None) -> Path:
    """Write all of it; returns Prometheus's configuration. Raises: OSError, ModelRefused.

    `targets` are addresses by job. With `alert_after_s` no alert waits longer than that before it fires: a look at
    them need not last ten minutes. When an alert is raised stays as the rules have it.
    """
    shutil.copyfile(HERE / CONFIG, folder / CONFIG)
    for job in JOBS:
        text = json.dumps([{"targets": [targets[job]]}])
        (folder / f"{job}.targets.json").write_text(text, encoding="utf-8")
    rule_files.write({name: model.read_manifest(MODEL) for name in settings.load(config).mixes}, folder)
    if alert_after_s is not None:
        _hasten(folder / rule_files.RULES, alert_after_s)
    return folder / CONFIG


def _hasten(path: Path, after_s: float) -> None:
    rules: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            if rule.get("for", "0m") != "0m":
                rule["for"] = f"{after_s:g}s"
    text = f"# For a demo: alerts fire after {after_s:g} s. `mixer rules` writes their own times.\n"
    path.write_text(text + yaml.safe_dump(rules, sort_keys=False, allow_unicode=True), encoding="utf-8")
