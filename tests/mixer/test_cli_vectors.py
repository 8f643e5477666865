from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands import run, said


def test_golden_vectors(model_folder: Path, tmp_path: Path) -> None:
    """What is written is found right; one changed digit is named, with status 1."""
    path = tmp_path / "vectors.json"
    assert "requests and 16 rows of forest" in said(run("golden-vectors", model_folder, "--out", path))
    assert "all as expected" in said(run("golden-vectors", model_folder, "--check", path))
    tree = json.loads(path.read_text(encoding="utf-8"))
    tree["rows"][2]["score"] += 1e-9
    path.write_text(json.dumps(tree), encoding="utf-8")
    result = run("golden-vectors", model_folder, "--check", path)
    assert said(result, 1) == ""
    assert result.stderr == f"{path}: row 2: the score differs\n"


@pytest.mark.parametrize("words", [(), ("--out", "a.json", "--check", "b.json")])
def test_golden_vectors_are_written_or_checked(words: tuple[str, ...], model_folder: Path) -> None:
    """It is one of the two."""
    result = run("golden-vectors", model_folder, *words)
    assert said(result, 1) == ""
    assert "pass --out FILE" in result.stderr
