from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.base import Hits
from mixer.merge import Merge
from mixer.values import Candidates, Drop, Outcome, Reply
from tests.samples import hits, merged, mix, plan, reply

NAN = float("nan")


NORMALIZED = {"name": "share", "source": "backend", "backend": "a", "value": "normalized"}


def row(candidates: Candidates, id_: str) -> int:
    return candidates.ids.index(id_)


def fused(candidates: Candidates, id_: str) -> float:
    return float(candidates.fused[row(candidates, id_)])


def normalized(scores: Sequence[float], normalize: str = "min_max", **bounds: float) -> list[float]:
    """What one backend's scores become, in their order."""
    rules = mix(members={"a": {"bounds": bounds}}, fusion={"kind": "linear", "normalize": normalize})
    ids = [f"d{place:02}" for place in range(len(scores))]
    return [float(value) for value in merged(rules, [reply("a", hits(ids, scores))]).normalized[0]]


def test_one_row_a_document() -> None:
    """A document that two backends return is one row with two ranks; rows stand in the order of the ids."""
    made = merged(mix("a", "b"), [reply("a", hits(["y", "x"])), reply("b", hits(["x", "z"]))])
    assert made.ids == ["x", "y", "z"]
    assert made.ranks.tolist() == [[2, 1, 0], [1, 0, 2]]
    np.testing.assert_equal(made.scores, [[1, 2, NAN], [2, NAN, 1]])


def test_a_backend_without_hits_is_a_row_of_absence() -> None:
    """A backend that failed keeps its row, with rank 0 and no score, so that columns stay in place."""
    rules = mix("a", "b", features=[NORMALIZED])
    made = merged(rules, [reply("a", None, Outcome.TIMEOUT), reply("b", hits(["x"]))])
    assert made.backends == ("a", "b")
    assert made.ranks.tolist() == [[0], [1]]
    assert np.isnan(made.scores[0, 0])
    assert np.isnan(made.normalized[0, 0])


def test_nothing_from_anyone_is_an_empty_list() -> None:
    """Backends that answer with no hits make no candidates and no error."""
    made = merged(mix("a", "b"), [reply("a", hits()), reply("b", hits())])
    assert len(made) == 0
    assert made.fused.shape == (0,)
    assert made.ranks.shape == (2, 0)


def test_the_order_of_the_dictionaries_changes_nothing() -> None:
    """Columns sent in another order make the same candidates."""
    columns = {"year": [1.0, 2.0], "size": [3.0, NAN], "age": [5.0, 6.0]}
    rules, ids = mix("a", "b"), ["x", "y"]
    made = [
        merged(rules, [reply("a", hits(ids, numbers=dict(order))), reply("b", hits(["y"]))])
        for order in permutations(columns.items())
    ]
    for other in made[1:]:
        assert other.ids == made[0].ids
        assert other.numbers.keys() == made[0].numbers.keys()
        for name in columns:
            np.testing.assert_array_equal(other.numbers[name], made[0].numbers[name])


def test_a_repeat_does_not_vote_twice() -> None:
    """A document repeated in one list counts once, by its first place, and the later ranks close up."""
    made = merged(mix("a"), [reply("a", hits(["x", "x", "y", "x", "z"], [5, 4, 3, 2, 1]))])
    assert made.ranks.tolist() == [[1, 2, 3]]
    assert made.scores.tolist() == [[5, 3, 1]]
    assert fused(made, "x") == pytest.approx(1 / 61)
    assert fused(made, "y") == pytest.approx(1 / 62)
    assert made.drops == (Drop("repeated", 2, "a"),)


def test_repeats_cannot_fake_agreement() -> None:
    """However often one backend repeats a document, one that two backends return stays above it."""
    loud = reply("a", hits(["loud"] * 50 + ["shared"]))
    made = merged(mix("a", "b"), [loud, reply("b", hits(["shared"]))])
    assert made.ids[made.prior[0]] == "shared"


def test_hits_beyond_the_limit_are_cut_and_counted() -> None:
    """A backend that sends more than it was asked for is cut to its limit, in its own order."""
    made = merged(mix(members={"a": {"limit": 2}}), [reply("a", hits(["z", "y", "x"]))])
    assert made.ids == ["y", "z"]
    assert made.drops == (Drop("over_limit", 1, "a"),)


def test_a_score_that_is_not_finite_is_missing_and_counted() -> None:
    """NaN and infinities are no scores: the document keeps its rank and vote, and the loss is counted."""
    made = merged(mix("a"), [reply("a", hits(["w", "x", "y", "z"], [np.inf, NAN, -np.inf, 1]))])
    np.testing.assert_equal(made.scores, [[NAN, NAN, NAN, 1]])
    assert made.ranks.tolist() == [[1, 2, 3, 4]]
    assert made.drops == (Drop("score_not_finite", 3, "a"),)
    assert np.isfinite(made.fused).all()


