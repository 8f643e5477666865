"""The frozen nouns that flow through the pipeline, in the order in which they come to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backends.base import Filter, FloatColumn, Hits, Index, Query

IntColumn = NDArray[np.intp]
TextColumn = NDArray[np.object_]
TENANT = "tenant"
"""The context key of the tenant that proved to be the caller; where proof is asked for, callers cannot set it."""


class Outcome(StrEnum):
    """How asking one backend ended."""

    OK = "ok"
    TIMEOUT = "timeout"
    ERROR = "error"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class Ranker(StrEnum):
    """Whose order stands."""

    MODEL = "model"
    FUSED = "fused"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much work a search may take. Under load one thing after the other is left out, in this order."""

    step: int = 0
    """How many things are left out."""
    quality: float = 1.0
    """1 where none is; 0 would be to turn the call away."""
    beside: bool = True
    """What the answer does not show: shadows, and remembering it for Explain."""
    optional: bool = True
    """The mix's optional backends."""
    limit_share: float = 1.0
    """Of each backend's limit."""
    model: bool = True


@dataclass(frozen=True, slots=True)
class Request:
    """One search as the caller asked it, checked against the limits, defaults filled in."""

    query: str
    mix: str
    page_size: int
    offset: int = 0
    cursor: str = ""
    filters: tuple[Filter, ...] = ()
    context: Mapping[str, str | float] = field(default_factory=dict)
    debug: bool = False
    query_id: str = ""
    time_left_s: float = 1.0
    """When it came."""
    deadline_s: float = field(default=math.inf, compare=False)
    """The end of that time, by the monotonic clock."""
    effort: Effort = Effort()


@dataclass(frozen=True, slots=True)
class Call:
    """One backend to ask, and for how long."""

    backend: str
    query: Query
    timeout_s: float
    most_s: float = 0.0
    """What the mix would give it, had the caller the time."""
    skipped: str = ""
    """Why it is not to be asked; empty where it is."""


@dataclass(frozen=True, slots=True)
class Bookmark:
    """What a cursor remembers of the ranked list that its page was cut from."""

    request: str
    """Digest of everything in the request that shapes the list."""
    indexes: tuple[tuple[str, str], ...]
    """The backends that answered, each with the version of its index."""
    ranker: str
    """The model's hash, or that the fusion ranked."""
    served: str
    """Digest of the ids already served, in order."""
    offset: int
    arm: str = ""
    """Of the experiment that the list was ranked in: its next page is too."""
    seed: str = ""
    """By which the coins of a drafted list, or the order of an explored head, were drawn; empty for any other."""
    step: int = 0
    """Of the effort that the list was made with: its next page is too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Whom to ask what, and where the page begins."""

    request: Request
    calls: tuple[Call, ...]
    offset: int
    bookmark: Bookmark | None = None
    lacking: tuple[str, ...] = ()
    """What is left out from the start, each a bounded word or two."""


@dataclass(frozen=True, slots=True)
class Reply:
    """How one backend answered: hits, or why there are none."""

    backend: str
    outcome: Outcome
    elapsed_s: float
    hits: Hits | None = None
    detail: str = ""
    unreachable: bool = False
    """There was no connection, or the engine was down: another try may find it up."""
    attempts: int = 1
    """How often it was asked."""
    hedged: bool = False
    """Whether it was asked again beside a call that took long."""
    breaker: str = ""
    """The state that its circuit breaker was in; empty where it has none."""

    @property
    def index(self) -> Index:
        """The index it was read from; the empty one where it did not answer."""
        return Index() if self.hits is None else self.hits.index


