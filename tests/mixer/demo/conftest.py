"""The demo over a corpus of fifty documents, so that its indexes are made in a moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from rich.console import Console

from mixer.demo import corpus, show
from mixer.demo.processes import free_port

_THINGS = ("csv", "json", "file", "socket", "cache", "thread", "date", "path", "string", "list")
_VERBS = ("read", "write", "open", "parse", "close")


def documents() -> list[dict[str, Any]]:
    """A document a verb and thing, of the corpus's fields."""
    return [
        {
            "id": f"{thing}.{verb}",
            "name": verb,
            "module": thing,
            "kind": "function",
            "signature": f"{verb}({thing}, *, timeout=None)",
            "summary": f"{verb.title()} a {thing} in one go",
            "doc": f"{verb.title()} a {thing}. Number {number} of the things to do with a {thing}.",
            "uses": number,
        }
        for number, (thing, verb) in enumerate((thing, verb) for thing in _THINGS for verb in _VERBS)
    ]


@contextmanager
def small_corpus(documents: list[dict[str, Any]]) -> Iterator[list[Path]]:
    """Within it these documents are the corpus; it gives the files that were written."""
    files: list[Path] = []

    def write(path: Path) -> int:
        files.append(path)
        lines = [json.dumps(document) for document in documents]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return len(lines)

    with patch.object(corpus, "write", write):
        yield files


@pytest.fixture
def console() -> Console:
    """A wide terminal that keeps what it is told."""
    return Console(file=StringIO(), width=300)


@pytest.fixture
def corpus_files() -> Iterator[list[Path]]:
    """The small corpus in place of the interpreter's; the files that were written of it."""
    with small_corpus(documents()) as files:
        yield files


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> show.Stage:
    """The demo prepared from nothing, with the shipped model."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    with small_corpus(documents()):
        return show.prepare(folder, free_port(), Console(file=StringIO()))