def test_drops_name_their_backend() -> None:
    """Every reason is counted for the backend it happened to."""
    made = merged(
        mix(members={"a": {"limit": 1}, "b": {}}),
        [reply("a", hits(["x", "y"])), reply("b", hits(["x", "x"], [NAN, 1]))],
    )
    assert set(made.drops) == {
        Drop("over_limit", 1, "a"),
        Drop("repeated", 1, "b"),
        Drop("score_not_finite", 1, "b"),
    }


def test_reciprocal_ranks_are_summed() -> None:
    """RRF: the sum of weight / (k + rank) over the backends that returned the document, checked by hand."""
    rules = mix(members={"a": {"weight": 2.0}, "b": {"weight": 0.5}}, fusion={"kind": "rrf", "k": 10})
    made = merged(rules, [reply("a", hits(["x", "y"])), reply("b", hits(["z", "y", "x"]))])
    assert fused(made, "x") == pytest.approx(2 / 11 + 0.5 / 13, rel=1e-15)
    assert fused(made, "y") == pytest.approx(2 / 12 + 0.5 / 12, rel=1e-15)
    assert fused(made, "z") == pytest.approx(0.5 / 11, rel=1e-15)


@pytest.mark.parametrize("kind", ["rrf", "linear"])
def test_weights_decide(kind: str) -> None:
    """The heavier backend's first hit leads, whichever backend it is; weight 0 leaves no vote."""
    replies = [reply("a", hits(["x", "y"])), reply("b", hits(["y", "x"]))]

    def first(a: float, b: float) -> Candidates:
        members = {"a": {"weight": a}, "b": {"weight": b}}
        return merged(mix(members=members, fusion={"kind": kind}), replies)

    assert first(2, 1).prior.tolist() == [0, 1]
    assert first(1, 2).prior.tolist() == [1, 0]
    assert first(0, 0).fused.tolist() == [0, 0]


def test_linear_fusion_sums_weighted_shares() -> None:
    """Linear: the sum of weight times normalized score; an absent document or score adds nothing."""
    rules = mix(members={"a": {"weight": 2.0}, "b": {"weight": 0.5}}, fusion={"kind": "linear"})
    made = merged(
        rules, [reply("a", hits(["x", "y"], [8, 4])), reply("b", hits(["y", "z", "x"], [10, 5, NAN]))]
    )
    assert fused(made, "x") == pytest.approx(2.0)
    assert fused(made, "y") == pytest.approx(2 * 0.5 + 0.5)
    assert fused(made, "z") == pytest.approx(0.25)


def test_min_max_is_the_share_of_the_best() -> None:
    """Without a known scale the best score is 1 and `low` is 0."""
    assert normalized([8, 4, 2]) == [1.0, 0.5, 0.25]


def test_a_weak_list_stays_weak() -> None:
    """A list whose best score is below `high` stays below 1, in proportion: it is not blown up."""
    assert normalized([2, 1], high=10) == pytest.approx([0.2, 0.1])


def test_a_strong_list_passes_the_bound() -> None:
    """Where the best score is above `high`, the best is the top of the scale."""
    assert normalized([20, 10], high=10) == pytest.approx([1.0, 0.5])


def test_low_is_the_floor() -> None:
    """Scores at `low` or below it share nothing; those above are measured from it."""
    assert normalized([6, 4, 2, -5], low=2, high=10) == pytest.approx([0.5, 0.25, 0, 0])


def test_a_constant_list_is_not_noise() -> None:
    """Equal scores are equally good: 1 each where they are above `low`, 0 where they are at it."""
    assert normalized([3, 3, 3]) == [1, 1, 1]
    assert normalized([0, 0]) == [0, 0]


def test_negative_scores_have_a_scale_too() -> None:
    """Below `low` everything is 0; with a `low` beneath them, negative scores spread over 0 to 1."""
    assert normalized([-1, -3]) == [0, 0]
    assert normalized([-1, -3], low=-5) == [1.0, 0.5]


@pytest.mark.parametrize("normalize", ["min_max", "z_score"])
def test_what_is_missing_stays_missing(normalize: str) -> None:
    """A score that is not finite has no normalized value, and does not shift those of the others."""
    with_hole, without = normalized([4, NAN, 2], normalize), normalized([4, 2], normalize)
    assert np.isnan(with_hole[1])
    assert [with_hole[0], with_hole[2]] == without


