"""The Helm chart, rendered by the real `helm`: lints, validates, matches its golden renders, hangs together.

`tests/integration/tools.sh` builds what this needs. After a wanted change to the chart renew golden renders
and README with `MIXER_UPDATE_GOLDEN=1 pytest tests/integration/test_helm.py`, and read the diff.
"""

from __future__ import annotations

import json
import os

import kubernetes_validate
import pytest
import yaml

from mixer import settings
from protos.mixer.v1 import mixer_pb2
from tests.integration.chart import (
    CHART,
    SETS,
    Manifest,
    containers,
    manifests,
    of_kind,
    pod_labels,
    pods,
    run,
    selects,
    server,
    server_name,
    settings_file,
    template,
    values,
)

UPDATE = os.environ.get("MIXER_UPDATE_GOLDEN") == "1"
KUBERNETES = ("1.28", "1.31", "1.34", "1.37")
CUSTOM = {"ServiceMonitor"}
SERVICE = mixer_pb2.DESCRIPTOR.services_by_name["MixerService"].full_name


@pytest.mark.parametrize("name", SETS)
def test_lints_without_a_warning(name: str) -> None:
    """Every value set passes `helm lint --strict`."""
    run("helm", "lint", "--strict", str(CHART), values(name))


@pytest.mark.parametrize("name", SETS)
def test_renders_as_reviewed(name: str) -> None:
    """A change in what the chart renders is seen in a golden file."""
    golden, rendered = CHART / "ci" / "golden" / f"{name}.yaml", template(values(name))
    if UPDATE:
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(rendered, encoding="utf-8")
    assert rendered == golden.read_text(encoding="utf-8")


def test_every_golden_render_has_its_values() -> None:
    """No golden file outlives its value set."""
    assert [path.stem for path in sorted((CHART / "ci" / "golden").iterdir())] == SETS


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@pytest.mark.parametrize("args", [(), *((values(name),) for name in SETS)], ids=["bare", *SETS])
def test_is_valid_kubernetes(args: tuple[str, ...], kubernetes: str) -> None:
    """Every object is strictly valid, with no values at all and with each set, on old and new Kubernetes."""
    found = [each for each in manifests(*args, kubernetes=kubernetes) if each["kind"] not in CUSTOM]
    assert len(found) >= 8
    for manifest in found:
        kubernetes_validate.validate(manifest, kubernetes, strict=True)


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
    with pytest.raises(AssertionError, match="Error") as refusal:
        template(f"--set={assignment}")
    assert key in str(refusal.value).split("Error", 1)[1]


@pytest.mark.parametrize("name", SETS)
def test_every_selector_finds_one_kind_of_pod(name: str) -> None:
    """Services, budgets and Deployments select the pods of exactly one Deployment."""
    found = manifests(values(name))
    picks = [each["spec"]["selector"] for each in of_kind(found, "Service").values()]
    for kind in ("Deployment", "PodDisruptionBudget"):
        picks += [each["spec"]["selector"]["matchLabels"] for each in of_kind(found, kind).values()]
    for pick in picks:
        assert sum(selects(pick, labels) for labels in pod_labels(found)) == 1, pick


@pytest.mark.parametrize("name", SETS)
def test_every_reference_has_its_target(name: str) -> None:
    """Ports, scale targets, the settings file, the Secret and mounts refer to something that is there."""
    found = manifests(values(name))
    named_ports = {
        p["name"]: p for spec in pods(found).values() for c in containers(spec) for p in c.get("ports", ())
    }
    for service in of_kind(found, "Service").values():
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= named_ports.keys()
    for scaler in of_kind(found, "HorizontalPodAutoscaler").values():
        assert (
            "replicas" not in of_kind(found, "Deployment")[scaler["spec"]["scaleTargetRef"]["name"]]["spec"]
        )
    for spec in pods(found).values():
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        assert {m["name"] for c in containers(spec) for m in c.get("volumeMounts", ())} <= volumes
    entries = [entry for spec in pods(found).values() for c in containers(spec) for entry in c.get("env", ())]
    sources = [entry["valueFrom"] for entry in entries if "valueFrom" in entry]
    secrets = {source["secretKeyRef"]["name"] for source in sources if "secretKeyRef" in source}
    assert secrets == (of_kind(found, "Secret").keys() or {"mixer-keys"})


