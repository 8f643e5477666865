from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from mixer import cli_replay
from mixer.model import LightGbmModel
from mixer.registry import Registry
from tests import served
from tests.commands import run, said


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which tables have room."""
    monkeypatch.setattr(cli_replay, "console", Console(width=200))


def test_replay_of_the_logged_model(model_folder: Path, log: Path) -> None:
    """All come out the same, with status 0; a torn file is named and left out."""
    result = run("replay", "--model", model_folder, "--log", log)
    assert re.search(r"the same +│ +90 ", said(result))
    assert "torn.parquet cannot be read and is left out" in result.stderr


def test_replay_of_one_trace(model_folder: Path, log: Path) -> None:
    """A trace id finds its search, and its ranking is shown."""
    text = said(run("replay", "--model", model_folder, "--log", log, "--trace-id", f"{7:032x}"))
    assert "query 7" in text
    assert re.search(r"│ +1 │ 7-\d\d +│ +1 │", text)
    assert re.search(r"the same +│ +1 ", text)


def test_replay_of_a_window(model_folder: Path, log: Path) -> None:
    """Times are in UTC, from the first inclusive to the last exclusive; a limit takes the first."""
    window = ("--since", "2024-05-01T10:58:00", "--until", "2024-05-01T11:02:00")
    assert re.search(r"the same +│ +4 ", said(run("replay", "--model", model_folder, "--log", log, *window)))
    assert re.search(
        r"the same +│ +3 ", said(run("replay", "--model", model_folder, "--log", log, *window, "--limit", 3))
    )


def test_replay_tells_a_difference(model_folder: Path, logged_model: LightGbmModel, tmp_path: Path) -> None:
    """A score that is another by one bit is named, and the status is 2."""
    row = served.row(1, logged_model)
    row["scores"][0] += 1e-15
    result = run("replay", "--model", model_folder, "--log", served.write(tmp_path, [row]))
    assert re.search(r"scores differ +│ +1 ", said(result, 2))
    assert f"q1: {row['ids'][0]} scored" in result.stdout


def test_replay_by_another_model(other_folder: Path, log: Path) -> None:
    """There is nothing to compare: that is said, and the status is neither that of sameness nor of difference."""
    result = run("replay", "--model", other_folder, "--log", log, "--show", 1)
    assert re.search(r"ranked by another +│ +90 ", said(result, 3))
    assert "nothing was compared" in result.stderr


@pytest.mark.parametrize("command", ["replay", "diff"])
def test_no_such_search(command: str, model_folder: Path, log: Path, tmp_path: Path) -> None:
    """A log that is not there, or holds no such search, is a line and status 1."""
    models = ("--model", model_folder) if command == "replay" else (model_folder, model_folder)
    for words, expected in (
        (("--log", tmp_path / "gone"), "gone is not a folder"),
        (("--log", log, "--query-id", "nobody"), "holds no such search"),
    ):
        result = run(command, *models, *words)
        assert said(result, 1) == ""
        assert expected in result.stderr


def test_diff(model_folder: Path, other_folder: Path, log: Path, tmp_path: Path) -> None:
    """Two models' orders are held side by side, as tables, as a picture and as JSON."""
    picture = tmp_path / "diff.png"
    text = said(run("diff", model_folder, other_folder, "--log", log, "--plot", picture))
    assert re.search(r"searches +│ +90 ", text)
    assert "the most changed" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    told = json.loads(said(run("diff", model_folder, other_folder, "--log", log, "--json", "--limit", 5)))
    assert told["summary"]["searches"] == len(told["searches"]) == 5
    assert told["before"] != told["after"]


def test_diff_of_other_features(model_folder: Path, log: Path) -> None:
    """Models of different features cannot be compared on one log."""
    demo = Path(__file__).parents[2] / "models/demo/ranker"
    result = run("diff", model_folder, demo, "--log", log)
    assert said(result, 1) == ""
    assert "of different features" in result.stderr


def test_versions_of_a_registry(log: Path, model_folder: Path, other_folder: Path, tmp_path: Path) -> None:
    """A version goes by its start, the current one by that word, and a folder beside them as it is."""
    registry = Registry(str(tmp_path / "registry"))
    manifest, _ = registry.publish(model_folder, "ranker")
    where = ("--registry", tmp_path / "registry", "--log", log, "--limit", 4)
    assert re.search(r"the same +│ +4 ", said(run("replay", "--model", manifest.version[:6], *where)))
    result = run("replay", "--model", "current", *where)
    assert said(result, 1) == ""
    assert "ranker has no current version" in result.stderr
    registry.point("ranker", manifest.version, None, "a test")
    assert re.search(r"the same +│ +4 ", said(run("replay", "--model", "current", *where)))
    told = json.loads(said(run("diff", "current", other_folder, *where, "--json")))
    assert told["before"] == f"forest {manifest.version}"
    assert told["before"] != told["after"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [((), "for a version of a registry, name that with --registry"), (("-r",), "has no version 'nowhere'")],
)
def test_a_model_that_is_not_there(
    words: tuple[str, ...], expected: str, log: Path, model_folder: Path, tmp_path: Path
) -> None:
    """It is a line and status 1, whichever of the two it was to be."""
    Registry(str(tmp_path)).publish(model_folder, "ranker")
    where = (*words, tmp_path) if words else ()
    result = run("replay", "--model", "nowhere", "--log", log, *where)
    assert said(result, 1) == ""
    assert expected in result.stderr
