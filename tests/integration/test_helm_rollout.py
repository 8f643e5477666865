"""Models by the chart's values: pinned, tried on a part of the traffic, watched in the shadow, by a real Mixer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mixer import settings
from mixer.experiment_settings import CanarySettings
from mixer.registry import Registry
from mixer.settings import Settings
from tests import commands, forest
from tests.doubles import mixers
from tests.integration.chart import manifests, of_kind, refusal, settings_file, values
from tests.mixer.test_app import MEMORY

ROLLOUT = values("rollout")
NAME = "forest"


def rendered(*args: str) -> Settings:
    return settings.parse(settings_file(manifests(*args), "mixer"))


def test_values_become_arms_and_shadows() -> None:
    """A canary takes its percentage, the control the rest; bounds, key and shadow are those of the values."""
    loaded = rendered(ROLLOUT)
    mix = loaded.mixes["default"]
    assert mix.experiment
    control, canary = mix.experiment.arms
    assert (control.name, control.share, control.model) == ("control", 0.93, None)
    assert (canary.name, canary.share, canary.model) == ("canary", 0.07, "candidate")
    assert canary.canary == CanarySettings(ctr_drop=0.02, latency_ratio=None)
    assert (mix.model, mix.experiment.key) == ("movies", "user")
    assert str(mix.experiment.verdicts) == "/var/lib/mixer/verdicts"
    assert [(shadow.model, shadow.share) for shadow in mix.shadows] == [("nightly", 0.2)]
    assert loaded.mixes["plain"].experiment is None


def test_what_the_settings_say_stays_beside_it() -> None:
    """Values are laid over the settings, not in their place: a model's own poll, a mix's own shadow."""
    shadow = "--set=config.models.old.path=/models/old,config.mixes.default.shadows[0].model=old"
    loaded = rendered(ROLLOUT, shadow)
    movies = loaded.models["movies"].model_dump()
    assert (movies["poll_s"], movies["version"]) == (5, "3f21c09a77de")
    assert loaded.models["nightly"].model_dump()["version"] is None
    assert [each.model for each in loaded.mixes["default"].shadows] == ["old", "nightly"]


@pytest.mark.parametrize("percent", [0, 0.1, 1, 7, 33.3, 50, 99.9, 100])
def test_every_percentage_adds_up(percent: float) -> None:
    """No share is lost to rounding, and moving the percentage draws nobody anew: the salt stays."""
    loaded = rendered(ROLLOUT, f"--set-json=rollout.default.canary.percent={percent}")
    experiment = loaded.mixes["default"].experiment
    assert experiment
    assert experiment.arms[1].share == pytest.approx(percent / 100)
    assert experiment.salt == "candidate@8b0d5e6f1a22"


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("rollout.other.model=movies", "rollout.other: config.mixes has no mix"),
        ("rollout.default.model=movis", 'rollout.default.model: no model is called "movis"'),
        ("rollout.default.canary.model=movis", "rollout.default.canary.model: no model"),
        ("rollout.default.shadow.model=movis", "there are: candidate, movies, nightly"),
        ("rollout.default.canary.percent=101", "/rollout/default/canary/percent"),
        ("rollout.default.canary.bounds.error=1", "error"),
        ("rollout.default.canary.share=0.1", "share"),
        ("config.mixes.default.experiment.salt=x", "splits its traffic already"),
        ("models.movies.pinned=x", "pinned"),
    ],
)
def test_a_rollout_that_makes_no_sense_is_refused(assignment: str, said: str) -> None:
    """Before anything reaches the cluster, by the name of what is wrong."""
    assert said in refusal(ROLLOUT, f"--set={assignment}")


def test_pods_are_replaced_for_another_version() -> None:
    """A version, a percentage and nothing else change the pods: a rollout is a `helm upgrade`."""

    def annotations(*more: str) -> dict[str, str]:
        pod = of_kind(manifests(ROLLOUT, *more), "Deployment")["mixer"]["spec"]["template"]
        return dict(pod["metadata"]["annotations"])

    for change in ("models.movies.version=aaaa", "rollout.default.canary.percent=8"):
        assert annotations() != annotations(f"--set={change}")
    assert annotations() == annotations("--set=replicaCount=9")


@pytest.fixture
def versions(tmp_path: Path, model_folder: Path, other_folder: Path) -> list[str]:
    """Two versions in a registry, the first one current."""
    shelf = Registry(str(tmp_path / "shelf"))
    found = [shelf.publish(folder, NAME)[0].version for folder in (model_folder, other_folder)]
    shelf.point(NAME, found[0], None, "")
    return found


def values_file(folder: Path, versions: list[str], percent: int) -> str:
    """Values for a mix of the forest's features: the second version is the canary of the first."""
    shelf = {"registry": str(folder / "shelf"), "name": NAME, "cache": str(folder / "cache")}
    features = [feature.model_dump(mode="json") for feature in forest.FEATURES]
    canary = {"model": "next", "percent": percent}
    made: dict[str, Any] = {
        "secrets": {"cursorKey": "k", "redactionKey": "k"},
        "models": {
            key: {**shelf, "version": version} for key, version in zip(("now", "next"), versions, strict=True)
        },
        "rollout": {"default": {"model": "now", "canary": canary, "shadow": {"model": "next"}}},
        "config": {
            "server": {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "drain_s": 0.2},
            "backends": {"a": MEMORY},
            "mixes": {"default": {"backends": {"a": {"timeout_s": 15}}, "features": features}},
        },
    }
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(made), encoding="utf-8")
    return f"--values={path}"


@pytest.mark.parametrize(("percent", "arm"), [(0, "control"), (100, "canary")])
async def test_the_rollout_serves(tmp_path: Path, versions: list[str], percent: int, arm: str) -> None:
    """`mixer check-config` finds the rendered settings and both models sound; the arm's own version answers."""
    text = settings_file(manifests(values_file(tmp_path, versions, percent)), "mixer")
    config = tmp_path / "mixer.yaml"
    config.write_text(text, encoding="utf-8")
    assert "sound" in commands.said(commands.run("check-config", "-c", config))
    async with mixers.running(settings.parse(text)) as mixer:
        found = await mixer.search("csv", context={"plan": "free"})
    assert found.model
    assert (found.arm, found.model.version) == (arm, versions[arm == "canary"])
