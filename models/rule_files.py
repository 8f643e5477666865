"""Writes the rules of a settings file and their unit tests, for Prometheus and promtool."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mixer.manifest import Manifest
from models import alerts
from models.rule_tests import unit_tests
from models.rules import Bounds, Mixes, doubts, groups

RULES, TESTS = "mixer.rules.yaml", "mixer.rules.test.yaml"


def write(
    manifests: Mapping[str, Manifest | None],
    folder: Path,
    bounds: Bounds | None = None,
    labels: Mapping[str, str] | None = None,
    runbooks: str = alerts.RUNBOOKS,
    sliced: bool = False,
    named: bool = True,
) -> tuple[str, ...]:
    """Write both files for mixes by name, None where one has no model; returns why figures may mislead.

    `labels` choose among several deployments that one Prometheus scrapes; `sliced` adds rules by slice. Without
    `named` the rules are for any mix, and these serve their tests as examples.
    """
    bounds = bounds or Bounds()
    mixes = Mixes(manifests, labels or {}, sliced, named)
    doubted = tuple(doubts(mixes, bounds)) if named else ()
    folder.mkdir(parents=True, exist_ok=True)
    head = [
        f"Written by `mixer rules`. Test it with `promtool test rules {TESTS}`.",
        *(_made_for(mixes) if named else ["For any mix and model."]),
        *doubted,
    ]
    _write(folder / RULES, groups(mixes, bounds, runbooks), head)
    _write(folder / TESTS, unit_tests(mixes, bounds, RULES, runbooks), head[:1])
    return doubted


def _made_for(mixes: Mixes) -> list[str]:
    return [
        f"{name}: {manifest.name} {manifest.version}, sha256 {manifest.model_sha256}"
        for name, manifest in mixes.modelled.items()
    ]


def _write(path: Path, tree: Mapping[str, Any], head: list[str]) -> None:
    comment = "".join(f"# {line}\n" for line in head)
    text = yaml.safe_dump(tree, sort_keys=False, width=100_000, allow_unicode=True)
    path.write_text(comment + text, encoding="utf-8")
