from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.arrange import Arrange, spread, total_order
from mixer.errors import InvalidRequest, PageUnavailable, StaleCursor
from mixer.settings import DiversitySettings
from mixer.values import Candidates, Outcome, Page, Ranker, Reply, Scores
from tests.samples import SIGNER, candidates, hits, mix, plan, reply, request, scores

NAN, INF = float("nan"), float("inf")


def arranged(
    found: Candidates, made: Scores, replies: Sequence[Reply] = (), asked: Any = None, **rules: Any
) -> Page:
    asked = asked or request(page_size=100)
    settings = mix("a", **rules)
    return Arrange(settings, SIGNER)(plan(settings, asked), replies or [reply("a", hits())], found, made)


def ids(found: Candidates, page: Page) -> list[str]:
    return [found.ids[row] for row in page.order.tolist()]


ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, NAN, INF, -INF, 1e-300]), st.sampled_from([0.0, 0.5, 1.0])
    ),
    max_size=12,
)


@given(ROWS)
def test_the_order_is_total(rows: list[tuple[float, float]]) -> None:
    """Non-finite scores sink, ties break by fused score and then by id: the same as a plain sort says."""
    found = candidates([fused for _, fused in rows])
    made = scores([score for score, _ in rows])

    def key(row: int) -> tuple[bool, float, float, str]:
        score = rows[row][0]
        finite = bool(np.isfinite(score))
        return (not finite, -score if finite else 0.0, -rows[row][1], found.ids[row])

    assert total_order(found, made).tolist() == sorted(range(len(rows)), key=key)


def test_infinity_is_no_best_score() -> None:
    """An infinite score sinks below every finite one, like NaN, and among the sunk the fused order stands."""
    found = candidates([1, 2, 3, 4])
    assert total_order(found, scores([INF, NAN, -1e300, -INF])).tolist() == [2, 3, 1, 0]


PINS = [{"query": "Read CSV ", "ids": ["d02", "nowhere", "d01", "d02"]}]


def test_pins_stand_first_in_their_order() -> None:
    """Pinned documents lead, in the order of the rule, once each; all others follow in theirs."""
    found = candidates([4, 3, 2, 1])
    page = arranged(found, scores([4, 3, 2, 1]), pins=PINS)
    assert ids(found, page) == ["d02", "d01", "d00", "d03"]
    assert page.pinned == {1, 2}


def test_a_pin_that_no_backend_returned_is_not_shown() -> None:
    """A rule puts documents first; it does not conjure them."""
    found = candidates([2, 1])
    page = arranged(found, scores([2, 1]), pins=[{"query": "read csv", "ids": ["nowhere"]}])
    assert ids(found, page) == ["d00", "d01"]
    assert page.pinned == frozenset()


@pytest.mark.parametrize("query", ["read csv", "READ CSV", " read csv "])
def test_pins_are_of_the_query_whatever_its_case(query: str) -> None:
    """Case and outer spaces do not matter."""
    page = arranged(candidates([1, 1, 1]), scores([3, 2, 1]), asked=request(query), pins=PINS)
    assert page.pinned == {1, 2}


def test_pins_of_another_query_do_nothing() -> None:
    """A rule is for its own query alone."""
    page = arranged(candidates([1, 1, 1]), scores([3, 2, 1]), asked=request("read"), pins=PINS)
    assert page.order.tolist() == [0, 1, 2]
    assert page.pinned == frozenset()


def spread_out(sites: Sequence[str], most: int, within: int) -> list[int]:
    found = candidates([1] * len(sites), texts={"site": sites})
    rule = DiversitySettings(field="site", max=most, within=within)
    order: list[int] = spread(np.arange(len(sites)), found, rule).tolist()
    return order


def test_diversity_moves_the_surplus_behind() -> None:
    """Of one value at most `max` stand among the first `within`; the surplus follows in its own order."""
    assert spread_out(["x", "x", "x", "y", "z", "x"], most=2, within=4) == [0, 1, 3, 4, 2, 5]


def test_diversity_fills_up_with_the_best_of_the_surplus() -> None:
    """Where too few other values exist, the best of the surplus fills the first `within`."""
    assert spread_out(["x", "x", "x", "y"], most=1, within=4) == [0, 3, 1, 2]


def test_documents_without_a_value_are_never_capped() -> None:
    """An empty value is no value."""
    assert spread_out(["", "", "", "x", "x"], most=1, within=5) == [0, 1, 2, 3, 4]
    assert spread_out(["x", "", "x", ""], most=1, within=3) == [0, 1, 3, 2]


