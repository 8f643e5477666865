"""Keeps README's tables those of the catalogue: `python -m tests.check.readme [--write]`."""

from __future__ import annotations

import sys
from pathlib import Path

from mixer.terminal import catalogue_markdown

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- catalogue: written by `make docs` -->\n", "<!-- end of catalogue -->\n"


def fresh(text: str) -> str:
    """README with the catalogue's tables as they are now. Raises: ValueError without its markers."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks {BEGIN!r} or {END!r}")
    return f"{head}{BEGIN}\n{catalogue_markdown()}\n\n{END}{tail}"


if __name__ == "__main__":
    there = README.read_text(encoding="utf-8")
    made = fresh(there)
    if "--write" in sys.argv:
        README.write_text(made, encoding="utf-8")
    elif made != there:
        sys.exit("README.md: the catalogue's tables are stale; run `make docs`")
