"""Ranks logged searches again: the same scores and the same order, bit for bit, where the model is the logged one.

What is compared is the order by score. A rule of the mix (a pin, diversity, exploration) may have rearranged it after
that; how many answers were, is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from backends.base import FloatColumn
from mixer.arrange import best_first
from mixer.rank import Scorer
from mixer.values import IntColumn, Ranker
from models.logs import Served

_SHOWN = 20
_TITLE = 80
"""Columns that a title may widen its table to."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which searches: all whose columns say this; an empty text asks nothing."""

    query_id: str = ""
    trace_id: str = ""
    mix: str = ""
    arm: str = ""

    def of(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Only those rows."""
        for batch in batches:
            for name in self.__slots__:
                if wanted := getattr(self, name):
                    batch = batch.filter(pc.equal(batch.column(name), wanted))
            yield batch


class Verdict(StrEnum):
    """What came of ranking one logged search again."""

    SAME = "the same"
    SCORES = "scores differ"
    ORDER = "order differs"
    OTHER = "ranked by another"
    """The fusion or another model ranked it then: nothing to be held against."""
    FEATURES = "other features"
    """It was made for another model's features: this one cannot score it."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One search of n candidates, ranked again; `scores` (n,) and `order` are empty where it could not be."""

    served: Served
    verdict: Verdict
    scores: FloatColumn
    order: IntColumn
    """Places in the logged list, from 0, best first."""

    @property
    def differing(self) -> IntColumn:
        """Places of which the score differs in any bit."""
        return np.flatnonzero(~_same_bits(self.scores, self.served.scores))

    @property
    def rearranged(self) -> bool:
        """Whether the logged order is another than that of the logged scores."""
        order = by_score(self.served, self.served.scores)
        return not np.array_equal(order, np.arange(len(order)))


def replay(served: Served, model: Scorer, schema_sha256: str) -> Replayed:
    """Rank one search by this model of this schema."""
    if served.schema_sha256 != schema_sha256:
        return Replayed(served, Verdict.FEATURES, np.empty(0), np.empty(0, np.intp))
    scores = model.score(served.features)
    order = by_score(served, scores)
    if served.ranker != Ranker.MODEL or served.model != model.ref:
        verdict = Verdict.OTHER
    elif not _same_bits(scores, served.scores).all():
        verdict = Verdict.SCORES
    elif not np.array_equal(order, by_score(served, served.scores)):
        verdict = Verdict.ORDER
    else:
        verdict = Verdict.SAME
    return Replayed(served, verdict, scores, order)


def by_score(served: Served, scores: FloatColumn) -> IntColumn:
    """Places of the logged list (n,), from 0, in the order that serving would give these scores, before any rule."""
    by_id = np.array(sorted(range(len(served)), key=served.ids.__getitem__), np.intp)
    order: IntColumn = by_id[best_first(scores[by_id], np.argsort(-served.fused[by_id], kind="stable"))]
    return order


def _same_bits(ours: FloatColumn, theirs: FloatColumn) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = ours.view(np.int64) == np.ascontiguousarray(theirs).view(np.int64)
    return same


class Report:
    """What came of many: counts, and the first searches that differ."""

    def __init__(self) -> None:
        """Nothing yet."""
        self.verdicts: Counter[Verdict] = Counter()
        self.candidates = self.rearranged = 0
        self.differing: list[Replayed] = []

    def add(self, replayed: Replayed) -> None:
        """One more."""
        self.verdicts[replayed.verdict] += 1
        self.candidates += len(replayed.scores)
        self.rearranged += replayed.rearranged
        if replayed.verdict in (Verdict.SCORES, Verdict.ORDER) and len(self.differing) < _SHOWN:
            self.differing.append(replayed)

    @property
    def searches(self) -> int:
        """How many."""
        return self.verdicts.total()

    @property
    def compared(self) -> int:
        """Those that this model ranked when they were logged."""
        return sum(self.verdicts[verdict] for verdict in (Verdict.SAME, Verdict.SCORES, Verdict.ORDER))

    @property
    def same(self) -> bool:
        """Whether all that could be compared came out the same."""
        return self.compared == self.verdicts[Verdict.SAME]

    def table(self, title: str) -> Table:
        """The counts, for people."""
        drawn = Table(title=Text(title, "bold"), title_justify="left", min_width=cell_len(title))
        drawn.add_column("replayed")
        drawn.add_column("searches", justify="right")
        for verdict in Verdict:
            if self.verdicts[verdict] or verdict is Verdict.SAME:
                drawn.add_row(verdict.value, str(self.verdicts[verdict]))
        return drawn

    def lines(self) -> Iterator[str]:
        """A line for each of the first searches that differ, and one for what rules did."""
        for replayed in self.differing:
            yield f"{replayed.served.query_id}: {_told(replayed)}"
        if self.rearranged:
            why = "by rules of the mix, a draft or chance"
            yield f"{self.rearranged} answers stand in another order than their scores': {why}"


def _told(replayed: Replayed) -> str:
    if replayed.verdict is Verdict.ORDER:
        return "the order differs, the scores do not"
    place, *others = replayed.differing.tolist()
    was, now = float(replayed.served.scores[place]), float(replayed.scores[place])
    many = f", and {len(others)} more" if others else ""
    return f"{replayed.served.ids[place]} scored {was!r}, now {now!r}{many}"


def ranking(replayed: Replayed, most: int = _SHOWN) -> Table:
    """One search's new order beside the logged one."""
    served = replayed.served
    title = served.query or served.query_id
    drawn = Table(title=Text(title, "bold"), title_justify="left", min_width=min(cell_len(title), _TITLE))
    for heading in ("rank", "document", "logged rank", "score", "logged score"):
        drawn.add_column(heading, justify="left" if heading == "document" else "right")
    for rank, place in enumerate(replayed.order[:most].tolist(), 1):
        scores = (f"{column[place]:.4f}" for column in (replayed.scores, served.scores))
        drawn.add_row(str(rank), Text(served.ids[place]), str(place + 1), *scores)
    return drawn