def test_z_scores_are_deviations_from_the_mean() -> None:
    """The mean is 0.5 and one standard deviation is a sixth, checked by hand."""
    expected = [0.5 + deviation / 6 for deviation in (np.sqrt(1.5), 0, -np.sqrt(1.5))]
    assert normalized([30, 20, 10], "z_score") == pytest.approx(expected)


def test_z_scores_are_clipped() -> None:
    """Beyond three standard deviations all is the same: the shares stay within 0 and 1."""
    shares = normalized([1000.0] + [1.0] * 40, "z_score")
    assert shares[0] == 1.0
    assert min(shares) >= 0


def test_a_flat_list_is_not_blown_up() -> None:
    """Differences that are small beside the scale stay small, however alike the scores are."""
    assert normalized([5, 5, 5], "z_score") == [0.5, 0.5, 0.5]
    shares = normalized([10.001, 10.0], "z_score")
    assert 0 < shares[0] - shares[1] < 0.001
    shares = normalized([1.1, 1.0], "z_score", high=1000)
    assert 0 < shares[0] - shares[1] < 0.001


def test_a_group_votes_once() -> None:
    """Of the backends of one group only the strongest vote counts, document by document."""
    members = {"a": {"group": "words"}, "b": {"group": "words", "weight": 3.0}, "c": {}}
    made = merged(
        mix(members=members),
        [reply("a", hits(["x", "y"])), reply("b", hits(["y"])), reply("c", hits(["x"]))],
    )
    assert fused(made, "x") == pytest.approx(1 / 61 + 1 / 61)
    assert fused(made, "y") == pytest.approx(3 / 61)


def test_groups_do_not_take_in_loners() -> None:
    """A backend without a group stands alone, even where a group has its name."""
    members = {"a": {"group": "b"}, "b": {}}
    made = merged(mix(members=members), [reply("a", hits(["x"])), reply("b", hits(["x"]))])
    assert fused(made, "x") == pytest.approx(2 / 61)


def test_the_first_known_value_wins() -> None:
    """A field is taken from the first backend, in the mix's order, that knows it."""
    made = merged(
        mix("a", "b"),
        [
            reply("a", hits(["x", "y"], numbers={"n": [NAN, 7]}, texts={"t": ["", "from a"]})),
            reply("b", hits(["y", "x"], numbers={"n": [8, 9]}, texts={"t": ["from b", "also b"]})),
        ],
    )
    assert made.numbers["n"].tolist() == [9, 7]
    assert made.texts["t"].tolist() == ["also b", "from a"]


def test_the_first_of_a_repeat_says_what_it_is() -> None:
    """Where one backend sends a document twice with other fields, its first row stands."""
    numbers, texts = {"n": [1, NAN, 2]}, {"t": ["first", "", "second"]}
    made = merged(mix("a"), [reply("a", hits(["x", "x", "x"], numbers=numbers, texts=texts))])
    assert made.numbers["n"].tolist() == [1]
    assert made.texts["t"].tolist() == ["first"]


def test_fields_beyond_the_limit_are_not_read() -> None:
    """Columns are cut with the ids, and an infinite number is no number."""
    sent = hits(["x", "y"], numbers={"n": [np.inf, 2]}, texts={"t": ["one", "two"]})
    made = merged(mix(members={"a": {"limit": 1}}), [reply("a", sent)])
    assert np.isnan(made.numbers["n"]).tolist() == [True]
    assert made.texts["t"].tolist() == ["one"]


def test_ties_of_the_fused_order_break_by_id() -> None:
    """Equal fused scores stand in the order of the ids."""
    made = merged(mix("a", "b"), [reply("a", hits(["y", "x"])), reply("b", hits(["x", "y"]))])
    assert made.fused[0] == made.fused[1]
    assert [made.ids[place] for place in made.prior] == ["x", "y"]


ANY_SCORE = st.one_of(
    st.floats(-1e6, 1e6), st.just(NAN), st.just(float("inf")), st.just(-float("inf")), st.just(0.0)
)


@st.composite
def answers(draw: st.DrawFn) -> Hits:
    ids = draw(st.lists(st.text("abcdé", min_size=1, max_size=2), max_size=12))
    return hits(
        ids,
        draw(st.lists(ANY_SCORE, min_size=len(ids), max_size=len(ids))),
        {"n": draw(st.lists(ANY_SCORE, min_size=len(ids), max_size=len(ids)))},
    )


