"""The rules that `mixer rules` writes, as the real promtool reads and runs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from mixer.manifest import MANIFEST, Manifest
from mixer.settings import parse
from models import rule_files
from models.rules import Bounds
from tests.integration.chart import ROOT, run, tool

DEMO = ROOT / "models" / "demo" / "ranker"


def read(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / MANIFEST).read_bytes())


def check(folder: Path) -> None:
    """Both commands of promtool, the tests in the folder of the files."""
    run("promtool", "check", "rules", str(folder / rule_files.RULES))
    run("promtool", "test", "rules", str(folder / rule_files.TESTS))


def test_the_demo_s_rules_hold(tmp_path: Path) -> None:
    """The rules of the demo's settings and committed model are sound, and every alert is raised by its fault alone."""
    text = (ROOT / "mixer" / "demo" / "mixer.yaml").read_text(encoding="utf-8")
    settings = parse(text.replace("MODEL_FOLDER", str(DEMO)))
    manifests = {name: read(DEMO) for name in settings.mixes}
    rule_files.write(manifests, tmp_path)
    check(tmp_path)


def test_rules_hold_for_names_of_every_kind(tmp_path: Path, model_folder: Path) -> None:
    """Several mixes, one without a model, one whose name is no plain word; bounds and labels of one's own."""
    manifest = read(model_folder)
    bounds = Bounds(psi=0.5, fallbacks=0.02, added_p99_s=0.3, answers=500)
    mixes = {'of "all" (a.b)\\c|d': manifest, "plain": None, "ünlike": manifest}
    rule_files.write(mixes, tmp_path, bounds, {"job": "mixer"}, "https://example.org/runbooks", sliced=True)
    check(tmp_path)


@pytest.mark.parametrize("labels", [{}, {"namespace": "search", "job": "mixer-admin"}])
def test_rules_for_any_mix_hold(tmp_path: Path, labels: dict[str, str]) -> None:
    """Rules that name no mix raise for each mix what those that name it do."""
    mixes = {"plain": None, "demo": read(DEMO)}
    rule_files.write(mixes, tmp_path, labels=labels, sliced=True, named=False)
    check(tmp_path)


@pytest.mark.parametrize(
    ("sound", "spoiled"),
    [
        (" * ln(", " * sqrt("),
        ("psi1h > 0.25", "psi1h > 99"),
        (" unless ", " and "),
        ('bin="missing"', 'bin="0"'),
        ('outcome!~"ok|skipped"', 'outcome!~"ok"'),
        ("increase1h{mix=~", "increase1h{mix!~"),
    ],
)
def test_the_tests_can_fail(tmp_path: Path, sound: str, spoiled: str) -> None:
    """A rule that is spoiled is found by the unit tests that come with it."""
    rule_files.write({"default": read(DEMO)}, tmp_path)
    path = tmp_path / rule_files.RULES
    text = path.read_text(encoding="utf-8")
    assert sound in text
    path.write_text(text.replace(sound, spoiled), encoding="utf-8")
    command = [tool("promtool"), "test", "rules", str(tmp_path / rule_files.TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


def test_every_alert_is_tested(tmp_path: Path) -> None:
    """The unit tests raise every alert that the rules hold."""
    rule_files.write({"default": read(DEMO)}, tmp_path, sliced=True)
    rules = yaml.safe_load((tmp_path / rule_files.RULES).read_text(encoding="utf-8"))
    tests = yaml.safe_load((tmp_path / rule_files.TESTS).read_text(encoding="utf-8"))
    held = {rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    raised = {
        check["alertname"]
        for test in tests["tests"]
        for check in test.get("alert_rule_test", ())
        if check["exp_alerts"]
    }
    assert raised == held
