"""What Mixer adds to the bare fan-out: CPU and latency a request, as ratios in one run.

    make bench                                      measure the files as they are, keep a record
    python -m tests.bench.path --against main       measure them beside a commit, the rounds taking turns
    python -m tests.bench.path --compare v1 v2      compare two records; a commit that has none is measured
    python -m tests.bench.path --check              a minute: counts, and ratios within wide bounds

Every scene is a process of its own before canned backends; the load comes from this process, one request at a time,
in rounds that go around the scenes, so that a noisy machine disturbs all of them alike. Read ratios, not times.
"""

from __future__ import annotations

import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mixer.demo.processes import NotReady
from tests.bench import history, lines, report, trees
from tests.bench.history import FOLDER, Run, Unreadable
from tests.bench.load import WrongAnswer
from tests.bench.measure import SHORT, WHOLE, Effort, measure
from tests.bench.trees import NoCommit, Tree

RECORDS = FOLDER / "records"

app = typer.Typer(add_completion=False, rich_markup_mode="rich")
console = Console()


@app.command()
def main(
    against: Annotated[str, typer.Option(help="A commit to measure beside these files.")] = "",
    compare: Annotated[
        tuple[str, str] | None, typer.Option(help="Two commits or files of records: the old, the new.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Be short, and fail where a wide bound is broken.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = WHOLE.rounds,
    requests: Annotated[int, typer.Option(min=1, help="Requests a round.")] = WHOLE.requests,
    workers: Annotated[bool, typer.Option(help="Measure two workers against one, too.")] = True,
) -> None:
    """Measure what Mixer adds to the bare fan-out."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes end with this one
    effort = replace(
        WHOLE,
        rounds=rounds,
        requests=requests,
        crowd_rounds=WHOLE.crowd_rounds * workers,
        short=2 * rounds * requests < WHOLE.rounds * WHOLE.requests,
    )
    try:
        if compare:
            _compare(*compare, effort)
        elif check:
            _check()
        else:
            _measure(against, effort)
    except (NotReady, WrongAnswer, NoCommit, Unreadable) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _measure(against: str, effort: Effort) -> None:
    with ExitStack() as stack:
        beside = [stack.enter_context(trees.at(against))] if against else []
        runs = _recorded([trees.here(), *beside], effort)
    for run in runs:
        _print(*report.report(run))
    if against:
        _print(*report.comparison(runs[1], runs[0]))


def _check() -> None:
    (run,) = _recorded([trees.here()], SHORT)
    checks = lines.checks(run)
    _print(report.rounds_table(run), report.checks_table(checks))
    if not all(check.holds for check in checks):
        raise typer.Exit(1)


def _compare(old: str, new: str, effort: Effort) -> None:
    _print(*report.comparison(_found(old, effort), _found(new, effort)))


def _found(name: str, effort: Effort) -> Run:
    """The record in this file, or this commit's newest; measured where it has none."""
    if Path(name).is_file():
        return history.read(Path(name))
    run = history.latest(trees.commit_of(name), RECORDS)
    if run is None:
        console.print(f"{name} has no record: measuring it")
        with trees.at(name) as tree:
            (run,) = _recorded([tree], effort)
    return run


def _recorded(measured: list[Tree], effort: Effort) -> list[Run]:
    runs = [
        run.model_copy(update={"values": {line.key: line.value(run) for line in lines.of(run)}})
        for run in measure(measured, effort)
    ]
    for run in runs:
        console.print(f"record: {history.keep(run, RECORDS)}", highlight=False)
    return runs


def _print(*parts: object) -> None:
    for part in parts:
        console.print(part)


if __name__ == "__main__":
    app()
