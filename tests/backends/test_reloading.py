"""Files that are replaced while they are in use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.reloading import Reloading


def number(contents: Sequence[bytes]) -> int:
    return int(contents[0])


def reloading(path: Path, counted: list[str]) -> Reloading[int]:
    return Reloading("number", [path], number, counted.append)


async def test_content_counts_not_time(tmp_path: Path) -> None:
    """The same content in another file is no change; another content of the same age and size is."""
    path, counted = tmp_path / "n", list[str]()
    path.write_text("1")
    made = reloading(path, counted)
    os.utime(path, ns=(0, 0))
    assert (await made.look(), counted) == (False, [])
    path.write_text("2")
    os.utime(path, ns=(0, 0))
    assert (await made.look(), made.value, counted) == (True, 2, ["swapped"])


async def test_a_fault_is_counted_once(tmp_path: Path) -> None:
    """However often it is looked at; a file that is as before is no change, one that was missing may come back."""
    path, counted = tmp_path / "n", list[str]()
    path.write_text("1")
    made = reloading(path, counted)
    for content in ("x", None, "y", "3"):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        for _ in range(3):
            await made.look()
    assert counted == ["refused", "unreadable", "refused", "swapped"]
    assert made.value == 3


async def test_a_file_that_goes_twice_is_counted_twice(tmp_path: Path) -> None:
    """Between the two it was there."""
    path, counted = tmp_path / "n", list[str]()
    path.write_text("1")
    made = reloading(path, counted)
    for _ in range(2):
        path.unlink()
        await made.look()
        path.write_text("1")
        await made.look()
    assert (counted, made.value) == (["unreadable"] * 2, 1)


def test_the_first_must_be_sound(tmp_path: Path) -> None:
    """There is nothing to fall back to."""
    with pytest.raises(FileNotFoundError):
        reloading(tmp_path / "n", [])
    (tmp_path / "n").write_text("x")
    with pytest.raises(ValueError, match="invalid literal"):
        reloading(tmp_path / "n", [])
