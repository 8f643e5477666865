from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.interleave import Team, coins, preference, team_draft

ORDERS = st.integers(0, 15).flatmap(
    lambda n: st.tuples(
        st.permutations(range(n)), st.permutations(range(n)), st.lists(st.booleans(), min_size=8, max_size=8)
    )
)
Orders = tuple[list[int], list[int], list[bool]]


@given(ORDERS, st.integers(0, 16))
def test_every_pick_is_the_best_that_is_left(orders: Orders, size: int) -> None:
    """Round by round both teams take their best document that is not there yet, the coin saying who is first."""
    control, treatment, toss = orders
    made = team_draft(np.array(control, np.intp), np.array(treatment, np.intp), size, toss)
    lists = {Team.CONTROL: control, Team.TREATMENT: treatment}
    drafted: list[int] = []
    for place, team in enumerate(made.teams.tolist()):
        first = toss[place // 2]
        assert team == (first if place % 2 == 0 else not first)
        drafted.append(next(row for row in lists[Team(team)] if row not in drafted))
    assert made.order[: len(drafted)].tolist() == drafted
    assert len(drafted) == min(size, len(control))


@given(ORDERS, st.integers(0, 16))
def test_nothing_is_lost_and_nothing_repeated(orders: Orders, size: int) -> None:
    """All documents are there once; those behind the draft stand in the control's order."""
    control, treatment, toss = orders
    made = team_draft(np.array(control, np.intp), np.array(treatment, np.intp), size, toss)
    assert sorted(made.order.tolist()) == sorted(control)
    behind = made.order[len(made.teams) :].tolist()
    assert behind == [row for row in control if row in behind]


@given(ORDERS)
def test_two_of_the_same_are_shown_as_they_are(orders: Orders) -> None:
    """Where both rankings agree the reader sees that ranking, whoever picks."""
    control, _, toss = orders
    made = team_draft(np.array(control, np.intp), np.array(control, np.intp), 10, toss)
    assert made.order.tolist() == control


def test_coins_that_run_out_are_a_mistake() -> None:
    """A draft needs a coin a round."""
    with pytest.raises(ValueError, match="coins for 2 of 3"):
        team_draft(np.arange(3), np.arange(3), 3, [True])


@given(st.text(max_size=9), st.text(max_size=9), st.integers(0, 1300))
def test_coins_are_drawn_alike_everywhere(salt: str, query_id: str, rounds: int) -> None:
    """The same salt and query id draw the same coins, of which more are a continuation of fewer."""
    found = coins(salt, query_id, rounds)
    assert len(found) == rounds
    many = coins(salt, query_id, 1300)
    assert many[:rounds] == found
    assert many[:512] != many[512:1024]


def test_coins_are_fair() -> None:
    """Each round's coin falls on both sides alike, and on its own; another salt tosses anew."""
    tossed = np.array([coins("salt", f"query {n}", 10) for n in range(4000)], np.float64)
    again = np.array([coins("other", f"query {n}", 10) for n in range(4000)], np.float64)
    assert np.abs(tossed.mean(axis=0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(tossed.T) - np.eye(10)).max() < 0.06
    assert abs((tossed == again).mean() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("clicked", "prefers"),
    [
        ([], 0),
        ([1], -1),
        ([2], 1),
        ([1, 2], 0),
        ([2, 2, 1], 0),
        ([2, 3, 1], 1),
        ([0, 5, 99], 0),
        ([2, 99], 1),
    ],
)
def test_the_team_with_more_clicked_documents_is_preferred(clicked: list[int], prefers: int) -> None:
    """A document counts once, and not at all where nobody picked it."""
    assert preference(np.array([0, 1, 1, 0], np.int8), clicked) == prefers


def preferences(click: Callable[[np.random.Generator, list[int]], list[int]], better: bool) -> list[int]:
    """What readers who click that way prefer, of a control and a treatment that is better than it or not."""
    random = np.random.default_rng(11)
    found = []
    for n in range(3000):
        control = random.permutation(10)
        treatment = np.argsort(control > 2, kind="stable") if better else random.permutation(10)
        made = team_draft(control, treatment, 6, coins("s", str(n), 3))
        found.append(preference(made.teams, click(random, made.order[:6].tolist())))
    return found


def test_who_clicks_by_place_alone_prefers_nobody() -> None:
    """The draft is fair at every place: a reader who always clicks the first hit is no vote for anybody."""
    first = preferences(lambda random, shown: [1], better=False)
    any_place = preferences(lambda random, shown: [1 + int(random.geometric(0.4)) % 6], better=False)
    for found in (first, any_place):
        assert abs(np.mean(found)) < 3 / np.sqrt(len(found))


def test_who_clicks_what_is_good_prefers_the_better_ranking() -> None:
    """Readers who click the good documents (0, 1, 2) they see prefer the ranking that has them first."""
    good = preferences(lambda random, shown: [1 + shown.index(row) for row in shown if row < 3], better=True)
    assert np.mean(good) > 0.1
