"""Numbers of a query as a server's types hold them: what a type cannot hold no document has, so it is no error.

Types are called as OpenSearch calls them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from backends.base import Range

WHOLE = {
    "byte": (-(2**7), 2**7 - 1),
    "short": (-(2**15), 2**15 - 1),
    "integer": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
    "unsigned_long": (0, 2**64 - 1),
}
"""The least and the most of types of whole numbers."""
FRACTIONAL = {
    "half_float": 65504.0,
    "float": float(np.finfo(np.float32).max),
    "double": math.inf,
    "scaled_float": math.inf,
}
"""The most of types of fractional numbers, of either sign."""


def held(values: Iterable[str | float], kind: str) -> list[float]:
    """The values that the type can hold, as it holds them."""
    numbers = [float(value) for value in values]
    if kind in WHOLE:
        low, high = WHOLE[kind]
        return [int(value) for value in numbers if value.is_integer() and low <= int(value) <= high]
    return [value for value in numbers if math.isfinite(value) and abs(value) <= FRACTIONAL[kind]]


def ends(condition: Range, kind: str) -> tuple[float | None, float | None] | None:
    """The ends of a range, None for one that is open as far as the type goes; None at all where nothing is inside."""
    least, most = WHOLE.get(kind) or (-FRACTIONAL[kind], FRACTIONAL[kind])
    low = -math.inf if condition.min is None else condition.min
    high = math.inf if condition.max is None else condition.max
    if low > high or low > most or high < least or low == math.inf or high == -math.inf:
        return None
    up, down = (math.ceil, math.floor) if kind in WHOLE else (float, float)
    return up(low) if low > least else None, down(high) if high < most else None