def test_diversity_over_a_field_nobody_sent_does_nothing() -> None:
    """Without the column the order stands."""
    page = arranged(candidates([1, 1]), scores([1, 2]), diversity={"field": "site", "max": 1})
    assert page.order.tolist() == [1, 0]


def naive_spread(sites: Sequence[str], most: int, within: int) -> list[int]:
    """The rule read aloud: keep what is under the cap, then whatever is left, in order."""
    kept = [row for row, site in enumerate(sites) if not site or sites[:row].count(site) < most]
    head = kept[:within]
    return head + [row for row in range(len(sites)) if row not in head]


@given(st.lists(st.sampled_from(["x", "y", "z", ""]), max_size=15), st.integers(1, 3), st.integers(1, 12))
def test_diversity_loses_nothing(sites: list[str], most: int, within: int) -> None:
    """The result is a permutation, the one that a plain reading of the rule gives; where there are other values
    enough, the cap holds in the whole head."""
    order = spread_out(sites, most, within)
    assert sorted(order) == list(range(len(sites)))
    assert order == naive_spread(sites, most, within)
    room = sites.count("") + sum(min(sites.count(site), most) for site in "xyz")
    if room >= within:
        assert all(count <= most for site, count in Counter(sites[r] for r in order[:within]).items() if site)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, NAN]), max_size=15), st.data())
def test_no_rule_loses_a_document(values: list[float], data: st.DataObject) -> None:
    """With pins and diversity at once, the order is a permutation of the candidates."""
    n = len(values)
    sites = data.draw(st.lists(st.sampled_from(["x", "y", ""]), min_size=n, max_size=n))
    wanted = data.draw(st.lists(st.sampled_from([f"d{row:02}" for row in range(16)]), min_size=1, max_size=4))
    page = arranged(
        candidates([0.5] * n, texts={"site": sites}),
        scores(values),
        pins=[{"query": "read csv", "ids": wanted}],
        diversity={"field": "site", "max": 1, "within": 4},
    )
    assert sorted(page.order.tolist()) == list(range(n))


def walk(
    found: Candidates, made: Scores, sizes: Sequence[int], arm: str = "", explore_hits: int = 0, **rules: Any
) -> list[str]:
    """Page after page by cursor, each of the next size, until there is no next."""
    seen: list[str] = []
    cursor, settings, replies = "", mix("a", **rules), [reply("a", hits(version="1"))]
    arrange = Arrange(settings, SIGNER, arm, explore_hits)
    for size in sizes:
        page = arrange(plan(settings, request(page_size=size, cursor=cursor)), replies, found, made)
        seen += [found.ids[row] for row in page.rows.tolist()]
        cursor = page.next_cursor
        if not cursor:
            return seen
    raise AssertionError("the pages do not end")


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, NAN]), max_size=20), st.data())
def test_pages_by_cursor_are_the_whole_list(values: list[float], data: st.DataObject) -> None:
    """Concatenated, the pages are the ranked list: nothing twice, nothing lost, whatever their sizes and rules."""
    n = len(values)
    sizes = data.draw(st.lists(st.integers(1, 7), min_size=n + 1, max_size=n + 1))
    sites = data.draw(st.lists(st.sampled_from(["x", "y"]), min_size=n, max_size=n))
    rules: dict[str, Any] = {"pins": PINS, "diversity": {"field": "site", "max": 1, "within": 5}}
    found, made = candidates([0.5] * n, texts={"site": sites}), scores(values)
    assert walk(found, made, sizes, **rules) == ids(found, arranged(found, made, **rules))


def explored(found: Candidates, query_id: str, explore_hits: int, **rules: Any) -> Page:
    settings = mix("a", **rules)
    asked = plan(settings, request(query_id=query_id, page_size=3))
    made = scores(list(range(len(found.ids), 0, -1)))
    return Arrange(settings, SIGNER, "x", explore_hits)(asked, [reply("a", hits())], found, made)


def test_every_order_of_an_explored_head_is_as_probable() -> None:
    """Over many searches each order comes up as often as chance has it, and the rest of the list stays."""
    drawn = Counter(tuple(explored(candidates([1] * 5), f"q{n}", 3).order.tolist()) for n in range(3000))
    assert {order[3:] for order in drawn} == {(3, 4)}
    assert len(drawn) == 6
    assert sum((count - 500) ** 2 / 500 for count in drawn.values()) < 25.7  # p 0.0001, 5 degrees of freedom