@st.composite
def questions(draw: st.DrawFn) -> tuple[dict[str, object], list[Reply]]:
    names = draw(st.lists(st.sampled_from("pqrs"), min_size=1, max_size=4, unique=True))
    replies = [reply(name, draw(st.one_of(st.none(), answers()))) for name in names]
    members = {
        name: {
            "limit": draw(st.integers(1, 12)),
            "weight": draw(st.floats(0, 5)),
            "group": draw(st.sampled_from(["", "g"])),
            "bounds": {
                "low": draw(st.floats(-10, 0)),
                "high": draw(st.one_of(st.none(), st.floats(0, 50))),
            },
        }
        for name in names
    }
    fusion = {
        "kind": draw(st.sampled_from(["rrf", "linear"])),
        "normalize": draw(st.sampled_from(["min_max", "z_score"])),
    }
    return {"members": members, "fusion": fusion}, replies


@given(questions())
def test_candidates_are_sound(question: tuple[dict[str, object], list[Reply]]) -> None:
    """Of any replies: ids sorted and unique, fused finite, prior a permutation by falling fused score, ranks of a
    backend 1 to its number of documents without a hole, normalized within 0 and 1 wherever there is a score."""
    settings, replies = question
    share = {**NORMALIZED, "backend": replies[0].backend}
    made = merged(mix(**settings, features=[share]), replies)
    assert made.ids == sorted(set(made.ids))
    assert np.isfinite(made.fused).all()
    assert sorted(made.prior.tolist()) == list(range(len(made)))
    assert (np.diff(made.fused[made.prior]) <= 0).all()
    for ranks in made.ranks:
        held = sorted(ranks[ranks > 0].tolist())
        assert held == list(range(1, len(held) + 1))
    known = ~np.isnan(made.scores)
    assert ((made.normalized[known] >= 0) & (made.normalized[known] <= 1)).all()
    assert np.isnan(made.normalized[~known]).all()


def test_scores_that_nobody_reads_are_not_normalized() -> None:
    """A mix that fuses by rank and has no feature of normalized scores does without them."""
    replies = [reply("a", hits(["x"]))]
    assert merged(mix("a"), replies).normalized.shape == (1, 0)
    assert merged(mix("a", features=[NORMALIZED]), replies).normalized.shape == (1, 1)
    assert merged(mix("a", fusion={"kind": "linear"}), replies).normalized.shape == (1, 1)


@given(questions())
def test_nothing_vanishes(question: tuple[dict[str, object], list[Reply]]) -> None:
    """Hits in are documents out plus those counted as cut or repeated, for every backend."""
    settings, replies = question
    made = merged(mix(**settings), replies)
    for place, answered in enumerate(replies):
        lost = sum(
            drop.count
            for drop in made.drops
            if drop.backend == answered.backend and drop.reason in ("over_limit", "repeated")
        )
        sent = 0 if answered.hits is None else len(answered.hits)
        assert int((made.ranks[place] > 0).sum()) + lost == sent
    assert all(drop.count > 0 for drop in made.drops)


@given(questions(), st.randoms(use_true_random=False))
def test_the_order_of_the_backends_moves_no_document(
    question: tuple[dict[str, object], list[Reply]], random: Random
) -> None:
    """Backends listed in another order give the same ids and, but for rounding, the same fused scores."""
    settings, replies = question
    first = merged(mix(**settings), replies)
    shuffled = random.sample(replies, len(replies))
    members = settings["members"]
    assert isinstance(members, dict)
    again = {**settings, "members": {answered.backend: members[answered.backend] for answered in shuffled}}
    second = merged(mix(**again), shuffled)
    assert second.ids == first.ids
    np.testing.assert_allclose(second.fused, first.fused, rtol=1e-12, atol=1e-15)


def test_merging_leaves_the_replies_alone() -> None:
    """The stage is pure: what came in is as it was, and a second merge says the same."""
    rules = mix("a", fusion={"kind": "linear"})
    answered = hits(["x", "y"], [NAN, 2], {"n": [1, 2]})
    before = answered.scores.copy()
    merge = Merge(rules)
    first, second = (merge(plan(rules), [reply("a", answered)]) for _ in range(2))
    np.testing.assert_array_equal(answered.scores, before)
    np.testing.assert_array_equal(first.fused, second.fused)


@pytest.mark.parametrize("normalize", ["min_max", "z_score"])
def test_huge_scores_do_not_overflow(normalize: str) -> None:
    """Scores near the end of the scale are normalized without a warning, between 0 and 1."""
    assert all(0 <= value <= 1 for value in normalized([1.7e308, 1e308, -1.7e308], normalize))


@pytest.mark.parametrize("low", [-5e-324, -1.7e308])
def test_extreme_bounds_do_not_overflow(low: float) -> None:
    """A scale that is vanishingly short, or as long as numbers go, normalizes without a warning."""
    made = normalized([1.7e308, 0.0, -1.0, NAN], low=low)
    assert made[0] == 1
    assert all(0 <= value <= 1 for value in made[:3])
    assert np.isnan(made[3])
