from __future__ import annotations

import threading

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixer import bins
from mixer.bins import Bins
from mixer.manifest import Profile

NAN = float("nan")
VALUE = st.one_of(st.floats(), st.integers(-3, 3).map(float))


def profile(*edges: float) -> Profile:
    return Profile(edges=edges, shares=(1.0, *[0.0] * len(edges)))


@given(
    st.lists(st.lists(VALUE, min_size=4, max_size=4), max_size=30),
    st.lists(
        st.lists(st.integers(-3, 3).map(float), unique=True, max_size=4).map(sorted), min_size=4, max_size=4
    ),
)
def test_bins_are_those_of_the_profile(rows: list[list[float]], edges: list[list[float]]) -> None:
    """Bin i holds v with edges[i-1] < v <= edges[i]; what is not known is counted last, and nothing is lost."""
    counted = Bins([profile(*each) for each in edges])
    matrix = np.array(rows, np.float64).reshape(len(rows), 4)
    counted.count(matrix.T)
    for column, each, counts in zip(matrix.T, edges, counted.counts(), strict=True):
        known = column[~np.isnan(column)]
        binned = np.bincount(np.searchsorted(np.array(each), known), minlength=len(each) + 1).tolist()
        assert counts == [*binned, len(column) - len(known)]


def test_counts_add_up() -> None:
    """One answer after another, of any layout of its matrix."""
    counted = Bins([profile(0.0), profile()])
    counted.count(np.array([[1.0, -1.0], [NAN, 2.0]]))
    counted.count(np.array([[1.0, NAN], [0.0, 3.0]]).T)
    assert counted.counts() == [[2, 2, 0], [2, 2]]


def test_a_large_answer_is_sampled() -> None:
    """No more than a bounded number of values are counted of one answer, other rows of it each time."""
    counted = Bins([profile(0.0)])
    rows = np.concatenate([-np.ones(bins.VALUES), np.ones(bins.VALUES)])[None]
    for _ in range(8):
        counted.count(rows)
    below, above, missing = counted.counts()[0]
    assert (below + above, missing) == (8 * bins.VALUES, 0)
    assert below
    assert above


def test_counts_never_fall_while_others_count() -> None:
    """Read from another thread in the midst of counting, no bin is ever fewer than before."""
    counted, done = Bins([profile(-1.0, 0.0, 1.0)]), threading.Event()
    column = np.random.default_rng(0).normal(size=(1, 500))

    def count() -> None:
        for _ in range(2000):
            counted.count(column)
        done.set()

    thread = threading.Thread(target=count)
    thread.start()
    before = counted.counts()[0]
    while not done.is_set():
        now = counted.counts()[0]
        assert all(new >= old for new, old in zip(now, before, strict=True))
        before = now
    thread.join()
    assert sum(counted.counts()[0]) == 2000 * 500