@dataclass(frozen=True, slots=True)
class Stored:
    """What one feature store gave: how asking it ended, and columns (n,) by field, NaN for missing."""

    store: str
    outcome: Outcome
    elapsed_s: float
    columns: Mapping[str, FloatColumn]
    asked: int = 0
    """Rows looked up: one a document, or one for all."""
    cached: int = 0
    """Of them, those that the cache knew, be it as missing."""
    found: int = 0
    """Of them, those that there are."""
    lost: int = 0
    """Of them, those of which nothing is known, as the store did not answer."""
    unreadable: int = 0
    """Values that the store holds and that are no finite number; they count as missing."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Fewer out than in: how many, and why."""

    reason: str
    count: int
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Candidates:
    """One row a document, in the order of the ids; one column (or row of a matrix) a fact.

    Of n documents and b backends: `ranks` (b, n) from 1 with 0 for absent; `scores` and `normalized` (b, n),
    NaN for absent, `normalized` (b, 0) where the mix reads none; `fused` (n,); `numbers` float64 (n,) with NaN
    for missing; `texts` object (n,) of str.
    """

    ids: list[str]
    backends: tuple[str, ...]
    ranks: NDArray[np.int32]
    scores: FloatColumn
    normalized: FloatColumn
    fused: FloatColumn
    prior: IntColumn
    """Row numbers, best fused score first."""
    numbers: dict[str, FloatColumn]
    texts: dict[str, TextColumn]
    drops: tuple[Drop, ...] = ()
    stores: tuple[Stored, ...] = ()
    """What the mix's feature stores know of them, in the order of the mix."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Features:
    """What the model sees: float64 (n, f), NaN for missing; counts (f,) of values missing and out of range."""

    names: tuple[str, ...]
    matrix: FloatColumn
    missing: IntColumn
    out_of_range: IntColumn


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model: its name, its version, and the SHA-256 of its file."""

    name: str
    version: str
    sha256: str


class Explainable(Protocol):
    """A model that can tell its scores apart by feature."""

    ref: ModelRef

    def score(self, matrix: FloatColumn) -> FloatColumn:
        """Raw scores (n,) of rows (n, f)."""
        ...

    def contributions(self, matrix: FloatColumn) -> FloatColumn:
        """What each feature adds to a row's raw score, and the bias last (n, f + 1)."""
        ...


@dataclass(frozen=True, slots=True)
class Scores:
    """What the order is by: float64 (n,), higher is better; and who made it."""

    values: FloatColumn
    ranker: Ranker
    model: ModelRef | None = None
    fallback_reason: str = ""
    """Why the fused order stands though a model should have ranked; empty otherwise."""
    scorer: str = ""
    """What evaluated the model; empty where none did."""
    members: Mapping[str, FloatColumn] = field(default_factory=dict)
    """Of an ensemble: each member's own scores (n,), unweighted, by its name in the settings. Of a drafted list also
    the control's, by the name of its arm."""
    against: Scores | None = None
    """The control's, where the list is drafted from both."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Who picked what in a list that two rankings made by turns."""

    arms: tuple[str, str]
    """The control, and the arm that drafts against it."""
    teams: NDArray[np.int8]
    """(n,) in the order of the list: 0 the control, 1 the other, -1 nobody."""
    seed: str
    """The same for all pages of one list."""

    def names(self, places: slice = slice(None)) -> list[str]:
        """The arm that picked each of these places, empty for nobody."""
        found: list[str] = np.array((*self.arms, ""), object)[self.teams[places]].tolist()
        return found


@dataclass(frozen=True, slots=True)
class Page:
    """The final order: all row numbers, best first, and the slice of them that is served."""

    order: IntColumn
    offset: int
    size: int
    pinned: frozenset[int] = frozenset()
    next_cursor: str = ""
    propensities: FloatColumn | None = None
    """(n,): how probable it was that each row came to stand where it stands; None where chance had no part.

    1 where a row's place was certain; every other row could have come to stand at any place of those below 1.
    """
    draft: Draft | None = None

    @property
    def places(self) -> slice:
        """Of the hits served, in the final order."""
        return slice(self.offset, self.offset + self.size)

    @property
    def rows(self) -> IntColumn:
        """Row numbers of the hits served, in order."""
        return self.order[self.places]


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that came to be for one request."""

    plan: Plan
    replies: tuple[Reply, ...]
    candidates: Candidates
    features: Features
    scores: Scores
    page: Page
    arm: str = ""
    """Of the mix's experiment; empty where the request is in none."""
    model: Explainable | None = None
    """What was to rank it, for whoever explains it: another may be at work by then."""

    @property
    def degraded_reasons(self) -> tuple[str, ...]:
        """Why less than the whole was used, each a bounded word or two; empty when nothing was lacking."""
        late = [f"{r.backend}: {r.outcome}" for r in self.replies if r.outcome is not Outcome.OK]
        late += [
            f"store {s.store}: {s.outcome}" for s in self.candidates.stores if s.outcome is not Outcome.OK
        ]
        lacking = (*self.plan.lacking, *late)
        return (
            *lacking,
            *([f"ranker: {self.scores.fallback_reason}"] if self.scores.fallback_reason else []),
        )
