"""The numbers of merged lists, held against the plainest way to gather them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mixer.gather import gather

FLOATS = st.floats(allow_nan=True, allow_infinity=True)


@given(st.data())
def test_gathering_is_what_a_dictionary_would_do(data: st.DataObject) -> None:
    """Ranks by place, finite scores, and of each document's numbers the first backend's that is finite."""
    documents = data.draw(st.integers(1, 6))
    lists = data.draw(
        st.lists(st.permutations(range(documents)).map(lambda p: p[: len(p) // 2 + 1]), max_size=4)
    )
    hits = [row for listed in lists for row in listed]
    scores = np.array([data.draw(FLOATS) for _ in hits])
    numbers = np.array([[data.draw(FLOATS) for _ in hits] for _ in range(2)]).reshape(2, len(hits))
    starts = np.cumsum([0, *map(len, lists)])
    shape = (len(lists), documents)
    ranks, kept, known = np.zeros(shape, np.int32), np.full(shape, np.nan), np.full((2, documents), np.nan)
    odd = gather(np.array(hits, np.intp), starts, scores, numbers, ranks, kept, known)
    for backend, listed in enumerate(lists):
        own = scores[starts[backend] : starts[backend + 1]]
        for place, row in enumerate(listed):
            assert ranks[backend, row] == place + 1
            np.testing.assert_equal(kept[backend, row], own[place] if np.isfinite(own[place]) else np.nan)
        assert odd[backend] == np.count_nonzero(~np.isfinite(own))
        assert (ranks[backend] > 0).sum() == len(listed)
    for column in range(2):
        for row in range(documents):
            values = [v for v, r in zip(numbers[column], hits, strict=True) if r == row and np.isfinite(v)]
            np.testing.assert_equal(known[column, row], values[0] if values else np.nan)


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
