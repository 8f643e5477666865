from __future__ import annotations

from pathlib import Path

import pytest

from mixer.verdicts import Verdict, Verdicts


def verdict(mix: str = "m", arm: str = "canary", sha256: str = "a" * 64) -> Verdict:
    return Verdict(
        mix=mix,
        arm=arm,
        sha256=sha256,
        reason="errors",
        figure=0.5,
        control=0.0,
        bound=0.01,
        requests=200,
        control_requests=1800,
        why="errors: many",
        at="2024-01-01T00:00:00+00:00",
    )


def test_a_verdict_holds_for_all_who_share_the_folder(tmp_path: Path) -> None:
    """Another process, or the same after a restart, finds it; by arm and model, of its own mix."""
    Verdicts("m", tmp_path / "v").keep(verdict())
    assert Verdicts("m", tmp_path / "v").standing() == {("canary", "a" * 64): verdict()}
    assert Verdicts("other", tmp_path / "v").standing() == {}


def test_without_a_folder_it_holds_here(tmp_path: Path) -> None:
    """For this process, as long as it runs."""
    verdicts = Verdicts("m", None)
    assert verdicts.standing() == {}
    verdicts.keep(verdict())
    assert verdicts.standing() == {verdict().on: verdict()}


def test_deleting_the_file_ends_it(tmp_path: Path) -> None:
    """Who deletes it gives the arm another chance; no restart is needed."""
    verdicts = Verdicts("m/1", tmp_path)
    verdicts.keep(verdict("m/1"))
    verdicts.keep(verdict("m/1", sha256=""))
    assert len(verdicts.standing()) == 2
    for path in tmp_path.glob("*.json"):
        path.unlink()
    assert verdicts.standing() == {}


def test_a_folder_that_cannot_be_written_changes_nothing_here(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The verdict holds for this process, and the log says why for no other."""
    (tmp_path / "v").write_text("a file")
    verdicts = Verdicts("m", tmp_path / "v")
    verdicts.keep(verdict())
    assert verdicts.standing() == {verdict().on: verdict()}
    assert "not written" in caplog.text


def test_what_is_no_verdict_is_passed_over(tmp_path: Path) -> None:
    """Torn, foreign or hidden files."""
    (tmp_path / "torn.json").write_text('{"mix": "m"')
    (tmp_path / ".draft.json").write_text(verdict().model_dump_json())
    assert Verdicts("m", tmp_path).standing() == {}