@pytest.mark.parametrize("name", SETS)
def test_probes_ask_where_mixer_listens(name: str) -> None:
    """Ports come from the settings; startup and readiness ask gRPC health, liveness asks HTTP."""
    found = manifests(values(name))
    mixer = server(found)["containers"][0]
    listens = settings.parse(settings_file(found, server_name(found))).server
    ports = {port["name"]: port["containerPort"] for port in mixer["ports"]}
    assert ports == {
        "grpc": int(listens.listen.split(":")[-1]),
        "admin": int(listens.admin_listen.split(":")[-1]),
    }
    assert mixer["startupProbe"]["grpc"] == {"port": ports["grpc"]}
    assert mixer["readinessProbe"]["grpc"] == {"port": ports["grpc"], "service": SERVICE}
    assert mixer["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}


@pytest.mark.parametrize("name", SETS)
def test_the_kubelet_waits_for_the_drain(name: str) -> None:
    """A pod is not killed before its sleep and the drain of its own settings are over."""
    found = manifests(values(name))
    spec = server(found)
    sleep_s = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
    drain_s = settings.parse(settings_file(found, server_name(found))).server.drain_s
    assert spec["terminationGracePeriodSeconds"] >= sleep_s + drain_s + 5


@pytest.mark.parametrize("name", SETS)
def test_pods_meet_the_restricted_standard(name: str) -> None:
    """No root, no capabilities, no writable root folder, no token, in any container of any pod."""
    for spec in pods(manifests(values(name))).values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(spec):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", SETS)
def test_in_chart_backends_are_asked_where_they_listen(name: str) -> None:
    """A backend of the chart that the settings ask is headless and has the port asked for."""
    found = manifests(values(name))
    services = of_kind(found, "Service")
    asked = yaml.safe_load(settings_file(found, server_name(found)))["backends"]
    run_here = {
        labels["app.kubernetes.io/component"].removeprefix("backend-") for labels in pod_labels(found)
    }
    for backend in asked.keys() & run_here:
        host, port = asked[backend]["target"].removeprefix("dns:///").split(":")
        assert services[host]["spec"]["clusterIP"] == "None"
        assert [each["port"] for each in services[host]["spec"]["ports"]] == [int(port)]


def test_monitor_scrapes_each_pod_once() -> None:
    """One service that the ServiceMonitor selects has its port."""
    found = manifests(values("production"))
    monitor = of_kind(found, "ServiceMonitor")["mixer"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["path"] == "/metrics"
    chosen = [each for each in of_kind(found, "Service").values()
              if selects(monitor["spec"]["selector"]["matchLabels"], each["metadata"]["labels"])
              and endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}]  # fmt: skip
    assert len(chosen) == 1


@pytest.mark.parametrize("change", ["config.server.drain_s=11", "secrets.cursorKey=other"])
def test_pods_restart_when_what_they_read_changes(change: str) -> None:
    """New settings or a new secret change the pod template; the same ones do not."""
    full = ("--set=config.backends.x.kind=memory", "--set=config.mixes.default.backends.x.limit=1")

    def annotations(*more: str) -> Manifest:
        deployment = of_kind(manifests(values("default"), *full, *more), "Deployment")["mixer"]
        return dict(deployment["spec"]["template"]["metadata"]["annotations"])

    assert annotations() == annotations("--set=service.port=1")
    assert annotations() != annotations(f"--set={change}")


def test_schema_knows_the_parts_of_the_settings() -> None:
    """The chart takes exactly the top-level keys that Mixer's own settings have."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    assert schema["properties"]["config"]["properties"].keys() == settings.Settings.model_fields.keys()


def test_notes_name_the_real_method() -> None:
    """The call shown after an install exists."""
    notes = (CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    assert f" {SERVICE}/Search\n" in notes


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
