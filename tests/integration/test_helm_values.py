"""The chart's values: what is wrong with them is named, and every one is described in the same words everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from mixer import settings
from mixer.experiment_settings import CanarySettings, ShadowSettings
from mixer.model_settings import EnsembleModelSettings, FolderModelSettings, RegistryModelSettings
from tests.integration.chart import CHART, UPDATE, refusal, run
from tests.integration.chart_words import described, properties, words, written

VALUES, SCHEMA = CHART / "values.yaml", CHART / "values.schema.json"


def schema() -> dict[str, Any]:
    return dict(json.loads(SCHEMA.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("assignment", "key"),
    [
        ("replicaCount=two", "/replicaCount"),
        ("replicaCount=-1", "/replicaCount"),
        ("replicas=2", "replicas"),
        ("image.repository=", "/image/repository"),
        ("image.digest=latest", "/image/digest"),
        ("service.type=Headless", "/service/type"),
        ("service.port=70000", "/service/port"),
        ("config.mixs.default=1", "mixs"),
        ("config.server.drain_s=soon", "/config/server/drain_s"),
        ("config.server.listen=localhost", "/config/server/listen"),
        ("config.backends.x.kind=memory", "mixes"),
        ("secrets.cursorkey=x", "cursorkey"),
        ("otelEnv.OTLP_ENDPOINT=x", "OTLP_ENDPOINT"),
        ("otelEnv.OTEL_EXPORTER_OTLP_HEADERS=x", "/otelEnv/OTEL_EXPORTER_OTLP_HEADERS"),
        ("modelStore.mountPath=models", "/modelStore/mountPath"),
        ("autoscaling.minReplicas=0", "/autoscaling/minReplicas"),
        ("autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=0", "/autoscaling/metrics"),
        ("autoscaling.enabled=true,autoscaling.minReplicas=11", "autoscaling.minReplicas"),
        (
            "autoscaling.enabled=true,keda.enabled=true",
            "take one",
        ),
        ("keda.enabled=true", "keda.prometheus.serverAddress"),
        ("keda.enabled=true,keda.minReplicas=11,keda.prometheus.serverAddress=http://x", "keda.minReplicas"),
        ("keda.prometheus.serverAddress=prometheus:9090", "/keda/prometheus/serverAddress"),
        ("persistence.enabled=true,persistence.accessModes={ReadWriteOnce}", "persistence.accessModes"),
        ("persistence.accessModes={Shared}", "/persistence/accessModes"),
        ("networkPolicy.clients[0].pods=x", "/networkPolicy/clients/0"),
        ("prometheusRule.enabled=true,prometheusRule.rules=x", "prometheusRule.rules"),
        ("strategy.rollingUpdate.maxSurge=some", "/strategy/rollingUpdate/maxSurge"),
        ("service.spec.type=NodePort", "/service/spec"),
        ("lifecycle.prestop.exec=x", "prestop"),
        ("tests.minHits=-1", "/tests/minHits"),
        ("podDisruptionBudget.minAvailable=half", "/podDisruptionBudget/minAvailable"),
        ("probes.liveness.path=/", "path"),
        ("serviceMonitor.interval=often", "/serviceMonitor/interval"),
        ("backends.headless.kind=tantivy", "headless"),
        ("backends.Lexical.kind=tantivy", "Lexical"),
        ("backends.lexical.port=x", "/backends/lexical/port"),
        ("backends.lexical.enabled=true", "backends.lexical.kind"),
        ("backends.lexical.kind=tantivy", "backends.lexical.index.path"),
        ("extraEnv[0].value=1", "/extraEnv/0"),
    ],
)
def test_a_bad_value_is_refused_by_name(assignment: str, key: str) -> None:
    """A wrong type, an unknown key or a contradiction stops the install and names the key."""
    assert key in refusal(f"--set={assignment}")


def test_schema_knows_the_parts_of_the_settings() -> None:
    """The chart takes exactly the top-level keys that Mixer's own settings have, and those of models and rollouts."""
    found = schema()
    assert found["properties"]["config"]["properties"].keys() == settings.Settings.model_fields.keys()
    models = (FolderModelSettings, RegistryModelSettings, EnsembleModelSettings)
    taken = found["properties"]["models"]["additionalProperties"]["properties"].keys()
    assert taken == {name for model in models for name in model.model_fields}
    bounds = found["definitions"]["canary"]["properties"]["bounds"]["properties"]
    assert bounds.keys() == CanarySettings.model_fields.keys()
    assert found["definitions"]["shadow"]["properties"].keys() == ShadowSettings.model_fields.keys()


def test_schema_speaks_in_the_words_of_the_values() -> None:
    """What values.yaml says of a value is its description in the schema, for editors: written once."""
    fresh = written(described(schema(), words(VALUES.read_text(encoding="utf-8")))) + "\n"
    if UPDATE:
        SCHEMA.write_text(fresh, encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == fresh


def test_schema_leaves_nothing_open() -> None:
    """Every value has its schema, no object takes keys that are not declared, and all but Mixer's settings are
    described."""
    found = schema()
    assert (
        yaml.safe_load(VALUES.read_text(encoding="utf-8")).keys() | {"global"} == found["properties"].keys()
    )
    for path, each in properties(found):
        if path[0] != "config" and "properties" in each:
            assert each.get("additionalProperties") is False, path
    said = words(VALUES.read_text(encoding="utf-8"))
    plain = {path: each for path, each in properties(found) if path in said}
    assert len(plain) > 140
    assert not [path for path, each in plain.items() if not each.get("description")]


def test_readme_tells_every_value() -> None:
    """The chart's README is generated from values.yaml, is fresh, and leaves no value undescribed."""
    args = (
        "--chart-search-root=helm/mixer",
        "--skip-version-footer",
        "--sort-values-order=file",
        "--log-level=error",
    )
    if UPDATE:
        run("helm-docs", *args)
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    assert run("helm-docs", "--dry-run", *args).strip() == readme.strip()
    assert "|  |" not in readme
