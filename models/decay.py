"""How a model decays: the same recipe trained on older and older judgements, measured on the newest queries.

All windows hold equally many queries, so that age alone tells them apart; each model is compared with that of the
newest window query by query. What age costs is known only where the loss is more than chance: the recommended greatest
age is that of the last window before the first whose loss is beyond the tolerance with 95 % confidence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import takewhile
from typing import Annotated

from pydantic import Field, NonNegativeFloat
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mixer.manifest import Record
from mixer.schema import Feature
from models import evaluation
from models.collection import Listing
from models.evaluation import Interval
from models.training import Recipe, Trained, fit

TOLERANCE = 0.01


class Windows(Record):
    """How the dated queries are parted, the newest last."""

    tested: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the queries, the newest, on which all are measured."""
    number: Annotated[int, Field(ge=2)] = 5
    """Windows to train on."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of a window that the next holds too."""
    stopping: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of a window's queries, taken by need, that stops the training."""
    tolerance: NonNegativeFloat = TOLERANCE
    """NDCG that may be lost."""


@dataclass(frozen=True, slots=True)
class Window:
    """Queries to learn from, all of them older than those tested."""

    since: date
    until: date
    age_days: int
    """From its last day to the first day of the queries tested."""
    listings: tuple[Listing, ...]


@dataclass(frozen=True, slots=True)
class Aged:
    """What the model of one window is worth."""

    window: Window
    ndcg: Interval
    loss: Interval
    """Of NDCG against the newest window, query by query."""


@dataclass(frozen=True, slots=True)
class Decay:
    """The windows from the newest to the oldest, and what follows from them."""

    tested: tuple[Listing, ...]
    aged: tuple[Aged, ...]
    tolerance: float

    @property
    def worn(self) -> Aged | None:
        """The newest window whose loss is beyond the tolerance with 95 % confidence."""
        return next((aged for aged in self.aged if aged.loss.low > self.tolerance), None)

    @property
    def greatest_age_days(self) -> int:
        """The recommended greatest age: of the last window before that, or of the oldest where none is worn."""
        kept = takewhile(lambda aged: aged is not self.worn, self.aged)
        return [aged.window.age_days for aged in kept][-1]


def measure(
    listings: Sequence[Listing],
    features: Sequence[Feature],
    recipe: Recipe,
    windows: Windows | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Decay:
    """Train on every window and measure; `progress` is called after each.

    Raises: ValueError where queries are not dated, or too few.
    """
    windows = windows or Windows()
    learned, tested = _parted(listings, windows.tested)
    orders, parts = [], _windows(learned, tested, windows)
    for window in parts:
        orders.append(_trained(window, features, recipe, windows.stopping).order())
        progress()
    fresh = orders[0]
    aged = [
        Aged(
            window,
            evaluation.interval(evaluation.values(tested, order, evaluation.ndcg)),
            evaluation.difference(tested, fresh, order),
        )
        for window, order in zip(parts, orders, strict=True)
    ]
    return Decay(tuple(tested), tuple(aged), windows.tolerance)


def _parted(listings: Sequence[Listing], tested: float) -> tuple[list[Listing], list[Listing]]:
    """Those to learn from, and the newest, which begin with a day of their own.

    No need of the one is among the other: what a person wanted is not learned by heart.
    """
    undated = sum(listing.judged.day is None for listing in listings)
    if undated:
        raise ValueError(f"{undated} of {len(listings)} judged queries have no `day`; decay needs dates")
    ordered = sorted(listings, key=_day)
    first = _day(ordered[int(len(ordered) * (1 - tested))]) if ordered else date.min
    newest = [listing for listing in ordered if _day(listing) >= first]
    needs = {listing.judged.need for listing in newest}
    older = [ls for ls in ordered if _day(ls) < first and ls.judged.need not in needs]
    return older, newest


def _day(listing: Listing) -> date:
    return date.fromisoformat((listing.judged.day or "")[:10])


def _windows(learned: Sequence[Listing], tested: Sequence[Listing], windows: Windows) -> list[Window]:
    """Equally many queries in each, the newest first."""
    spread = 1 + (windows.number - 1) * (1 - windows.overlap)
    size = int(len(learned) / spread)
    step = int(size * (1 - windows.overlap))
    if step < 1:
        raise ValueError(
            f"{len(learned)} queries older than those tested are too few for {windows.number} windows"
        )
    ends = [len(learned) - place * step for place in range(windows.number)]
    return [_window(learned[end - size : end], _day(tested[0])) for end in ends]


def _window(listings: Sequence[Listing], tested_from: date) -> Window:
    since, until = _day(listings[0]), _day(listings[-1])
    return Window(since, until, (tested_from - until).days, tuple(listings))


def _trained(window: Window, features: Sequence[Feature], recipe: Recipe, stopping: float) -> Trained:
    folds = max(2, round(1 / stopping))
    held = [listing for listing in window.listings if listing.judged.fold(folds) == 0]
    learned = [listing for listing in window.listings if listing.judged.fold(folds) != 0]
    return fit(learned, held, features, recipe)


def report(decay: Decay) -> list[RenderableType]:
    """NDCG by age, and the recommendation, for people."""
    drawn = Table(
        title=f"{len(decay.tested)} queries from {_day(decay.tested[0])} to {_day(decay.tested[-1])}",
        caption="mean over queries [95 % interval]; loss against the newest window",
    )
    for heading in ("age, days", "trained on", "queries", f"NDCG@{evaluation.DEPTH}", "loss"):
        drawn.add_column(heading, justify="left" if heading == "trained on" else "right")
    for aged in decay.aged:
        window = aged.window
        days = f"{window.since} to {window.until}"
        drawn.add_row(str(window.age_days), days, str(len(window.listings)), str(aged.ndcg), str(aged.loss))
    return [drawn, Text(_recommended(decay))]


def _recommended(decay: Decay) -> str:
    worn, age = decay.worn, decay.greatest_age_days
    if worn is None:
        return (
            f"No window lost more than {decay.tolerance:g} with 95 % confidence: a model may be {age} days old; "
            "whether it may be older these judgements do not say."
        )
    return (
        f"Recommended greatest age: {age} days. At {worn.window.age_days} days the loss is {worn.loss}, "
        f"beyond the tolerance of {decay.tolerance:g}."
    )
