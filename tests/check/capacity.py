"""Keeps the tables of docs/scale.md those of docs/capacity.json: `python -m tests.check.capacity [--write]`.

Where the record of `make bench` that the figures come from is at hand, they must be its.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import history
from tests.bench.capacity import PATH, Assumed, Measured, courses_of, needs

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"
RECORDS = ROOT / history.FOLDER / "records"
BEGIN, END = "<!-- capacity: written by `make docs` -->\n", "<!-- end of capacity -->\n"
RATES = (1_000, 10_000, 100_000)
_GB, _MILLION = 1e9, 1e6


def measured() -> Measured:
    """The figures."""
    return Measured.model_validate_json(PATH.read_bytes())


def loads(told: Measured) -> dict[str, float]:
    """CPU seconds a search, by how Mixer is set up."""
    return {
        "three remote backends, one caller, tracing 1 %": told.courses["sampled"].each_s,
        "the same, no tracing": told.courses["model"].each_s,
        "the same, tracing 100 %": told.courses["traced"].each_s,
        "backends in Mixer's process, 16 callers, 1 worker": told.crowd_s(1),
        "the same, 2 workers on 2 cores": told.crowd_s(2),
    }


def tables(told: Measured, assumed: Assumed) -> Iterator[str]:
    """The part of the page that is written, line by line."""
    yield from (_source(told), "")
    yield from _by_load(told, assumed)
    yield from (_assumption(assumed), "")
    yield from _by_rate(told, assumed)
    yield from _bytes(told)


def _source(told: Measured) -> str:
    machine, sizes = told.machine, told.sizes
    return (
        f"CPU from the record `{told.record}` of `make bench` (commit {told.commit[:7]}, {machine.cores} shared cores "
        f"of {machine.cpu}, Python {machine.python}): three backends of 100 hits and 10 columns, 176 candidates, 16 "
        f"features, 300 trees x 63 leaves. Sizes from {sizes.searches} searches of the demo: {sizes.candidates:.0f} "
        f"candidates and {sizes.features} features an answer."
    )


def _by_load(told: Measured, assumed: Assumed) -> Iterator[str]:
    rows = [
        (what, f"{cpu_s * 1000:.2f} ms", f"{assumed.utilization / cpu_s:.0f}", f"{_usd(cpu_s, assumed):.3f}")
        for what, cpu_s in loads(told).items()
    ]
    head = (
        "what",
        "CPU a search",
        f"searches a second a core, {assumed.utilization:.0%} busy",
        "USD a million searches, such cores alone",
    )
    yield from _table(head, rows)


def _usd(cpu_s: float, assumed: Assumed) -> float:
    return cpu_s / assumed.utilization / 3600 * assumed.usd_per_core_hour * _MILLION


def _assumption(assumed: Assumed) -> str:
    busy = f"{assumed.utilization:.0%}"
    return (
        f"Assumed: {assumed.usd_per_core_hour:.2f} USD for a core and its share of memory an hour; pods of one worker, "
        f"which keeps one core busy; {busy} of it at the busiest minute; {assumed.zones} zones, one of which may be "
        f"lost with the others still at {busy}; every search logged. With three remote backends and tracing 1 %:"
    )


def _by_rate(told: Measured, assumed: Assumed) -> Iterator[str]:
    cpu_s = told.courses["sampled"].each_s
    head = (
        "searches a second",
        "cores busy",
        "pods",
        "pods, a zone to spare",
        "memory of those",
        "feature log a day",
        "USD a million searches",
    )
    found = [needs(rate, cpu_s, told.sizes, assumed) for rate in RATES]
    rows = [
        (
            f"{one.searches_per_s:,.0f}",
            f"{one.cores:.1f}",
            str(one.pods),
            str(one.pods_and_a_zone),
            f"{one.memory_bytes / _GB:,.1f} GB",
            f"{one.log_bytes_per_day / _GB:,.0f} GB",
            f"{one.usd_per_million:.3f}",
        )
        for one in found
    ]
    yield from _table(head, rows)


def _bytes(told: Measured) -> Iterator[str]:
    sizes = told.sizes
    rows = [
        ("memory of a serving process", f"{sizes.resident_bytes / 1e6:.0f} MB"),
        ("feature log, Parquet", f"{sizes.log_bytes * _MILLION / _GB:.1f} GB a million searches"),
        ("spans sent, tracing 1 %", f"{sizes.trace_bytes * 0.01 * _MILLION / _GB:.2f} GB a million searches"),
        ("spans sent, tracing 100 %", f"{sizes.trace_bytes * _MILLION / _GB:.1f} GB a million searches"),
    ]
    yield from _table(("what", "size"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for line in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(line)} |"
    yield ""


def fresh(text: str) -> str:
    """The page with the tables as they are now. Raises: ValueError without its markers."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} lacks {BEGIN!r} or {END!r}")
    lines = "\n".join(tables(measured(), Assumed()))
    return f"{head}{BEGIN}\n{lines}\n{END}{tail}"


def fault(records: Path = RECORDS) -> str:
    """What the figures have otherwise than the record they name, where that is at hand; empty if nothing."""
    told = measured()
    path = records / told.record
    if not path.exists():
        return ""
    run = history.read(path)
    same = (told.commit, told.courses, told.crowds) == (run.commit, courses_of(run), run.crowds)
    return "" if same else f"{PATH.name} is not what {path} says"


if __name__ == "__main__":
    if wrong := fault():
        sys.exit(wrong)
    there = PAGE.read_text(encoding="utf-8")
    made = fresh(there)
    if "--write" in sys.argv:
        PAGE.write_text(made, encoding="utf-8")
    elif made != there:
        sys.exit("docs/scale.md: its tables are stale; run `make docs`")
