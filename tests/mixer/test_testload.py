from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixer import testload
from mixer.manifest import GOLDEN, MANIFEST, MODEL, Golden


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A sound model folder, to be broken."""
    return shutil.copytree(model_folder, tmp_path / "forest")


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mixer.testload", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)


def test_a_sound_model_passes_in_silence(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing to say, status 0."""
    assert testload.main(folder) == 0
    assert capfd.readouterr().err == ""


def test_scores_that_changed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Scores that differ in their last bits are status 1 and one line: which golden query, not its words."""
    golden = Golden.model_validate_json((folder / GOLDEN).read_bytes())
    first = golden.queries[0]
    wrong = first.model_copy(update={"scores": (first.scores[0] + 1e-12, *first.scores[1:])})
    changed = golden.model_copy(update={"queries": (wrong, *golden.queries[1:])})
    (folder / GOLDEN).write_text(changed.model_dump_json(), encoding="utf-8")
    assert testload.main(folder) == 1
    assert capfd.readouterr().err == "golden query 0 scores otherwise than when trained\n"


def test_a_file_that_kills(folder: Path) -> None:
    """A truncated forest fails the process that loads it, by status or by signal, and no other."""
    text = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(text[: len(text) // 2])
    assert run(folder).returncode != 0


@pytest.mark.parametrize("name", [MANIFEST, GOLDEN, MODEL])
@pytest.mark.parametrize("content", [None, b"", b"{}\n\n\xff"])
def test_a_folder_that_makes_no_sense(
    folder: Path, name: str, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever is missing or unreadable, the end is status 1 and one line that names the fault, no traceback."""
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    assert testload.main(folder) == 1
    said = capfd.readouterr().err.splitlines()
    assert said
    assert "Error" in said[-1] or "Refused" in said[-1]
    assert "Traceback" not in " ".join(said)
