from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import yaml

from mixer import app, model, settings, sources
from mixer.manifest import MODEL
from mixer.metrics import Metrics
from mixer.model import ModelRefused
from mixer.model_settings import FolderModelSettings, RegistryModelSettings
from mixer.registry import Registry
from mixer.settings import SettingsError
from mixer.store import open_store
from mixer.values import Ranker
from tests import forest
from tests.mixer.test_app import MEMORY, SECRETS
from tests.samples import request

NAME = "forest"


@pytest.fixture
def url(model_folder: Path) -> str:
    """A registry with one version, current."""
    made = f"memory://{uuid.uuid4().hex}"
    registry = Registry(made)
    manifest, _ = registry.publish(model_folder)
    registry.point(NAME, manifest.version, None, "")
    return made


def tree(url: str, cache: Path, **rules: str) -> settings.Settings:
    features = [feature.model_dump(mode="json") for feature in forest.FEATURES]
    raw = {
        "backends": {"a": MEMORY},
        "models": {"m": {"registry": url, "name": NAME, "cache": str(cache)}},
        "mixes": {"default": {"backends": {"a": {}}, "features": features, "model": "m", **rules}},
    }
    return settings.parse(yaml.safe_dump(raw))


async def test_what_is_current_ranks(url: str, tmp_path: Path, model_folder: Path) -> None:
    """A mix whose model comes from a registry is served by the version that its pointer names."""
    built = await app.build(tree(url, tmp_path), SECRETS)
    answer = await built.mixes["default"].search(request("csv"))
    pointer = Registry(url).current(NAME)
    assert built.faults == {}
    assert answer.scores.ranker is Ranker.MODEL
    assert answer.scores.model
    assert pointer
    assert (answer.scores.model.version, answer.scores.model.sha256) == (pointer.version, pointer.sha256)
    await built.close()


async def test_a_broken_version_does_not(url: str, tmp_path: Path) -> None:
    """Truncated in the registry, it is refused by name before anything loads it; the fused order says why."""
    pointer = Registry(url).current(NAME)
    assert pointer
    place = f"{NAME}/versions/{pointer.version}/{MODEL}"
    open_store(url).replace(place, open_store(url).read(place)[:-100])
    metrics = Metrics()
    built = await app.build(tree(url, tmp_path, without_model="serve_fused"), SECRETS, metrics)
    answer = await built.mixes["default"].search(request("csv"))
    assert answer.scores.fallback_reason == "registry_failed"
    refused = metrics.registry.get_sample_value(
        "mixer_model_refused_total", {"mix": "default", "check": "registry"}
    )
    assert refused == 1
    await built.close()
    assert "checksum" in (await app.build(tree(url, tmp_path), SECRETS)).faults["default"]


def test_a_version_of_the_settings_stays(
    url: str, tmp_path: Path, model_folder: Path, other_folder: Path
) -> None:
    """A version that the settings name serves whatever else is current; one that is not there is a refusal."""
    registry = Registry(url)
    first = registry.current(NAME)
    assert first
    other, _ = registry.publish(other_folder, NAME)
    registry.point(NAME, other.version, first, "")
    declared = RegistryModelSettings(registry=url, name=NAME, version=first.version, cache=tmp_path)
    pinned = sources.Registered(declared)
    assert [pinned.current().version for _ in range(2)] == [first.version] * 2
    assert model.read_manifest(sources.folder_of(declared)).version == first.version
    gone = declared.model_copy(update={"version": "gone"})
    with pytest.raises(ModelRefused, match="has no version 'gone'"):
        sources.folder_of(gone)


def test_a_registry_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    """Whatever cannot be had from it, the mix says so and the process lives."""
    for url in ("nonsense://x", str(tmp_path / "nowhere"), f"memory://{uuid.uuid4().hex}"):
        declared = RegistryModelSettings(registry=url, name=NAME, cache=tmp_path)
        with pytest.raises(ModelRefused) as refusal:
            sources.folder_of(declared)
        assert refusal.value.check == "registry"


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """Nothing is pulled or copied."""
    assert sources.folder_of(FolderModelSettings(path=tmp_path)) == tmp_path


SOUND = """
backends: {a: {kind: memory, fields: {}}}
models: {m: {registry: shelf, name: forest}}
mixes: {default: {backends: {a: {}}, model: m}}
"""


def test_a_registry_of_the_settings(tmp_path: Path) -> None:
    """A path starts beside the file, a URL stays; how often to look has a default."""
    file = tmp_path / "mixer.yaml"
    file.write_text(SOUND, encoding="utf-8")
    assert settings.load(file).models["m"] == RegistryModelSettings(
        registry=str(tmp_path / "shelf"), name=NAME, poll_s=2.0
    )
    file.write_text(SOUND.replace("shelf", "'s3://bucket/models'"), encoding="utf-8")
    made = settings.load(file).models["m"]
    assert isinstance(made, RegistryModelSettings)
    assert made.registry == "s3://bucket/models"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (SOUND.replace(", name: forest", ""), "models.m.name"),
        (SOUND.replace("name: forest", "name: ../up"), "models.m.name"),
        (SOUND.replace("name: forest", "name: forest, poll_s: 0"), "models.m.poll_s"),
        (SOUND.replace("name: forest", "name: forest, version: a/b"), "models.m.version"),
        (SOUND.replace("name: forest", "name: forest, path: x"), "models.m.path"),
        (SOUND.replace("registry: shelf", "registry: ''"), "models.m.registry"),
        (SOUND.replace("{registry: shelf, name: forest}", "{}"), "models.m.path"),
        (SOUND.replace("{registry: shelf, name: forest}", "3"), "models.m"),
    ],
)
def test_what_is_wrong_with_it_is_named(text: str, path: str) -> None:
    """By the key as it stands in the file."""
    with pytest.raises(SettingsError) as error:
        settings.parse(text)
    assert [fault.path for fault in error.value.faults] == [path]
