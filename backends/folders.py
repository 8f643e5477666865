"""Puts a finished folder in the place of the one that was there: an index, a model."""

from __future__ import annotations

from pathlib import Path


def swap(draft: Path, folder: Path, replaced: Path) -> None:
    """Put `draft` in place of `folder`, which moves to `replaced`; a failure leaves all as it was.

    Readers of the old folder keep what they have open; between the two renames nothing can be opened anew.
    """
    if folder.exists():
        folder.rename(replaced)
    try:
        draft.rename(folder)
    except OSError:
        if replaced.exists():
            replaced.rename(folder)
        raise
