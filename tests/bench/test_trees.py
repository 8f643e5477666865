"""Whose code is measured."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.bench import trees
from tests.bench.trees import NoCommit

AUTHOR = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *AUTHOR, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two commits of one measured file."""
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "repository"
    (folder / "mixer").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    for text in ("old", "new"):
        (folder / "mixer" / "code.py").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", text)
    monkeypatch.setattr(trees, "ROOT", folder)
    return folder


def test_a_commits_files_are_there_for_a_while(repository: Path) -> None:
    """As they were; the repository's own stay, and nothing is left behind."""
    with trees.at("HEAD~1") as tree:
        assert (tree.folder / "mixer" / "code.py").read_text() == "old"
        assert tree.commit == git(repository, "rev-parse", "HEAD~1")
        assert not tree.dirty
    assert not tree.folder.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert (repository / "mixer" / "code.py").read_text() == "new"


def test_changed_files_are_no_commit(repository: Path) -> None:
    """Those that are measured; a file beside them changes nothing."""
    (repository / "README.md").write_text("beside")
    assert str(trees.here()) == git(repository, "rev-parse", "HEAD")[:7]
    (repository / "mixer" / "code.py").write_text("changed")
    assert str(trees.here()) == git(repository, "rev-parse", "HEAD")[:7] + "+"


@pytest.mark.parametrize("name", ["nothing", "", "--help"])
def test_a_name_that_git_does_not_know_is_refused(repository: Path, name: str) -> None:
    """An option is no name either."""
    with pytest.raises(NoCommit), trees.at(name):
        pass


def test_without_a_repository_the_files_are_of_an_unknown_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They can be measured all the same."""
    monkeypatch.setattr(trees, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert str(trees.here()) == "unknown+"
