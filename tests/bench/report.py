"""What the runs say, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from backends.base import FloatColumn
from tests.bench import lines
from tests.bench.history import Course, Run
from tests.bench.lines import Check
from tests.bench.scenes import FLOOR, SCENES


def report(run: Run) -> Iterator[RenderableType]:
    """One run: its scenes, its lines with their targets, its crowds."""
    yield rounds_table(run)
    yield lines_table(run)
    if run.crowds:
        yield crowds_table(run)
    yield from map(Text, run.skipped)
    for check in lines.counts(run):
        if not check.holds:
            yield Text(
                f"{check.title}: {check.found:g}, not {check.bound}: the figures do not count", style="red"
            )
    cpu, python = run.machine.cpu, run.machine.python
    yield Text(
        f"{run.name}, {run.machine.cores} cores of {cpu}, load {run.machine.load_1m:.2f}, Python {python}"
    )


def rounds_table(run: Run) -> Table:
    """CPU, added latency and latency a request, by scene."""
    rounds = len(run.courses[FLOOR].rounds)
    drawn = _table(
        f"one caller, {rounds} rounds",
        (
            "scene",
            "backends x hits",
            "candidates",
            "requests",
            "CPU ms",
            "to floor",
            "added ms",
            "p50 ms",
            "p99 ms",
            "spans a call",
        ),
    )
    floor = run.courses[FLOOR]
    for scene in SCENES:
        course = run.courses[scene.key]
        p50, p99 = np.quantile(course.latency_s * 1000, [0.5, 0.99])
        drawn.add_row(
            scene.title,
            str(scene.group),
            str(course.candidates or ""),
            str(len(course.latency_s)),
            f"{_ms(course.cpu_s):.2f}",
            f"{np.median(course.cpu_s / floor.cpu_s):.2f}x",
            f"{_ms(course.added_s):.2f}" if scene.key != FLOOR else "",
            f"{p50:.2f}",
            f"{p99:.2f}",
            f"{course.spans / course.asked:.2f}" if scene.key != FLOOR else "",
        )
    return drawn


def lines_table(run: Run) -> Table:
    """Every line with its target, and whether it holds."""
    requests = len(run.courses["traced"].latency_s)
    title = f"ratios, p99 over {requests} requests each"
    drawn = _table(title, ("line", "ratio", "half of the rounds", "target", "holds"))
    for line in lines.of(run):
        target = "" if line.target is None else f"{'>=' if line.at_least else '<='} {line.target:g}x"
        told = lines.verdict(line, run)
        drawn.add_row(line.title, f"{line.value(run):.2f}x", _spread(*line.spread(run)), target, told)
    return drawn


def crowds_table(run: Run) -> Table:
    """Throughput by number of workers, and who used the cores."""
    first = run.crowds[1][0]
    drawn = _table(
        f"{first.callers} callers on a connection each, backends in process, {len(run.crowds[1])} rounds of "
        f"{first.elapsed_s:.0f} s, {run.machine.cores} cores",
        (
            "workers",
            "answers a second",
            "CPU ms an answer",
            "Mixer's cores",
            "generator's cores",
        ),
    )
    for workers, crowds in run.crowds.items():
        shares = [
            np.median([spent / crowd.elapsed_s for crowd, spent in zip(crowds, spents, strict=True)])
            for spents in (
                [crowd.mixer_cpu_s for crowd in crowds],
                [crowd.generator_cpu_s for crowd in crowds],
            )
        ]
        rate, cost_ms = np.median(lines.rate(crowds)), _ms(lines.cost_s(crowds))
        drawn.add_row(str(workers), f"{rate:.0f}", f"{cost_ms:.2f}", *(f"{share:.2f}" for share in shares))
    return drawn


def comparison(old: Run, new: Run) -> Iterator[RenderableType]:
    """Two runs, scene by scene and line by line: the new to the old."""
    beside = old.is_beside(new)
    how = "rounds took turns" if beside else "measured apart: trust the ratios to the floor, not the times"
    yield _scenes_compared(old, new, f"{new.name} to {old.name}, {how}", beside)
    yield _lines_compared(old, new, beside)
    yield from map(Text, dict.fromkeys((*old.skipped, *new.skipped)))
    if not old.machine.is_like(new.machine):
        yield Text("Their machines or packages are not the same.")


def _scenes_compared(old: Run, new: Run, title: str, beside: bool) -> Table:
    drawn = _table(
        title,
        (
            "scene",
            f"CPU ms {old.name}",
            f"CPU ms {new.name}",
            "CPU",
            "half of the rounds",
            "added",
            "p50",
            "p99",
        ),
    )
    for scene in SCENES:
        then, now = old.courses[scene.key], new.courses[scene.key]
        if scene.key == FLOOR and beside:
            continue
        ratio, low, high = _to(then.cpu_s, now.cpu_s, beside)
        drawn.add_row(
            f"{scene.title}, {scene.group}",
            f"{_ms(then.cpu_s):.2f}",
            f"{_ms(now.cpu_s):.2f}",
            f"{ratio:.3f}x",
            _spread(low, high),
            f"{_to(then.added_s, now.added_s, beside)[0]:.3f}x" if scene.key != FLOOR else "",
            *(f"{_quantile_to(then, now, share):.3f}x" for share in (0.5, 0.99)),
        )
    return drawn


def _lines_compared(old: Run, new: Run, beside: bool) -> Table:
    drawn = _table("ratios", ("line", old.name, new.name, "new to old", "half of the rounds"))
    theirs = {line.key for line in lines.of(old)}
    for line in lines.of(new):
        if line.key in theirs:
            then, now = line.value(old), line.value(new)
            _, low, high = _to(line.rounds(old), line.rounds(new), beside)
            cells = f"{then:.2f}x", f"{now:.2f}x", f"{now / then:.3f}x", _spread(low, high)
            drawn.add_row(line.title, *cells)
    return drawn


def checks_table(checks: Sequence[Check]) -> Table:
    """What a short run had to keep."""
    drawn = _table("checks", ("check", "found", "bound", "holds"))
    for check in checks:
        drawn.add_row(check.title, f"{check.found:g}", check.bound, "yes" if check.holds else "NO")
    return drawn


def _to(old: FloatColumn, new: FloatColumn, beside: bool) -> tuple[float, float, float]:
    """The new to the old, and the middle half: of the rounds' own ratios, or else of all pairs of rounds."""
    ratios = new / old if beside else np.divide.outer(new, old).ravel()
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(middle), float(low), float(high)


def _quantile_to(old: Course, new: Course, share: float) -> float:
    return float(np.quantile(new.latency_s, share) / np.quantile(old.latency_s, share))


def _spread(low: float, high: float) -> str:
    return f"{low:.2f} .. {high:.2f}"


def _ms(seconds: FloatColumn) -> float:
    return float(np.median(seconds)) * 1000


def _table(title: str, headings: Sequence[str]) -> Table:
    drawn = Table(title=title)
    for place, heading in enumerate(headings):
        drawn.add_column(heading, justify="right" if place else "left")
    return drawn
