"""The numbers of merged lists, held against the plainest way to gather them."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixer.gather import add_votes, by_rank, gather

FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.data())
def test_gathering_is_what_a_dictionary_would_do(data: st.DataObject) -> None:
    """Ranks by place among the distinct, finite scores, and of each number the first backend's that is finite."""
    documents, fields = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 2))
    lists = data.draw(st.lists(st.lists(st.integers(0, documents - 1), max_size=5), max_size=4))
    sends = [[data.draw(st.booleans()) for _ in range(fields)] for _ in lists]
    columns = [
        [[data.draw(FLOATS) for _ in listed] for _ in range(1 + sum(own))]
        for listed, own in zip(lists, sends, strict=True)
    ]
    ranks, kept, known, repeated, odd = _gathered(lists, sends, columns, documents, fields)
    numbers = np.full((fields, documents), np.nan)
    for backend, (listed, (scores, *sent)) in enumerate(zip(lists, columns, strict=True)):
        first = [place for place, row in enumerate(listed) if row not in listed[:place]]
        assert repeated[backend] == len(listed) - len(first)
        assert odd[backend] == sum(not np.isfinite(scores[place]) for place in first)
        assert (ranks[backend] > 0).sum() == len(first)
        for rank, place in enumerate(first, 1):
            score, row = scores[place], listed[place]
            assert ranks[backend, row] == rank
            np.testing.assert_equal(kept[backend, row], score if np.isfinite(score) else np.nan)
            for field, column in zip(np.flatnonzero(sends[backend]), sent, strict=True):
                if np.isnan(numbers[field, row]) and np.isfinite(column[place]):
                    numbers[field, row] = column[place]
    np.testing.assert_equal(known, numbers)


def _gathered(
    lists: list[list[int]],
    sends: list[list[bool]],
    columns: list[list[list[float]]],
    documents: int,
    fields: int,
) -> tuple[Any, ...]:
    """Ranks, scores and numbers as gathered, repeats, and scores that are not finite."""
    places, sent = np.full((len(lists), 1 + fields), -1, np.intp), list[float]()
    for backend, (own, told) in enumerate(zip(sends, columns, strict=True)):
        for field, column in zip([0, *(1 + np.flatnonzero(own))], told, strict=True):
            places[backend, field] = len(sent)
            sent += column
    shape = (len(lists), documents)
    ranks, scores, known = (
        np.zeros(shape, np.int32),
        np.full(shape, np.nan),
        np.full((fields, documents), np.nan),
    )
    rows, starts = np.array(list(chain.from_iterable(lists)), np.intp), np.cumsum([0, *map(len, lists)])
    counts = gather(rows, starts, np.array(sent, np.float64), places, ranks, scores, known)
    return ranks, scores, known, *counts


@given(st.data())
def test_votes_are_added_group_by_group(data: st.DataObject) -> None:
    """Of a group only the strongest vote counts, each weighed; one that is absent votes nothing."""
    backends, documents = data.draw(st.integers(1, 4)), data.draw(st.integers(0, 4))
    ranks = np.array(
        [[data.draw(st.integers(0, 9)) for _ in range(documents)] for _ in range(backends)], np.int32
    ).reshape(backends, documents)
    weights = np.array([data.draw(st.floats(0, 2)) for _ in range(backends)])
    names = [data.draw(st.sampled_from("ab")) for _ in range(backends)]
    order = list(dict.fromkeys(names))
    fused = add_votes(by_rank(ranks, 60.0), weights, np.array([order.index(name) for name in names], np.intp))
    votes = np.divide(1.0, 60.0 + ranks, where=ranks > 0, out=np.zeros(ranks.shape)) * weights[:, None]
    strongest = [votes[[name == group for name in names]].max(axis=0) for group in order]
    assert fused.tolist() == sum(strongest).tolist()


_WITHOUT_CACHE = """
import numba
njit = numba.njit
def without_cache(*given, **chosen):
    if chosen.get("cache"):
        raise RuntimeError("cannot cache function: no locator available")
    return njit(*given, **chosen)
numba.njit = without_cache
from mixer import gather
gather.warm()
"""


def test_without_a_folder_for_machine_code_lists_are_gathered() -> None:
    """A read-only home and package must not keep Mixer from starting."""
    told = subprocess.run([sys.executable, "-c", _WITHOUT_CACHE], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert "NUMBA_CACHE_DIR" in told.stderr
