"""compose.yaml and what its containers read, without Docker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mixer import settings
from mixer.demo import show
from mixer.demo.show import BACKENDS, Stage
from mixer.demo.stack import containers
from models import rule_files

ROOT = Path(__file__).parents[4]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EACH = pytest.mark.parametrize("name", SERVICES)


def mounts(name: str) -> list[list[str]]:
    return [mount.split(":") for mount in SERVICES[name].get("volumes", ())]


@EACH
def test_every_mounted_file_is_there(name: str) -> None:
    """What a container mounts is a file or a folder of the repository, for reading, or a declared volume."""
    for source, _, *mode in mounts(name):
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert mode == ["ro"]
        else:
            assert source in COMPOSE["volumes"]


@EACH
def test_every_image_is_pinned(name: str) -> None:
    """An image is ours, built here, or of one version."""
    image, build = SERVICES[name]["image"], SERVICES[name].get("build")
    assert (image, build) == ("mixer", ".") if build else image.rpartition(":")[2][-1].isdigit()


@EACH
def test_every_dependency_is_a_service(name: str) -> None:
    """Who is waited for is there; who is waited for until healthy says when it is."""
    waited = SERVICES[name].get("depends_on", {})
    assert set(waited) <= SERVICES.keys()
    for each, how in waited.items() if isinstance(waited, dict) else ():
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[each]["healthcheck"]


@EACH
def test_nothing_listens_to_the_world(name: str) -> None:
    """Ports are published on this machine's loopback alone: nothing here asks for a password."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_addresses_are_services() -> None:
    """Hosts in settings, targets and environment are services of compose.yaml, at the ports that those take."""
    loaded = settings.parse(containers.settings_text())
    backends = {name: SERVICES[name]["entrypoint"] for name in loaded.backends}
    for name, command in backends.items():
        assert f"dns:///{name}:50061" in containers.settings_text()
        assert command[command.index("--listen") + 1] == "0.0.0.0:50061"
        assert command[command.index("--config") + 1] == f"/data/{name}.yaml"
    assert {target.split(":")[0] for target in containers.TARGETS.values()} <= SERVICES.keys()
    traced = [
        each["environment"]
        for each in SERVICES.values()
        if "OTEL_SERVICE_NAME" in each.get("environment", {})
    ]
    assert {each["OTEL_EXPORTER_OTLP_ENDPOINT"] for each in traced} == {"http://collector:4317"}
    assert {each["OTEL_SERVICE_NAME"] for each in traced} == {"mixer", *BACKENDS}


def test_one_container_writes_what_the_others_read(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first container leaves every file that another's command names, for its own folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in (stage.documents, *map(stage.index, show.BACKENDS)):
        (folder / path.name).symlink_to(path)
    containers.main(folder)
    named = {
        Path(word.rpartition("=")[2]).name
        for each in SERVICES.values()
        for word in (*each.get("entrypoint", ()), *each.get("command", ()))
        if word.rpartition("=")[2].startswith("/data/")
    }
    assert named == {"mixer.yaml", "prometheus.yaml", *(f"{name}.yaml" for name in BACKENDS)}
    assert all((folder / name).is_file() for name in (*named, rule_files.RULES))
