from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from backends.base import FloatColumn
from mixer.events import EventKind
from mixer.values import IntColumn
from models.clicks import PositionBased, TooLittleExploring, at, by_power, estimated, events_of, shown
from models.feedback import Served

EMPTY = np.zeros(0, np.intp)


def served(
    clicked: Any = EMPTY,
    seen: Any = EMPTY,
    propensities: Any = (1.0,) * 5,
    page: tuple[int, int] = (0, 5),
    clicked_at: Any = None,
) -> Served:
    """A search in which hits were shown at their own places, unless told otherwise."""
    row = {"page_offset": page[0], "page_size": page[1], "propensities": np.array(propensities)}
    clicked, seen = np.array(clicked, np.intp), np.array(seen, np.intp)
    told = clicked + 1 if clicked_at is None else np.array(clicked_at)
    return Served(row, seen, seen + 1, clicked, told, EMPTY, 0.0)


def test_examination_by_power() -> None:
    """The first place is looked at for certain, others less and less; a power of 0 knows no bias."""
    np.testing.assert_allclose(by_power(1.0, 4), [1, 1 / 2, 1 / 3, 1 / 4])
    assert by_power(0.0, 4).tolist() == [1, 1, 1, 1]
    assert at(by_power(1.0, 4), np.array([1, 4, 9])).tolist() == [1, 1 / 4, 1 / 4]


def test_simulated_clicks_have_the_model_s_rates() -> None:
    """Over many visits a hit is clicked as often as it is looked at times as often as it is liked."""
    people, random = PositionBased(by_power(1.0, 3), (0.1, 0.5, 0.8)), np.random.default_rng(1)
    grades = np.array([0, 2, 1])
    rates = np.mean([people.clicks(grades, random) for _ in range(20_000)], axis=0)
    np.testing.assert_allclose(rates, [0.1, 0.8 / 2, 0.5 / 3], atol=0.015)
    deeper = np.mean([people.clicks(grades, random, first=2) for _ in range(20_000)], axis=0)
    np.testing.assert_allclose(deeper, [0.1 / 2, 0.8 / 3, 0.5 / 3], atol=0.015)


def test_the_same_seed_clicks_the_same() -> None:
    """A simulation can be repeated."""
    draws = [PositionBased().clicks(np.arange(4), np.random.default_rng(5)).tolist() for _ in range(2)]
    assert draws[0] == draws[1]


def test_a_visit_as_events() -> None:
    """An impression a hit and a click where there was one, at the places of the page; made again, the same ids."""
    clicked = np.array([False, True])
    events = events_of("q", ["a", "b"], clicked, 5.0, first=11)
    assert [(event.kind, event.id, event.position) for event in events] == [
        (EventKind.IMPRESSION, "a", 11),
        (EventKind.IMPRESSION, "b", 12),
        (EventKind.CLICK, "b", 12),
    ]
    assert events == events_of("q", ["a", "b"], clicked, 5.0, first=11)
    assert len({event.event_id for event in events}) == 3


def test_what_was_shown() -> None:
    """What has an event; without impressions the page, and what was clicked besides; where a click says it was."""

    def places(search: Served) -> tuple[list[int], list[int]]:
        shown_, told = shown(search)
        return shown_.tolist(), told.tolist()

    assert places(served(seen=[0, 2], clicked=[2])) == ([0, 2], [1, 3])
    assert places(served(seen=[0], clicked=[3])) == ([0, 3], [1, 4])
    assert places(served(page=(1, 2))) == ([1, 2], [2, 3])
    assert places(served(page=(3, 10))) == ([3, 4], [4, 5])
    assert places(served(page=(0, 2), clicked=[1], clicked_at=[7])) == ([0, 1], [1, 7])


def explored(people: PositionBased, kept: float, visits: int) -> Iterator[Served]:
    """An arm that keeps a good order (grades 3, 2, 1, 0, 0) in so many of its searches, and shuffles the others."""
    random, grades, n = np.random.default_rng(3), np.array([3, 2, 1, 0, 0]), 5
    for _ in range(visits):
        order: IntColumn = np.arange(n) if random.random() < kept else random.permutation(n)
        propensities = kept * (order == np.arange(n)) + (1 - kept) / n
        clicked = np.flatnonzero(people.clicks(grades[order], random))
        yield served(clicked=clicked, seen=np.arange(n), propensities=propensities)


@pytest.mark.parametrize("kept", [0.0, 0.6])
def test_exploring_tells_how_far_people_look(kept: float) -> None:
    """The truth is found, whether all searches are shuffled or the good order is mostly kept."""
    truth: FloatColumn = np.array([1.0, 0.7, 0.4, 0.25, 0.1])
    found = estimated(explored(PositionBased(truth), kept, 20_000), depth=5)
    np.testing.assert_allclose(found, truth, atol=0.05)


def test_without_propensities_it_would_not_be_found() -> None:
    """Where the good order is mostly kept, the plain rates by place are those of the documents too."""
    people = PositionBased(np.array([1.0, 0.7, 0.4, 0.25, 0.1]))
    clicks = np.zeros(5)
    for search in explored(people, 0.6, 20_000):
        np.add.at(clicks, search.clicked, 1)
    assert clicks[4] / clicks[0] < 0.05


def test_places_without_a_click_are_like_the_one_before() -> None:
    """An estimate is never 0: no weight is endless."""
    searches = [served(clicked=[0], seen=[0, 1, 2], propensities=(0.5,) * 5)]
    assert estimated(searches, depth=3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (served(clicked=[0], seen=[0, 1]), "nothing was put at random"),
        (served(clicked=[1], seen=[0, 1], propensities=(0.5,) * 5), "nobody clicked the first place"),
        (served(clicked=[0], seen=[0, 1], propensities=(1, *(0.5,) * 4)), "nobody clicked the first place"),
    ],
)
def test_too_little_exploring_is_told(search: Served, words: str) -> None:
    """An estimate of nothing is refused."""
    with pytest.raises(TooLittleExploring, match=words):
        estimated([search])
