from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner, Result

from mixer import cli, cli_models
from mixer.decision import Bounds
from mixer.manifest import MANIFEST, MODEL
from mixer.registry import Registry
from tests import forest

NAME = "forest"
SLICES = [{"name": "script", "by": "script"}]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which tables have room, and no registry of the environment's."""
    monkeypatch.setattr(cli_models, "console", Console(width=250))
    monkeypatch.delenv("MIXER_REGISTRY", raising=False)


def run(*argv: object) -> Result:
    return CliRunner().invoke(cli.app, ["models", *(str(word) for word in argv)])


def said(*argv: object) -> str:
    """What a command that went well prints."""
    result = run(*argv)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def told(*argv: object) -> Any:
    return json.loads(said(*argv, "--json"))


def fault(*argv: object) -> str:
    """What a command that went wrong says on standard error."""
    result = run(*argv)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (1, "")
    return result.stderr


@pytest.fixture
def bounds(tmp_path: Path) -> Path:
    """A gate for few queries."""
    file = tmp_path / "bounds.yaml"
    file.write_text("min_queries: 5\nmin_slice_queries: 5\n", encoding="utf-8")
    return file


@pytest.fixture
def shelf(model_folder: Path, tmp_path: Path) -> Path:
    """A registry with v1 and v2 of one model, v1 current."""
    raw = json.loads((model_folder / MANIFEST).read_text(encoding="utf-8"))
    registry = Registry(str(tmp_path / "shelf"))
    for version in ("v1", "v2"):
        copy = shutil.copytree(model_folder, tmp_path / version)
        made = {**raw, "version": version, "trees": raw["trees"] + (version == "v2")}
        (copy / MANIFEST).write_text(json.dumps(made), encoding="utf-8")
        registry.publish(copy)
    registry.point(NAME, "v1", None, "")
    return tmp_path / "shelf"


def current(shelf: Path) -> str:
    pointer = Registry(str(shelf)).current(NAME)
    return pointer.version if pointer else ""


def test_help_shows_the_way() -> None:
    """Every command with what it does, and that nothing goes round the gate."""
    text = said("--help")
    for command in ("publish", "list", "show", "diff", "promote", "rollback"):
        assert command in text
    assert "--force" not in said("promote", "--help")


def test_publish(model_folder: Path, tmp_path: Path) -> None:
    """It says what to do next; a second time nothing is new; the environment can name the registry."""
    shelf = tmp_path / "shelf"
    version = json.loads((model_folder / MANIFEST).read_text(encoding="utf-8"))["version"]
    assert "promote" in said("publish", model_folder, "-r", shelf)
    assert said("publish", model_folder, "-r", shelf) == f"{NAME} {version}: was there already\n"
    again = told("publish", model_folder, "-r", shelf)
    assert (again["version"], again["new"]) == (version, False)
    result = CliRunner().invoke(cli.app, ["models", "list", "--json"], env={"MIXER_REGISTRY": str(shelf)})
    assert [line["version"] for line in json.loads(result.stdout)] == [version]


def test_publish_refuses_what_is_broken(model_folder: Path, tmp_path: Path) -> None:
    """A truncated file is named in one line."""
    cut = shutil.copytree(model_folder, tmp_path / "cut")
    (cut / MODEL).write_bytes((cut / MODEL).read_bytes()[:-100])
    assert f"checksum: {MODEL}" in fault("publish", cut, "-r", tmp_path / "shelf")


def test_list(shelf: Path) -> None:
    """Every version with its state, as a table and as JSON."""
    text = said("list", "-r", shelf)
    assert "v1" in text
    assert "current" in text
    assert {line["version"]: line["state"] for line in told("list", "-r", shelf)} == {
        "v1": "current",
        "v2": "",
    }
    assert "holds no model" in said("list", "-r", shelf / "empty")


def test_promote_and_roll_back(shelf: Path, bounds: Path) -> None:
    """A version that passes is current; one command takes it back; `show` tells of both and of the gate's figures."""
    text = said("promote", "v2", "-r", shelf, "--bounds", bounds, "-m", "more trees")
    assert "gate: v2 passed" in text
    assert text.endswith("forest: v2 is current; before it: v1\n")
    assert current(shelf) == "v2"
    assert "is current again, no longer v2" in said("rollback", "-r", shelf, "-m", "complaints")
    assert current(shelf) == "v1"
    shown = said("show", "v2", "-r", shelf)
    for word in ("more trees", "ndcg_drop", "promote", "NDCG@10 falls by 0.0000"):
        assert word in shown
    facts = told("show", "v2", "-r", shelf)
    assert [event["action"] for event in facts["history"]] == ["publish", "promote"]
    assert [decision["passed"] for decision in facts["decisions"]] == [True]
    assert facts["current"]["why"] == "complaints"


