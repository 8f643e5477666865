"""The Helm chart, rendered by the real `helm`: lints, validates, matches its golden renders, hangs together.

`tests/integration/tools.sh` builds what this needs. After a wanted change to the chart renew golden renders, README and
the schema's descriptions with `MIXER_UPDATE_GOLDEN=1 pytest tests/integration -k helm`, and read the diff.
"""

from __future__ import annotations

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate
import pytest
import yaml

from mixer import settings
from tests.integration import custom_resources
from tests.integration.chart import (
    CHART,
    SETS,
    UPDATE,
    Manifest,
    containers,
    manifests,
    of_kind,
    pod_labels,
    pods,
    reviewed,
    run,
    selects,
    server_name,
    settings_file,
    template,
    values,
)

KUBERNETES = ("1.28", "1.31", "1.34", "1.37")


@pytest.mark.parametrize("name", SETS)
def test_lints_without_a_warning(name: str) -> None:
    """Every value set passes `helm lint --strict`."""
    run("helm", "lint", "--strict", str(CHART), values(name))


@pytest.mark.parametrize("name", SETS)
def test_renders_as_reviewed(name: str) -> None:
    """A change in what the chart renders is seen in a golden file."""
    golden, rendered = CHART / "ci" / "golden" / f"{name}.yaml", reviewed(template(values(name)))
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
    """Every object is strictly valid, with no values at all and with each set, on old and new Kubernetes; those of
    operators by their own schemas."""
    found = manifests(*args, kubernetes=kubernetes)
    assert len(found) >= 5
    for manifest in found:
        if ".k8s.io/" in manifest["apiVersion"] or "." not in manifest["apiVersion"]:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)
        else:
            custom_resources.validate(manifest)


def test_custom_resources_can_be_wrong() -> None:
    """An unknown key and a wrong type in an operator's object are found."""
    monitor = of_kind(manifests(values("monitoring")), "ServiceMonitor")["mixer"]
    wrong: list[Manifest] = [{"endpoints": "admin"}, {"endpoint": []}]
    for spoiled in wrong:
        with pytest.raises(jsonschema.ValidationError):
            custom_resources.validate({**monitor, "spec": {**monitor["spec"], **spoiled}})


@pytest.mark.parametrize("name", SETS)
def test_renders_the_same_twice(name: str) -> None:
    """Nothing is drawn by chance once keys are given, so that GitOps sees no change where there is none."""
    args = (str(CHART), "--namespace=search", values(name))
    assert run("helm", "template", "mixer", *args) == run("helm", "template", "mixer", *args)


@pytest.mark.parametrize("name", SETS)
def test_the_settings_are_sound(name: str) -> None:
    """What Mixer reads in the pod is what its own parser takes, as `mixer check-config` does."""
    found = manifests(values(name))
    settings.parse(settings_file(found, server_name(found)))


@pytest.mark.parametrize("name", SETS)
def test_every_selector_finds_one_kind_of_pod(name: str) -> None:
    """Services, budgets and Deployments select the pods of exactly one Deployment."""
    found = manifests(values(name))
    picks = [each["spec"]["selector"] for each in of_kind(found, "Service").values()]
    for kind in ("Deployment", "PodDisruptionBudget"):
        picks += [each["spec"]["selector"]["matchLabels"] for each in of_kind(found, kind).values()]
    picks += [each["spec"]["podSelector"]["matchLabels"] for each in of_kind(found, "NetworkPolicy").values()]
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
    for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
        for scaler in of_kind(found, kind).values():
            scaled = of_kind(found, "Deployment")[scaler["spec"]["scaleTargetRef"]["name"]]
            assert "replicas" not in scaled["spec"]
    for spec in pods(found).values():
        volumes = {volume["name"] for volume in spec.get("volumes", ())}
        assert {m["name"] for c in containers(spec) for m in c.get("volumeMounts", ())} <= volumes
    claims = of_kind(found, "PersistentVolumeClaim").keys()
    mounted = {v["persistentVolumeClaim"]["claimName"] for spec in pods(found).values()
               for v in spec.get("volumes", ()) if "persistentVolumeClaim" in v}  # fmt: skip
    assert claims <= mounted
    served = {name: spec for name, spec in pods(found).items() if name in of_kind(found, "Deployment")}
    entries = [entry for spec in served.values() for c in containers(spec) for entry in c.get("env", ())]
    sources = [entry["valueFrom"] for entry in entries if "valueFrom" in entry]
    secrets = {source["secretKeyRef"]["name"] for source in sources if "secretKeyRef" in source}
    assert secrets == (of_kind(found, "Secret").keys() or {"mixer-keys"})


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


@pytest.mark.parametrize("change", ["config.server.drain_s=11", "secrets.cursorKey=other"])
def test_pods_restart_when_what_they_read_changes(change: str) -> None:
    """New settings or a new secret change the pod template; the same ones do not."""
    full = ("--set=config.backends.x.kind=memory", "--set=config.mixes.default.backends.x.limit=1")

    def annotations(*more: str) -> Manifest:
        deployment = of_kind(manifests(values("default"), *full, *more), "Deployment")["mixer"]
        return dict(deployment["spec"]["template"]["metadata"]["annotations"])

    assert annotations() == annotations("--set=service.port=1")
    assert annotations() != annotations(f"--set={change}")
