"""Numbers of a query as a server's types hold them."""

import math

import pytest

from backends import bounds
from backends.base import Range


@pytest.mark.parametrize(
    ("kind", "values", "held"),
    [
        ("integer", (1, 2.0, 2.5, 2**31, -(2**31), math.inf), [1, 2, -(2**31)]),
        ("unsigned_long", (-1.0, 0.0, 2.0**63), [0, 2**63]),
        ("float", (0.5, 1e39, -1e39), [0.5]),
        ("half_float", (65504.0, 65505.0), [65504.0]),
        ("double", (1e308, math.inf, -math.inf), [1e308]),
    ],
)
def test_values(kind: str, values: tuple[float, ...], held: list[float]) -> None:
    """A value is kept where the type can hold it, a whole number as one."""
    found = bounds.held(values, kind)
    assert found == held
    assert all(isinstance(value, int) is (kind in bounds.WHOLE) for value in found)


@pytest.mark.parametrize(
    ("kind", "condition", "ends"),
    [
        ("integer", Range(0.5, 2.5), (1, 2)),
        ("integer", Range(-1e300, 1e300), (None, None)),
        ("integer", Range(min=1e10), None),
        ("short", Range(max=-40_000.0), None),
        ("double", Range(), (None, None)),
        ("double", Range(-math.inf, math.inf), (None, None)),
        ("double", Range(min=math.inf), None),
        ("double", Range(max=-math.inf), None),
        ("double", Range(2.0, 1.0), None),
        ("float", Range(-1e39, 0.25), (None, 0.25)),
    ],
)
def test_ranges(kind: str, condition: Range, ends: tuple[float | None, float | None] | None) -> None:
    """An end beyond the type is open, or lets nothing through; between whole numbers there is nothing."""
    assert bounds.ends(condition, kind) == ends