def test_a_refusal_says_which_check_and_by_how_much(shelf: Path, bounds: Path) -> None:
    """The table goes to standard output, the refusals to standard error, and the status is 1; in JSON too."""
    bounds.write_text("min_queries: 5\nndcg_floor: 0.999\n", encoding="utf-8")
    result = run("promote", "v2", "-r", shelf, "--bounds", bounds)
    assert result.exit_code == 1
    assert "gate: v2 refused" in result.stdout
    assert result.stderr.startswith("refused by ndcg_floor: NDCG@10 is 0.9")
    assert result.stderr.endswith("; at least 0.9990\n")
    result = run("promote", "v2", "-r", shelf, "--bounds", bounds, "--json")
    assert result.exit_code == 1
    made = json.loads(result.stdout)
    assert (made["decision"]["passed"], made["current"]) == (False, None)
    assert current(shelf) == "v1"


def test_the_bounds_can_be_had_and_are_checked(shelf: Path, bounds: Path) -> None:
    """Printed as the file in which they may be changed; a key that is none is named."""
    assert Bounds.model_validate(yaml.safe_load(said("promote", "--bounds-help"))) == Bounds()
    bounds.write_text("force: true\n", encoding="utf-8")
    assert f"{bounds}: force: unknown key" in fault("promote", "v2", "-r", shelf, "--bounds", bounds)


def test_diff(shelf: Path) -> None:
    """Only what differs, with both values; a version by the start of its name."""
    pairs = told("diff", "v1", "v2", "-r", shelf)
    assert list(pairs) == ["trees"]
    assert pairs["trees"][1] - pairs["trees"][0] == 1
    assert "+1" in said("diff", "v1", "v2", "-r", shelf)
    assert "several versions start with 'v'; there are: " in fault("diff", "v", "v2", "-r", shelf)


def test_what_is_meant_must_be_clear(shelf: Path, model_folder: Path, bounds: Path) -> None:
    """No registry, no such version, several models, nothing to do: one line says what is lacking."""
    assert "which registry?" in fault("list")
    assert "forest has no version 'v9'; there are: " in fault("promote", "v9", "-r", shelf)
    assert "v1 is current already" in fault("promote", "v1", "-r", shelf)
    assert "name one with --to" in fault("rollback", "-r", shelf)
    said("publish", model_folder, "-r", shelf, "--name", "other")
    assert "say which model with --name" in fault("show", "-r", shelf)
    assert "other has no current version" in fault("show", "-r", shelf, "-n", "other")
    assert "nonsense" in fault("list", "-r", "nonsense://x")


def test_a_settings_file_says_where_and_for_what(shelf: Path, bounds: Path, tmp_path: Path) -> None:
    """Registry, model, slices to look at and the features to hold a version to come from its mix."""
    features = [feature.model_dump(mode="json") for feature in forest.FEATURES]
    raw = {
        "backends": {
            "a": {"kind": "memory", "fields": {"title": {"type": "text"}, "year": {"type": "number"}}}
        },
        "models": {"m": {"registry": "shelf", "name": NAME}},
        "mixes": {"default": {"backends": {"a": {}}, "features": features, "model": "m"}},
    }
    config = tmp_path / "mixer.yaml"
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert "v1" in said("list", "-c", config)
    raw["mixes"] = {"default": {"backends": {"a": {}}, "features": features, "model": "m", "slices": SLICES}}
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    decided = json.loads(run("promote", "v2", "-c", config, "--bounds", bounds, "--json").stdout)["decision"]
    (sliced,) = (check for check in decided["checks"] if check["name"] == "slice_drop")
    assert re.search(r"worst of 2 slices \((pool open|script latin), \d+ queries\)", sliced["told"])
    said("rollback", "-r", shelf, "--to", "v1")
    raw["mixes"] = {"default": {"backends": {"a": {}}, "features": features[:2], "model": "m"}}
    config.write_text(yaml.safe_dump(raw), encoding="utf-8")
    result = run("promote", "v2", "-c", config, "--bounds", bounds)
    assert result.stderr.startswith("refused by schema: the mix declares other features")
    assert "no mix is called 'x'" in fault("list", "-c", config, "--mix", "x")
    assert "nowhere.yaml" in fault("list", "-c", tmp_path / "nowhere.yaml")
