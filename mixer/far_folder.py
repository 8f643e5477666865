"""Folders behind an fsspec URL, which read like those of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from mixer.store import check_url

_HERE = "file://"


def folder_at(text: str) -> Path:
    """A folder of this machine, or the one behind a URL (s3://…): all that reads logs takes both.

    Raises: StoreFailed where nothing can open such a URL.
    """
    if "://" not in text or text.startswith(_HERE):
        return Path(text.removeprefix(_HERE))
    check_url(text)
    from upath import UPath

    # Not a Path by its class, but it opens, walks and is named as one.
    return cast(Path, UPath(text))


def system_of(folder: Path) -> Any:
    """Its `fsspec.AbstractFileSystem`; None where it is of this machine."""
    return None if isinstance(folder, Path) else folder.fs
