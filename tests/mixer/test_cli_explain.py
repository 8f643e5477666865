from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from mixer import cli_explain
from tests.commands import run, said


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which tables have room."""
    monkeypatch.setattr(cli_explain, "console", Console(width=200))


def test_explain_a_logged_answer(model_folder: Path, log: Path) -> None:
    """The log and the model's folder give what a server would: places, features, and parts that add up."""
    text = said(run("explain", "q7", "--log", log, "--model", model_folder))
    assert "query 7" in text
    assert "what moved it" in text
    assert re.search(r"  fused \d+ → by score 1 ▲?\d* ?→ rules 1\n", text)
    told = json.loads(said(run("explain", "q7", "--log", log, "--model", model_folder, "--json")))
    assert len(told["answer"]["hits"]) == 5
    for hit, row in zip(told["answer"]["hits"], told["contributions"], strict=True):
        assert sum(row) + told["bias"] == pytest.approx(hit["score"])


def test_explain_a_logged_answer_without_its_model(log: Path) -> None:
    """Without the model all but the features' parts is told, and why they lack."""
    text = said(run("explain", "q7", "--log", log))
    assert "the model that ranked is not at hand" in text
    assert "by score 1" in text


def test_explain_a_logged_answer_by_another_model(log: Path, other_folder: Path) -> None:
    """How another model would rank it, and why, is told beside who served it."""
    text = said(run("explain", "q7", "--log", log, "--model", other_folder))
    assert "not as it was served: by the model that was asked for; served by forest" in text
    assert "the model's mean" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("nobody",), "holds no search 'nobody'"), (("q7", "--id", "x"), "'x': not among the 12 candidates")],
)
def test_a_logged_answer_that_is_not_there(words: tuple[str, ...], expected: str, log: Path) -> None:
    """It is a line, and status 1."""
    result = run("explain", *words, "--log", log)
    assert said(result, 1) == ""
    assert expected in result.stderr