def test_an_explored_head_says_how_probable_each_place_was() -> None:
    """One in so many places within the head, certain elsewhere; pinned hits stand where they are pinned."""
    pins = [{"query": "read csv", "ids": ["d03"]}]
    page = explored(candidates([1] * 6), "q", 4, pins=pins)
    assert page.order[0] == 3
    assert page.propensities is not None
    assert page.propensities[page.order].tolist() == [1, 0.25, 0.25, 0.25, 0.25, 1]
    assert explored(candidates([]), "q", 4).order.tolist() == []
    assert arranged(candidates([1] * 6), scores([1] * 6)).propensities is None


@given(st.integers(0, 9), st.integers(2, 12), st.lists(st.integers(1, 4), min_size=10, max_size=10))
def test_pages_of_an_explored_list_are_of_one_draw(n: int, explore_hits: int, sizes: list[int]) -> None:
    """Page after page shows every hit once, though each page is a search with an id of its own."""
    found, made = candidates([0.5] * n), scores([float(n - row) for row in range(n)])
    assert sorted(walk(found, made, sizes, "x", explore_hits)) == list(found.ids)


def test_the_last_page_has_no_cursor() -> None:
    """A page that ends at or beyond the end of the list is the last."""
    found, made = candidates([1] * 5), scores([5, 4, 3, 2, 1])
    assert not arranged(found, made, asked=request(page_size=5)).next_cursor
    assert arranged(found, made, asked=request(page_size=4)).next_cursor
    assert not arranged(found, made, asked=request(page_size=2, offset=4)).next_cursor
    beyond = arranged(found, made, asked=request(page_size=2, offset=40))
    assert (beyond.rows.tolist(), beyond.next_cursor) == ([], "")


def test_a_cursor_may_follow_an_offset() -> None:
    """The page after one asked by offset begins where that one ended."""
    found, made = candidates([1] * 5), scores([5, 4, 3, 2, 1])
    first = arranged(found, made, asked=request(page_size=2, offset=1))
    second = arranged(found, made, asked=request(page_size=2, cursor=first.next_cursor))
    assert (first.rows.tolist(), second.rows.tolist()) == ([1, 2], [3, 4])


FOUND, MADE = candidates([1] * 4), scores([4, 3, 2, 1])
BEFORE = [reply("a", hits(version="1"))]


def cursor() -> str:
    return arranged(FOUND, MADE, BEFORE, request(page_size=2)).next_cursor


def follow(
    found: Candidates = FOUND, made: Scores = MADE, replies: Sequence[Reply] = BEFORE, **asked: Any
) -> Page:
    return arranged(found, made, replies, request(**{"page_size": 2, "cursor": cursor(), **asked}))


def test_a_cursor_holds_while_nothing_changed() -> None:
    """The page after is cut where the one before ended."""
    page = follow()
    assert (page.offset, page.rows.tolist(), page.next_cursor) == (2, [2, 3], "")


def test_a_changed_index_ends_the_list() -> None:
    """The cursor of a list from another version of an index is stale."""
    with pytest.raises(StaleCursor, match="index of a"):
        follow(replies=[reply("a", hits(version="2"))])


def test_a_changed_model_ends_the_list() -> None:
    """The cursor of a list that another model ordered is stale."""
    with pytest.raises(StaleCursor, match="model"):
        follow(made=replace(MADE, ranker=Ranker.FUSED, model=None))


def test_a_missing_backend_may_come_back() -> None:
    """Where a backend of the page before fails now, the caller may try again."""
    with pytest.raises(PageUnavailable, match="a answered"):
        follow(replies=[reply("a", None, Outcome.TIMEOUT)])


def test_a_changed_head_ends_the_list() -> None:
    """Where what was served stands elsewhere now, the next page would repeat or lose hits."""
    with pytest.raises(StaleCursor, match="ranked list"):
        follow(made=scores([4, 2, 3, 1]))


def test_a_changed_tail_does_not() -> None:
    """What was not served yet may move: nothing is repeated or lost."""
    assert follow(made=scores([4, 3, 1, 2])).rows.tolist() == [3, 2]


def test_a_shorter_list_ends_the_cursor() -> None:
    """Where what was served is not all there any more, the cursor is stale."""
    with pytest.raises(StaleCursor, match="ranked list"):
        follow(found=candidates([1]), made=scores([1]))


def test_a_forged_cursor_is_refused() -> None:
    """A cursor with one letter changed is no cursor of this server."""
    sealed = cursor()
    with pytest.raises(InvalidRequest, match="cursor"):
        follow(cursor=("A" if sealed[0] != "A" else "B") + sealed[1:])
