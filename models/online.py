"""How good the served order was to those who saw it: CTR, MRR and NDCG from events, by arm and slice.

Slices are those that the mix declares, by the values that the server gave the search: the same as on metrics.
The measures are those of `models.evaluation`, with what people did for grades: 0 nothing, 1 a click, 2 a conversion.
They rank what was shown, so they say nothing of what was not; and a click is more likely near the top whatever stands
there (see `models.clicks`), so compare arms, not pages of different makes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from rich.console import RenderableType
from rich.text import Text

from mixer.values import IntColumn
from models.evaluation import DEPTH, RELEVANT, Interval, Measure, interval, ndcg, reciprocal_rank, table
from models.feedback import OUTCOMES, Joined, Served

CLICK_GRADE, CONVERSION_GRADE = 1, 2
Seen = Literal["impressions", "served"]
"""Which searches count: those with an impression, or all that were served."""

NOT_LOGGED = "(not logged)"
"""Of a search whose mix did not declare the slice when it was served."""
_OTHERS = "(others)"
_VALUES = 20
"""Parts by name; the rest are one."""


def _clicked(grades: IntColumn, _: Sequence[int]) -> float:
    return float((grades >= RELEVANT).any())


MEASURES: Mapping[str, Measure] = {"CTR": _clicked, "MRR": reciprocal_rank, f"NDCG@{DEPTH}": ndcg}
"""CTR is the share of searches with a click."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A way to part searches: the columns of the feature log it reads, and a search's part."""

    name: str
    columns: tuple[str, ...]
    part: Callable[[Mapping[str, Any]], str]


def slice_of(name: str) -> Slice:
    """arm, mix, model_version, ranker, degraded, or slice.NAME of those the mix declares. Raises: ValueError."""
    if name in ("arm", "mix", "model_version", "ranker", "degraded"):
        return Slice(name, (name,), lambda row: str(row[name]).lower() or "(none)")
    kind, _, declared = name.partition(".")
    if kind == "slice" and declared:
        return Slice(name, ("slices",), lambda row: (row["slices"] or {}).get(declared, NOT_LOGGED))
    known = "arm, mix, model_version, ranker, degraded, slice.NAME"
    raise ValueError(f"no slice is called {name!r}; there are: {known}")


@dataclass(slots=True)
class Part:
    """The searches of one part: how many were served, and every measure of those that count."""

    served: int = 0
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in MEASURES})

    @property
    def seen(self) -> int:
        """Searches that count."""
        return len(next(iter(self.values.values())))

    def intervals(self) -> dict[str, Interval]:
        """Every measure's mean over the searches that count."""
        return {name: interval(np.array(values)) for name, values in self.values.items()}

    def add(self, other: Part) -> None:
        """Take another part's searches in."""
        self.served += other.served
        for name, values in other.values.items():
            self.values[name].extend(values)


def measure(
    joined: Joined,
    slices: Sequence[Slice],
    seen: Seen = "impressions",
    progress: Callable[[], None] = lambda: None,
) -> dict[tuple[str, ...], Part]:
    """Every part of the searches, by its place in each slice; `progress` is called after each search."""
    columns = dict.fromkeys(column for slice_ in slices for column in slice_.columns)
    parts: dict[tuple[str, ...], Part] = defaultdict(Part)
    for served in joined.searches(("page_offset", "page_size", *columns)):
        part = parts[tuple(slice_.part(served.row) for slice_ in slices)]
        part.served += 1
        if seen == "served" or served.seen.size:
            grades = shown_grades(served)
            for name, verb in MEASURES.items():
                part.values[name].append(verb(grades, grades.tolist()))
        progress()
    return _bounded(parts)


def shown_grades(served: Served) -> IntColumn:
    """What people did with each hit of the page (n,), in the order it was shown."""
    first, size = served.row["page_offset"], served.row["page_size"]
    shown = np.concatenate([served.seen, served.clicked, served.converted, [first + size - 1]])
    grades = np.zeros(int(shown.max()) + 1, np.intp)
    grades[served.clicked] = CLICK_GRADE
    grades[served.converted] = CONVERSION_GRADE
    page: IntColumn = grades[first:] if not grades[:first].any() else grades
    return page


def _bounded(parts: Mapping[tuple[str, ...], Part]) -> dict[tuple[str, ...], Part]:
    """The parts with the most searches by name, the rest as one."""
    ranked = sorted(parts, key=lambda key: (-parts[key].served, key))
    made: dict[tuple[str, ...], Part] = {}
    for place, key in enumerate(ranked):
        name = key if place < _VALUES else tuple(_OTHERS for _ in key)
        made.setdefault(name, Part()).add(parts[key])
    return made


def report(
    parts: Mapping[tuple[str, ...], Part], slices: Sequence[Slice], counts: Mapping[tuple[str, str], int]
) -> Iterator[RenderableType]:
    """Tables for people: the parts, and what became of the events."""
    by = ", ".join(slice_.name for slice_ in slices) or "all"
    rows = {
        f"{' / '.join(key) or 'all'} ({part.seen} of {part.served})": part.intervals()
        for key, part in parts.items()
        if part.seen
    }
    if rows:
        drawn = table(rows, f"online, by {by}")
        drawn.columns[0].header = f"{by} (searches that count)"
        drawn.caption = "mean over searches [95 % interval]"
        yield drawn
    else:
        yield Text("no search counts: none has an impression; --seen served takes all that were served")
    for place, slice_ in enumerate(slices):
        if parts and {key[place] for key in parts} == {NOT_LOGGED}:
            yield Text(f"no search was logged with {slice_.name}: its mix did not declare it then")
    unseen = sum(part.served - part.seen for part in parts.values())
    if unseen:
        yield Text(f"{unseen} searches without an impression are left out")
    yield from _events(counts)


def _events(counts: Mapping[tuple[str, str], int]) -> Iterator[RenderableType]:
    for kind in sorted({kind for kind, _ in counts}):
        told = [f"{counts[kind, outcome]} {outcome}" for outcome in OUTCOMES if (kind, outcome) in counts]
        yield Text(f"{kind}s: {', '.join(told)}")
