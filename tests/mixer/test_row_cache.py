from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backends.stores.base import Rows
from mixer.row_cache import RowCache

KEYS = [f"k{number}" for number in range(6)]


def rows(*values: float) -> Rows:
    """One field; NaN stands for a row that is not there."""
    column = np.array(values, np.float64).reshape(-1, 1)
    return Rows(column, ~np.isnan(column[:, 0]))


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_was_put_is_there() -> None:
    """Values and absences are known, other keys are not."""
    cache = RowCache(4, 1, 10)
    cache.put(["a", "b"], rows(1.5, np.nan))
    values, found, known = cache.get(["b", "c", "a"])
    np.testing.assert_array_equal(values, [[np.nan], [np.nan], [1.5]])
    assert (found.tolist(), known.tolist()) == ([False, False, True], [True, False, True])


def test_its_time_is_up() -> None:
    """A row is known for its time, and from anew when it is put again."""
    clock = Clock()
    cache = RowCache(4, 1, 10, clock)
    cache.put(["a"], rows(1))
    clock.now_s = 9.9
    assert cache.get(["a"])[2].tolist() == [True]
    clock.now_s = 10.0
    assert cache.get(["a"])[2].tolist() == [False]
    cache.put(["a"], rows(2))
    assert cache.get(["a"])[0].tolist() == [[2.0]]


def test_the_oldest_makes_room() -> None:
    """One more than there is room for takes the place of the first that came."""
    cache = RowCache(2, 1, 10)
    for number, key in enumerate("abc"):
        cache.put([key], rows(number))
    assert cache.get(["a", "b", "c"])[2].tolist() == [False, True, True]


def test_no_room_keeps_nothing() -> None:
    """A size of 0 turns it off; no keys are no rows."""
    cache = RowCache(0, 2, 10)
    cache.put(["a"], Rows(np.ones((1, 2)), np.ones(1, np.bool_)))
    values, _, known = cache.get(["a"])
    assert (values.shape, known.tolist()) == ((1, 2), [False])
    assert cache.get([])[0].shape == (0, 2)


@given(
    st.integers(1, 8),
    st.lists(st.tuples(st.lists(st.sampled_from(KEYS), unique=True), st.floats(0, 4)), max_size=30),
)
def test_it_never_tells_another_s_row(size: int, puts: list[tuple[list[str], float]]) -> None:
    """Whatever was put, in whatever order and with whatever room: what is known is the key's own latest row, not older
    than its time; nothing but room and time makes it forget."""
    clock = Clock()
    cache, latest = RowCache(size, 1, 10, clock), dict[str, tuple[float, float]]()
    for number, (keys, later_s) in enumerate(puts):
        clock.now_s += later_s
        told = [number * 10.0 + place for place in range(len(keys))]
        cache.put(keys, rows(*told))
        latest |= {key: (value, clock.now_s) for key, value in zip(keys, told, strict=True)}
    values, found, known = cache.get(KEYS)
    for place, key in enumerate(KEYS):
        value, at_s = latest.get(key, (np.nan, -np.inf))
        fresh = at_s + 10 > clock.now_s
        if known[place]:
            assert (values[place, 0], found[place], fresh) == (value, True, True)
        elif size >= len(KEYS):
            assert not fresh
