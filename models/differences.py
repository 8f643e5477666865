"""What would change between two models, query by query, on searches that were logged: orders by score, before rules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from backends.base import FloatColumn
from mixer.compare import Ranking, kendall_tau_b, rank_biased_overlap, score_shift, top_churn
from mixer.rank import Scorer
from mixer.values import IntColumn
from models.logs import Served
from models.replay import by_score

TOP = 10
_SHOWN = 15
_QUERY_CHARS = 40
_FIGURES = {"searches", "overlap", "tau", "churn"}


@dataclass(frozen=True, slots=True)
class Changed:
    """One search of n candidates in the order of either model; `before` and `after` are places in `ids`."""

    query_id: str
    query: str | None
    """As it was kept."""
    ids: tuple[str, ...]
    before: IntColumn
    after: IntColumn
    overlap: float
    """Rank-biased overlap of the two orders, 1 where they are the same."""
    tau: float
    """Kendall's tau-b of the two scores; NaN where one tells no two candidates apart."""
    churn: float
    """Share of the first TOP that were not among the first TOP before."""
    shift: float
    """Of the mean score, in standard deviations; NaN where there is no scale."""

    @property
    def ranks(self) -> tuple[IntColumn, IntColumn]:
        """The rank (n,) of each of `ids`, from 1, before and after."""
        return self.before.argsort() + 1, self.after.argsort() + 1

    @property
    def first_changed(self) -> bool:
        """Whether another document stands first."""
        return len(self.before) > 0 and bool(self.before[0] != self.after[0])

    @property
    def name(self) -> str:
        """The query as it was kept, or the query id."""
        return self.query or self.query_id

    def movers(self) -> tuple[str, str]:
        """Who rose most into the first TOP, and who fell most out of their places there; empty where nobody did."""
        before, after = self.ranks
        rise = np.where(after <= TOP, before - after, 0)
        fall = np.where(before <= TOP, after - before, 0)
        return self._mover(rise, before, after), self._mover(fall, before, after)

    def _mover(self, distance: IntColumn, before: IntColumn, after: IntColumn) -> str:
        if not len(distance) or distance.max() <= 0:
            return ""
        place = int(distance.argmax())
        return f"{self.ids[place]} {before[place]}→{after[place]}"


def difference(served: Served, before: Scorer, after: Scorer) -> Changed:
    """One search by both models, which must be of its schema."""
    was, now = before.score(served.features), after.score(served.features)
    first, second = by_score(served, was), by_score(served, now)
    return Changed(
        query_id=served.query_id,
        query=served.query,
        ids=served.ids,
        before=first,
        after=second,
        overlap=rank_biased_overlap(Ranking.of(first), Ranking.of(second)),
        tau=kendall_tau_b(was, now),
        churn=top_churn(first, second, TOP),
        shift=score_shift(was, now),
    )


@dataclass(frozen=True, slots=True)
class Differences:
    """Many of them, and how many searches were left out, being made for other features."""

    before: str
    after: str
    changed: Sequence[Changed]
    left_out: int = 0

    @classmethod
    def of(cls, searches: Iterable[Served], before: Scorer, after: Scorer, schema_sha256: str) -> Differences:
        """Of logged searches; those of another schema are left out."""
        changed: list[Changed] = []
        left_out = 0
        for served in searches:
            if served.schema_sha256 == schema_sha256:
                changed.append(difference(served, before, after))
            else:
                left_out += 1
        one, other = (f"{model.ref.name} {model.ref.version}" for model in (before, after))
        return cls(one, other, changed, left_out)

    @property
    def worst_first(self) -> list[Changed]:
        """The most changed first."""
        return sorted(self.changed, key=lambda each: (each.overlap, each.query_id))

    def summary(self) -> dict[str, float]:
        """Figures over all searches."""
        changed = self.changed
        return {
            "searches": len(changed),
            "left_out": self.left_out,
            f"top_{TOP}_unchanged": sum(
                np.array_equal(each.before[:TOP], each.after[:TOP]) for each in changed
            ),
            "first_changed": sum(each.first_changed for each in changed),
            "rank_biased_overlap": _mean([each.overlap for each in changed]),
            "kendall_tau_b": _mean([each.tau for each in changed]),
            f"top_{TOP}_churn": _mean([each.churn for each in changed]),
            "score_shift": _mean([each.shift for each in changed]),
        }

    def tables(self) -> Iterator[Table]:
        """The figures, and the queries that would change most, each by the search that would."""
        title = f"{self.before} → {self.after}"
        head = Table(title=Text(title, "bold"), title_justify="left", min_width=cell_len(title))
        head.add_column("over all searches")
        head.add_column("", justify="right")
        for name, value in self.summary().items():
            head.add_row(name.replace("_", " "), f"{value:.3f}" if isinstance(value, float) else str(value))
        yield head
        drawn = Table(title="the most changed queries", title_justify="left")
        for heading in ("query", "searches", "overlap", "tau", "churn", "first", "rose most", "fell most"):
            drawn.add_column(heading, justify="right" if heading in _FIGURES else "left")
        counts = Counter(each.name for each in self.changed)
        worst: dict[str, Changed] = {}
        for each in self.worst_first:
            worst.setdefault(each.name, each)
        for name, each in islice(worst.items(), _SHOWN):
            drawn.add_row(*map(Text, _cells(each, counts[name])))
        yield drawn

    def plain(self) -> dict[str, Any]:
        """In JSON's types, every search."""
        return {
            "before": self.before,
            "after": self.after,
            "summary": {name: _finite(value) for name, value in self.summary().items()},
            "searches": [_plain(each) for each in self.worst_first],
        }


def _cells(each: Changed, searches: int) -> Iterator[str]:
    yield each.name if len(each.name) <= _QUERY_CHARS else f"{each.name[: _QUERY_CHARS - 1]}…"
    yield str(searches)
    yield from (f"{value:.3f}" for value in (each.overlap, each.tau, each.churn))
    ids = each.ids
    if each.first_changed:
        yield f"{ids[each.before[0]]} → {ids[each.after[0]]}"
    else:
        yield "the same" if ids else ""
    yield from each.movers()


def _plain(each: Changed) -> dict[str, Any]:
    ids = each.ids
    return {
        "query_id": each.query_id,
        "query": each.query,
        "rank_biased_overlap": each.overlap,
        "kendall_tau_b": _finite(each.tau),
        f"top_{TOP}_churn": each.churn,
        "score_shift": _finite(each.shift),
        "before": [ids[place] for place in each.before[:TOP].tolist()],
        "after": [ids[place] for place in each.after[:TOP].tolist()],
    }


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers; NaN where none is."""
    known: FloatColumn = np.array([value for value in values if np.isfinite(value)])
    return float(known.mean()) if len(known) else np.nan


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
