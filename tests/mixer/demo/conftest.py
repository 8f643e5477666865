"""The demo over a corpus of fifty documents, so that its indexes are made in a moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

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


@dataclass
class Written:
    """What stands in for the corpus, and how often it was asked for."""

    documents: list[dict[str, Any]] = field(default_factory=documents)
    times: int = 0

    def write(self, path: Path) -> int:
        """As `corpus.write`."""
        self.times += 1
        lines = [json.dumps(document) for document in self.documents]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return len(lines)


@pytest.fixture(scope="session")
def written() -> Iterator[Written]:
    """The small corpus in place of the interpreter's."""
    stand_in = Written()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(corpus, "write", stand_in.write)
        yield stand_in


@pytest.fixture
def console() -> Console:
    """A wide terminal that keeps what it is told."""
    return Console(file=StringIO(), width=300)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, written: Written) -> show.Stage:
    """The demo prepared from nothing, with the shipped model."""
    folder = tmp_path_factory.mktemp("demo") / "new"
    return show.prepare(folder, free_port(), Console(file=StringIO()))
