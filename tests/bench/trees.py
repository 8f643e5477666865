"""The code that a Mixer under load runs: the files here, or a commit of this repository."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
_MEASURED = ("mixer", "backends", "models", "protos", "tests/bench", "pyproject.toml")
"""What a commit must still be like for a measurement to be that commit's."""


class NoCommit(Exception):
    """A name that git does not know, or no git at all."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder of code, and the commit that it is, changed since or not."""

    folder: Path
    commit: str
    dirty: bool = False

    def __str__(self) -> str:
        """The short commit; a plus says that files were changed since."""
        return f"{self.commit[:7]}{'+' if self.dirty else ''}"


def here() -> Tree:
    """The files as they are now; without git, of an unknown commit."""
    try:
        return Tree(ROOT, commit_of("HEAD"), bool(_git("status", "--porcelain", "--", *_MEASURED)))
    except NoCommit:
        return Tree(ROOT, "unknown", dirty=True)


@contextmanager
def at(name: str) -> Iterator[Tree]:
    """A commit's files in a git worktree of its own, while the context lasts. Raises: NoCommit."""
    commit = commit_of(name)
    with TemporaryDirectory(prefix="bench-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield Tree(tree, commit)
        finally:
            _git("worktree", "remove", "--force", str(tree))


def commit_of(name: str) -> str:
    """The full hash of a commit. Raises: NoCommit."""
    return _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")


def _git(*arguments: str) -> str:
    try:
        told = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        raise NoCommit(f"git {' '.join(arguments)}: {error.stderr.strip() or 'no such commit'}") from error
    except FileNotFoundError as error:
        raise NoCommit("there is no git") from error
    return told.stdout.strip()
