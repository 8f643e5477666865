from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixer.arms import KeySample, Split, draw, sample_ratio_p


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_key_s_place_depends_on_salt_and_key_alone(salt: str, key: str) -> None:
    """The same place every time, in [0, 1)."""
    place, number = draw(salt, key)
    assert draw(salt, key) == (place, number)
    assert 0 <= place < 1
    assert 0 <= number < 2**64


def test_places_are_those_of_other_processes() -> None:
    """Fixed for good: another place would move users between arms when servers are replaced."""
    assert draw("salt", "user-1")[0] == pytest.approx(0.216493909927291, abs=1e-15)
    assert draw("salt", "user-2")[0] != draw("tlas", "user-2")[0]
    assert draw("ab", "c") != draw("a", "bc")


def test_keys_fall_as_the_shares_say() -> None:
    """Of many keys each arm gets its share; another salt draws them anew, independently."""
    split = Split([0.5, 0.3, 0.2])
    arms = [[split.arm(draw(salt, str(n))[0]) for n in range(20_000)] for salt in ("a", "b")]
    for drawn in arms:
        assert np.bincount(drawn) / 20_000 == pytest.approx([0.5, 0.3, 0.2], abs=0.015)
    both = sum(one == other == 2 for one, other in zip(*arms, strict=True)) / 20_000
    assert both == pytest.approx(0.04, abs=0.01)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_growing_last_arm_takes_from_its_neighbor_alone(shares: list[float]) -> None:
    """Of two arms, none leaves the second while its share grows."""
    splits = [Split([1 - share, share]) for share in sorted(shares)]
    for n in range(50):
        place = draw("s", str(n))[0]
        arms = [split.arm(place) for split in splits]
        assert all(later >= earlier for earlier, later in pairwise(arms))


def test_an_arm_without_a_share_gets_nobody() -> None:
    """Not even who stands at its edge."""
    split = Split([0.5, 0.0, 0.5])
    assert {split.arm(place) for place in (0.0, 0.4999, 0.5, 0.9999)} == {0, 2}


def test_busy_keys_count_once() -> None:
    """However often a key asks."""
    sample = KeySample(2)
    for _ in range(10):
        sample.add(7, 0)
    sample.add(8, 1)
    assert sample.counts == [1, 1]


def test_the_sample_is_bounded_and_even() -> None:
    """Past its size it thins out, all arms alike."""
    sample, random = KeySample(2, most=1000), np.random.default_rng(1)
    for n, number in enumerate(random.integers(0, 2**63, 50_000).tolist()):
        sample.add(number, int(n % 4 == 0))
    assert 400 < sum(sample.counts) <= 1000
    assert sample.counts[1] / sum(sample.counts) == pytest.approx(0.25, abs=0.06)


def test_sample_ratio() -> None:
    """The chi-square test's probability, as published tables have it."""
    assert sample_ratio_p([0, 0], [0.5, 0.5]) == 1
    assert sample_ratio_p([500, 500], [0.5, 0.5]) == 1
    # chi-square of 3.841 with one degree of freedom, and 5.991 with two, has p 0.05
    assert sample_ratio_p([500 + 30.99, 500 - 30.99], [0.5, 0.5]) == pytest.approx(0.05, abs=1e-3)  # type: ignore[list-item]
    assert sample_ratio_p([821, 915], [0.5, 0.5]) == pytest.approx(0.024, abs=1e-3)
    assert sample_ratio_p([1, 99, 0], [0.0, 1.0, 0.0]) == 0
    assert sample_ratio_p([0, 99, 0], [0.0, 1.0, 0.0]) == 1


def test_an_even_split_seldom_looks_uneven() -> None:
    """Of fair splits about one in a hundred has a p below 0.01."""
    counts = np.random.default_rng(3).binomial(5000, 0.1, 2000)
    low = sum(sample_ratio_p([5000 - count, count], [0.9, 0.1]) < 0.01 for count in counts.tolist())
    assert 5 <= low <= 40
