"""The chart as the real `helm` renders it, and ways to read what came out."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from protos.mixer.v1 import mixer_pb2

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "mixer"
TOOLS = Path(os.environ.get("MIXER_TOOLS", ROOT / ".tools"))
UPDATE = os.environ.get("MIXER_UPDATE_GOLDEN") == "1"
SERVICE = mixer_pb2.DESCRIPTOR.services_by_name["MixerService"].full_name
SETS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))

Manifest = dict[str, Any]


def tool(name: str) -> str:
    path = TOOLS / name
    if not path.exists():
        pytest.fail(f"{path} is missing; build it with tests/integration/tools.sh", pytrace=False)
    return str(path)


def run(name: str, *args: str) -> str:
    done = subprocess.run([tool(name), *args], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{name} {' '.join(args)}\n{done.stdout}{done.stderr}")
    return done.stdout


def values(name: str) -> str:
    return f"--values={CHART}/ci/{name}-values.yaml"


@cache
def template(*args: str, kubernetes: str = "1.34") -> str:
    return run(
        "helm", "template", "mixer", str(CHART), "--namespace=search", f"--kube-version={kubernetes}", *args
    )


def reviewed(rendered: str) -> str:
    """What a person reviews: all but what is made of files that are generated, and checked where they are made."""
    apart = ("prometheusrule", "dashboards")
    return "".join(
        f"---\n{part}"
        for part in rendered.split("---\n")[1:]
        if not part.startswith(tuple(f"# Source: mixer/templates/{name}.yaml" for name in apart))
    )


def manifests(*args: str, kubernetes: str = "1.34") -> list[Manifest]:
    return [found for found in yaml.safe_load_all(template(*args, kubernetes=kubernetes)) if found]


def of_kind(found: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def pods(found: list[Manifest]) -> dict[str, Manifest]:
    """Pod specs by the name of what makes the pod."""
    made = {name: each["spec"]["template"]["spec"] for name, each in of_kind(found, "Deployment").items()}
    return made | {name: each["spec"] for name, each in of_kind(found, "Pod").items()}


def pod_labels(found: list[Manifest]) -> list[dict[str, str]]:
    return [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(found, "Deployment").values()]


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def port_of(listen: str) -> int:
    return int(listen.rpartition(":")[2])


def refusal(*args: str) -> str:
    """Why helm refuses to render. Raises: AssertionError where it does not."""
    with pytest.raises(AssertionError, match="Error") as refused:
        template(*args)
    return str(refused.value).split("Error", 1)[1]


def settings_file(found: list[Manifest], name: str) -> str:
    return str(of_kind(found, "ConfigMap")[name]["data"]["mixer.yaml"])


def server_name(found: list[Manifest]) -> str:
    deployments = of_kind(found, "Deployment").items()
    return next(
        name
        for name, each in deployments
        if each["spec"]["template"]["spec"]["containers"][0]["name"] == "mixer"
    )


def server(found: list[Manifest]) -> Manifest:
    return pods(found)[server_name(found)]
