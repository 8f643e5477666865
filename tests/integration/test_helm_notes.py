"""What the chart tells whoever installs it, as the real `helm` renders it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.integration.chart import CHART, SERVICE, SETS, of_kind, run, values

AS_AN_OBJECT = """{{- define "notes" }}%s{{ end }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: notes
data:
  text: {{ include "notes" . | toJson }}
"""
"""Helm renders NOTES.txt for clusters only, objects for everybody."""


@pytest.fixture
def notes(tmp_path: Path) -> Callable[..., str]:
    """The notes with these values."""
    copied = tmp_path / "mixer"
    shutil.copytree(CHART, copied)
    text = (copied / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (copied / "templates" / "notes.yaml").write_text(AS_AN_OBJECT % text, encoding="utf-8")

    def rendered(*args: str) -> str:
        only = "--show-only=templates/notes.yaml"
        found = list(
            yaml.safe_load_all(
                run("helm", "template", "mixer", str(copied), "--namespace=search", only, *args)
            )
        )
        return str(of_kind(found, "ConfigMap")["notes"]["data"]["text"])

    return rendered


@pytest.mark.parametrize("name", SETS)
def test_notes_teach_what_comes_next(notes: Callable[..., str], name: str) -> None:
    """Every set is told how to wait, test and call, by a method that exists; nothing of a template is left over."""
    said = notes(values(name))
    assert f" {SERVICE}/Search\n" in said
    assert "rollout status deployment/" in said
    assert not [word for word in ("{{", "%!", "<no value>", "<nil>") if word in said]


def test_notes_tell_who_ranks(notes: Callable[..., str]) -> None:
    """Arms with their percentages, shadows, how to go on and how to go back."""
    said = notes(values("rollout"))
    for line in (
        "default: asks titles; ranked by movies\n",
        "arm control: 93 %\n",
        "arm canary: 7 %, candidate, taken back beyond its bounds\n",
        "shadow nightly: 20 %, unheard\n",
        "rollout.default.canary.percent=25\n",
        "plain: asks titles; in fused order\n",
    ):
        assert line in said


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--set=replicaCount=1",), "One replica"),
        (("--set=config.feedback.folder=/x",), "goes with its pod"),
        (("--set=service.type=LoadBalancer",), "anybody may call it in the clear"),
        (("--set=serviceMonitor.enabled=false",), "Nobody scrapes or alerts yet"),
        (("--set=otelEnv.OTEL_EXPORTER_OTLP_ENDPOINT=",), "Traces go nowhere yet"),
        (("--set=secrets.cursorKey=",), "was made at random"),
    ],
)
def test_notes_warn_of_what_is_lacking(notes: Callable[..., str], args: tuple[str, ...], said: str) -> None:
    """Each thing that will hurt later is said once, and only where it is so."""
    full = ("--set=config.backends.x.kind=memory,config.mixes.default.backends.x.limit=1", *args)
    assert said in notes(values("default"), *full)
    sound = ("--set=serviceMonitor.enabled=true,secrets.cursorKey=k", "--set=persistence.enabled=true")
    collector = "--set=otelEnv.OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4317"
    assert said not in notes(values("default"), *sound, collector)
