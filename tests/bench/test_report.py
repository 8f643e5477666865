"""The tables: what they show, and how two runs are compared."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from rich.console import Console, RenderableType

from tests.bench import lines, report
from tests.bench.records import course, crowd, run


def shown(parts: Iterable[RenderableType]) -> str:
    console = Console(file=StringIO(), width=250)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def row(text: str, title: str) -> list[str]:
    """The cells of the first line that begins so."""
    found = next(line for line in text.splitlines() if line.startswith(f"│ {title}"))
    return [cell.strip() for cell in found.strip("│").split("│")]


def test_every_line_is_shown_with_its_target() -> None:
    """And whether it holds."""
    text = shown(report.report(run()))
    for line in lines.PATH:
        assert row(text, line.title)[3:] == ([f"<= {line.target:g}x", "yes"] if line.target else ["", ""])
    assert "2 rounds" in text


def test_missing_spans_are_told_beside_the_figures() -> None:
    """A trace that lacks spans is cheap: its figures do not count."""
    sound = run().courses["traced"]
    less = run({"traced": sound.model_copy(update={"spans": 200})})
    assert "do not count" in shown(report.report(less))
    assert "do not count" not in shown(report.report(run()))


def test_throughput_is_shown_with_who_used_the_cores() -> None:
    """Mixer and the generator, in cores."""
    text = shown(report.report(run(crowds={1: (crowd(100),), 2: (crowd(180),)})))
    assert row(text, "1 ") == ["1", "50", "18.18", "1.00", "0.50"]
    assert row(text, "2 ")[:2] == ["2", "90"]
    assert ">= 1.7x" in text


def test_rounds_that_took_turns_are_compared_one_by_one() -> None:
    """A slow minute hits both sides and changes nothing."""
    old = run({"model": course("model", (2.0, 20.0))}, commit="c" * 40)
    new = run({"model": course("model", (1.0, 10.0))})
    text = shown(report.comparison(old, new))
    assert row(text, "model, no tracing")[3:5] == ["0.500x", "0.50 .. 0.50"]
    assert "took turns" in text


def test_runs_apart_are_compared_with_all_their_noise() -> None:
    """Every round of the one to every round of the other."""
    old = run({"model": course("model", (2.0, 20.0))}, commit="c" * 40)
    new = run({"model": course("model", (1.0, 10.0))}, hour=2)
    text = shown(report.comparison(old, new))
    low, _, high = row(text, "model, no tracing")[4].partition(" .. ")
    assert float(low) < 0.5 < float(high)
    assert "apart" in text


def test_lines_that_only_one_run_has_are_left_out() -> None:
    """One without workers, for example."""
    crowds = {1: (crowd(100),), 2: (crowd(180),)}
    old, new = run(commit="c" * 40), run(crowds=crowds)
    assert "2 workers" not in shown(report.comparison(old, new))
    assert "2 workers" in shown(report.comparison(run(crowds=crowds, commit="c" * 40), new))
