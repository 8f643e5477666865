from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from models import decay
from models.collection import Listing
from models.decay import Decay, Windows
from tests import forest

FIRST, DAYS = date(2024, 1, 1), 300
WINDOWS = Windows(number=4, overlap=0.0)


def listing(day: int, turned: bool, query: int = 0) -> Listing:
    """A query of a day; `turned` makes what was good bad, and the other way round, until two thirds of the time."""
    made = forest.listing(1000 * query + day)
    sign = -1.0 if turned and day < DAYS * 2 / 3 else 1.0
    worth = sign * (made.features[:, 0] + 2 * made.features[:, 1])
    grades = np.clip(np.round(worth + 0.5), 0, 3).astype(np.intp)
    judged = made.judged.model_copy(
        update={
            "day": (FIRST + timedelta(days=day)).isoformat(),
            "grades": dict(zip(made.ids, grades.tolist(), strict=True)),
        }
    )
    return replace(made, judged=judged, grades=grades)


def measured(turned: bool, **changes: float) -> Decay:
    listings = [listing(day, turned) for day in range(DAYS)]
    return decay.measure(listings, forest.FEATURES, forest.RECIPE, WINDOWS.model_copy(update=changes))


@pytest.fixture(scope="module")
def turned() -> Decay:
    return measured(turned=True)


@pytest.fixture(scope="module")
def steady() -> Decay:
    return measured(turned=False)


def text(made: Decay) -> str:
    console = Console(width=200, record=True, file=StringIO())
    for part in decay.report(made):
        console.print(part)
    return console.export_text()


def test_what_was_true_once_is_found_to_be_worn(turned: Decay) -> None:
    """Learned before the world turned, a model loses; the greatest age is that of the last window after it."""
    assert turned.worn is not None
    assert turned.worn.loss.low > 0.1
    assert turned.greatest_age_days < turned.worn.window.age_days
    worn = next(place for place, aged in enumerate(turned.aged) if aged is turned.worn)
    turn = FIRST + timedelta(days=DAYS * 2 // 3)
    assert all(aged.window.since >= turn for aged in turned.aged[:worn]) or worn == 1
    assert all(aged.window.since < turn for aged in turned.aged[worn:])
    assert f"Recommended greatest age: {turned.greatest_age_days} days" in text(turned)


def test_a_steady_world_wears_nothing(steady: Decay) -> None:
    """Where nothing changed no age is warned of, and the report claims no more than the oldest window shows."""
    assert steady.worn is None
    assert steady.greatest_age_days == steady.aged[-1].window.age_days
    assert "do not say" in text(steady)


def test_windows_are_older_and_older(steady: Decay) -> None:
    """Equally many queries in each, none of them of the days tested, and the newest window loses nothing."""
    sizes = {len(aged.window.listings) for aged in steady.aged}
    ages = [aged.window.age_days for aged in steady.aged]
    assert len(sizes) == 1
    assert ages == sorted(set(ages))
    assert ages[0] == 1
    tested_from = min(date.fromisoformat(ls.judged.day or "") for ls in steady.tested)
    assert all(aged.window.until < tested_from for aged in steady.aged)
    assert (steady.aged[0].loss.mean, steady.aged[0].loss.high) == (0.0, 0.0)


def test_tolerance_is_what_may_be_lost() -> None:
    """With a tolerance beyond any loss nothing is worn."""
    assert measured(turned=True, tolerance=0.99).worn is None


def test_no_need_is_learned_by_heart() -> None:
    """Queries of a need that is tested are not learned from, whatever their day."""
    listings = [listing(day, turned=False) for day in range(100)]
    same = listings[-1].judged.need
    old = replace(listings[0], judged=listings[0].judged.model_copy(update={"need": same}))
    learned, tested = decay._parted([old, *listings[1:]], 0.2)
    assert old not in learned
    assert len(tested) == 20
    assert len(learned) == 79


def undated() -> Listing:
    made = forest.listing(2)
    return replace(made, judged=made.judged.model_copy(update={"day": None}))


@pytest.mark.parametrize(
    ("listings", "said"),
    [
        ([forest.listing(1), undated()], "1 of 2 judged queries have no `day`"),
        ([listing(1, False), listing(2, False)], "too few for 4 windows"),
        ([], "too few for 4 windows"),
    ],
)
def test_what_cannot_be_measured_is_said(listings: list[Listing], said: str) -> None:
    """Undated judgements, or too few of them."""
    with pytest.raises(ValueError, match=said):
        decay.measure(listings, forest.FEATURES, forest.RECIPE, WINDOWS)
