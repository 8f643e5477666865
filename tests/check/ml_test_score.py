"""Keeps docs/ml-test-score.md that of the rubric, and the rubric true: `python -m tests.check.ml_test_score [--write]`.

Fails where a row names a test, command, metric or alert that is not there, or claims more than it names.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from typer.main import get_command

from mixer.catalogue import METRICS
from mixer.cli import app
from models.alerts import ALERTS, RUNBOOKS
from tests.check.rubric import PAPER, SECTIONS, Row

ROOT = Path(__file__).parents[2]
PATH = ROOT / "docs" / "ml-test-score.md"
IN_SECTION = 7

LEVELS = (
    (0.0, "0", "research, not yet a product"),
    (1.0, "above 0, to 1", "something is tested; look for serious holes"),
    (2.0, "above 1, to 2", "a first step towards a product; more is needed"),
    (3.0, "above 2, to 3", "tested fairly well; more of it could run by itself"),
    (5.0, "above 3, to 5", "much is tested and watched by itself; fit for what must not fail"),
    (7.0, "above 5", "more than is usual is tested and watched by itself"),
)
"""The paper's bands of the final score, each up to its bound, in our words."""


def level(score: float) -> str:
    """What a final score means."""
    return next(means for bound, _, means in LEVELS if score <= bound)


def faults(row: Row) -> Iterator[str]:
    """What is wrong with a row's evidence, or with what it claims by it."""
    yield from (f"no test {name}" for name in row.tests if not has_test(name))
    yield from (f"no command {line!r}" for line in row.commands if not has_command(line))
    yield from (f"no metric or alert {name}" for name in row.watched if name not in _metrics() | _alerts())
    if row.score == 1 and not row.tests:
        yield "claims the whole without a test"
    if row.score == 0 and not row.lacking:
        yield "does not say what is lacking"


def has_test(name: str) -> bool:
    """Whether `file::function` below tests/ is a test that pytest collects."""
    file, _, function = name.partition("::")
    path = ROOT / "tests" / file
    return path.name.startswith("test_") and path.is_file() and function in _tests_of(path)


@cache
def _tests_of(path: Path) -> frozenset[str]:
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def has_command(line: str) -> bool:
    """Whether `mixer …` or `make …` can be called so, each option included."""
    program, *words = line.split()
    if program == "make":
        return len(words) == 1 and words[0] in _targets()
    return program == "mixer" and _takes(get_command(app), words)


def _takes(command: Any, words: list[str]) -> bool:
    options = {option for parameter in command.params for option in parameter.opts}
    if not words or words[0].startswith("--"):
        return not hasattr(command, "commands") and set(words) <= options
    within = getattr(command, "commands", {})
    return words[0] in within and _takes(within[words[0]], words[1:])


@cache
def _targets() -> frozenset[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


@cache
def _metrics() -> frozenset[str]:
    return frozenset(metric.name for metric in METRICS)


@cache
def _alerts() -> frozenset[str]:
    return frozenset(alert.name for alert in ALERTS)


def all_faults() -> list[str]:
    """Every fault of the rubric, each with the row that has it."""
    found = [
        f"{section} {number}: {fault}"
        for section, rows in SECTIONS.items()
        for number, row in enumerate(rows, 1)
        for fault in faults(row)
    ]
    return found + [
        f"{section} has not {IN_SECTION} tests"
        for section, rows in SECTIONS.items()
        if len(rows) != IN_SECTION
    ]


def page() -> str:
    """The document, as Markdown."""
    sums = {section: sum(row.score for row in rows) for section, rows in SECTIONS.items()}
    final = min(sums.values())
    lines = [
        *_introduction(final),
        *_table(
            ("section", "score"),
            ((f"[{name}](#{name.lower()})", f"{it:g} of 7") for name, it in sums.items()),
        ),
        *_table(("final score", "means"), ((band, means) for _, band, means in LEVELS)),
    ]
    for section, rows in SECTIONS.items():
        lines += [f"## {section}", "", f"{sums[section]:g} of {IN_SECTION}.", ""]
        lines += [line for number, row in enumerate(rows, 1) for line in _told(number, row)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _introduction(final: float) -> list[str]:
    return [
        "# The ML test score of Mixer",
        "",
        f"**{final:g}**: {level(final)}.",
        "",
        f"{PAPER}, names 28 tests of a system that learns. Here is what does each of them in Mixer, and its demo as an "
        "example; a deployment adds its own. Written by `make docs` from `tests/check/rubric.py`; `make check` fails "
        "where a test, command, metric or alert that is named here does not exist.",
        "",
        "A test done by itself at every change or all the time counts 1, as in the paper. One done by hand with its "
        "result written down counts 1/2, and so does, stricter than the paper, one of which a part is lacking. A "
        "section's score is the sum, the final score the least of the four.",
        "",
    ]


def _table(head: tuple[str, str], rows: Iterator[tuple[str, str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ("---", "---"), *rows)] + [""]


def _told(number: int, row: Row) -> Iterator[str]:
    yield from (f"### {number}. {row.name}: {row.score:g}", "", row.how, "")
    evidence = {
        "Tests": [f"[`{name.partition('::')[2]}`](../tests/{name.partition('::')[0]})" for name in row.tests],
        "Commands": [f"`{line}`" for line in row.commands],
        "Watched": [_linked(name) for name in row.watched],
        "Lacking": [row.lacking] if row.lacking else [],
    }
    yield from (f"- {what}: {', '.join(told)}" for what, told in evidence.items() if told)
    yield ""


def _linked(name: str) -> str:
    page = Path(RUNBOOKS).name
    return f"[{name}]({page}#{name.lower()})" if name in _alerts() else f"`{name}`"


if __name__ == "__main__":
    if wrong := all_faults():
        sys.exit("\n".join(wrong))
    if "--write" in sys.argv:
        PATH.write_text(page(), encoding="utf-8")
    elif not PATH.is_file() or PATH.read_text(encoding="utf-8") != page():
        sys.exit(f"{PATH.relative_to(ROOT)} is stale; run `make docs`")
