from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.arrange import total_order
from mixer.cursor import ranker_used
from mixer.draft import DEPTH, ArrangeDraft, RankBoth, Rival
from mixer.errors import StaleCursor
from mixer.rank import RankByFusion
from mixer.values import Candidates, Features, ModelRef, Page, Ranker, Scores
from tests.samples import MODEL, SIGNER, candidates, features, hits, mix, plan, reply, request

OTHER = ModelRef("other", "2", "f" * 64)
SCORES = st.integers(2, 12).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, 5), min_size=n, max_size=n) for _ in range(2)))
)
Pair = tuple[list[int], list[int]]


class Fixed:
    """A ranker that says these scores."""

    def __init__(self, values: Any, model: ModelRef = MODEL, reason: str = "") -> None:
        self._scores = Scores(np.array(values, np.float64), Ranker.MODEL, model, reason)

    def __call__(self, candidates: Candidates, features: Features) -> Scores:
        return self._scores


def both(own: Any, control: Any) -> Scores:
    rival = Rival("control", lambda: Fixed(control, OTHER), "salt")
    return RankBoth(Fixed(own), rival)(candidates(np.zeros(len(own)).tolist()), features(one=own))


def drafted(scores: Scores, query_id: str = "q", cursor: str = "", rules: Any = None, size: int = 3) -> Page:
    """A page of the list that both drafted."""
    rules = rules or mix("a")
    rival = Rival("control", lambda: Fixed([]), "salt")
    n = len(scores.values)
    found = candidates([0.0] * n, texts={"site": ["s"] * n})
    asked = request(query_id=query_id, cursor=cursor, page_size=size)
    replies = [reply("a", hits(found.ids))]
    return ArrangeDraft(rules, SIGNER, "duel", rival)(plan(rules, asked), replies, found, scores)


@given(SCORES)
def test_both_rank_the_same_candidates(pair: Pair) -> None:
    """The arm's own scores are the answer's; the control's stand beside them, by the name of its arm."""
    own, control = pair
    scores = both(own, control)
    assert (scores.values.tolist(), scores.model) == (own, MODEL)
    assert scores.against
    assert (scores.against.values.tolist(), scores.against.model) == (control, OTHER)
    assert scores.members["control"].tolist() == control
    assert ranker_used(scores) == f"{MODEL.sha256} {OTHER.sha256}"


@pytest.mark.parametrize("which", [0, 1])
def test_one_that_could_not_rank_is_no_rival(which: int) -> None:
    """The arm's own scores stand alone, with what is wrong with them, and nothing is drafted."""
    rankers = [Fixed([1, 2, 3]), Fixed([3, 2, 1], OTHER)]
    rankers[which] = Fixed([0, 0, 0], reason="scoring_failed")
    rank = RankBoth(rankers[0], Rival("control", lambda: rankers[1], "s"))
    scores = rank(candidates([0.0] * 3), features(one=[0, 0, 0]))
    assert scores is rankers[0](candidates([0.0]), features(one=[0]))
    page = drafted(scores)
    assert page.draft is None
    assert page.order.tolist() == total_order(candidates([0.0] * 3), scores).tolist()


def test_a_control_without_a_model_is_a_rival() -> None:
    """The fused order can be drafted against, where no model should have ranked."""
    rank = RankBoth(Fixed([1, 2]), Rival("control", RankByFusion, "s"))
    assert rank(candidates([2.0, 1.0]), features(one=[0, 0])).against


@given(SCORES, st.text(max_size=5))
def test_every_document_is_there_once_and_each_is_picked(pair: Pair, query_id: str) -> None:
    """A drafted list holds the candidates and no other; the two picked as many of them, or one more."""
    page = drafted(both(*pair), query_id)
    assert sorted(page.order.tolist()) == list(range(len(pair[0])))
    assert page.draft
    counts = [page.draft.teams.tolist().count(team) for team in (0, 1)]
    assert sum(counts) == len(pair[0])
    assert abs(counts[0] - counts[1]) <= 1
    assert page.draft.names() == [("control", "duel")[team] for team in page.draft.teams]


@given(SCORES, st.text(max_size=5), st.integers(1, 4))
def test_pages_are_of_one_list(pair: Pair, query_id: str, size: int) -> None:
    """The cursor keeps the coins: the next page, asked under another query id, goes on where the first one ended."""
    scores = both(*pair)
    first = page = drafted(scores, query_id, size=size)
    ids = page.rows.tolist()
    while page.next_cursor:
        page = drafted(scores, f"{query_id} again", page.next_cursor, size=size)
        assert page.draft
        assert first.draft
        assert page.draft.seed == first.draft.seed
        ids += page.rows.tolist()
    assert ids == first.order.tolist()


def test_coins_are_tossed_for_every_search() -> None:
    """The same query is drafted anew each time: who repeats it is no vote for one team."""
    scores = both(list(range(8)), list(range(8, 0, -1)))
    first = [int(page.draft.teams[0]) for n in range(400) if (page := drafted(scores, f"q{n}")).draft]
    assert 150 < sum(first) < 250
    again, same = drafted(scores, "q1").draft, drafted(scores, "q1").draft
    assert again
    assert same
    assert again.teams.tolist() == same.teams.tolist()


def test_beyond_the_depth_nobody_picks() -> None:
    """A long list is drafted so far, whatever page is asked for; behind that it is the control's order."""
    n = 2 * DEPTH
    control = np.arange(n)
    page = drafted(both(np.roll(control, 7).tolist(), control.tolist()))
    assert page.draft
    assert (page.draft.teams[:DEPTH] >= 0).all()
    assert (page.draft.teams[DEPTH:] == -1).all()
    rest = page.order[DEPTH:]
    assert rest.tolist() == sorted(rest.tolist(), reverse=True)
    assert set(page.draft.names()[DEPTH:]) == {""}


def test_a_hit_that_a_rule_put_there_is_nobodys() -> None:
    """Pins stand first and are no pick; other rows keep their team wherever rules move them."""
    rules = mix("a", pins=[{"query": "read csv", "ids": ["d03"]}], diversity={"field": "site", "max": 1})
    plain, ruled = (
        drafted(both([1, 2, 3, 4], [4, 3, 2, 1])),
        drafted(both([1, 2, 3, 4], [4, 3, 2, 1]), rules=rules),
    )
    assert plain.draft
    assert ruled.draft
    teams = dict(zip(plain.order.tolist(), plain.draft.teams.tolist(), strict=True))
    assert ruled.order[0] == 3
    assert ruled.draft.teams.tolist() == [-1, *(teams[row] for row in ruled.order[1:].tolist())]


def test_another_control_ends_the_cursors() -> None:
    """A list that two models drafted is no more where one of them is another."""
    page, changed = (drafted(both([1, 2, 3, 4], [4, 3, 2, 1])), both([1, 2, 3, 4], [4, 3, 2, 1]))
    assert changed.against
    changed = replace(changed, against=replace(changed.against, model=MODEL))
    with pytest.raises(StaleCursor, match="the model changed"):
        drafted(changed, cursor=page.next_cursor)
