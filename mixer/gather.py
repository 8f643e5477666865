"""The numbers of merged lists, gathered in one compiled loop: many small array operations cost more than the work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn
from mixer.values import IntColumn
from mixer.walk import compiled


@compiled
def gather(
    rows: IntColumn,
    starts: IntColumn,
    scores: FloatColumn,
    numbers: FloatColumn,
    ranks: NDArray[np.int32],
    known_scores: FloatColumn,
    known: FloatColumn,
) -> IntColumn:
    """Fill what is known of n documents from the h hits of b backends, and count scores that are not finite (b,).

    `rows` (h,) are the hits' documents, `starts` (b + 1,) where each backend's hits begin; `scores` (h,); `numbers`
    (k, h). Filled: `ranks` (b, n), zeros before; `known_scores` (b, n) and `known` (k, n), NaN before. Of several
    finite values of a document the first backend's is kept.
    """
    odd = np.zeros(len(starts) - 1, np.intp)
    for backend in range(len(starts) - 1):
        for hit in range(starts[backend], starts[backend + 1]):
            ranks[backend, rows[hit]] = hit - starts[backend] + 1
            if np.isfinite(scores[hit]):
                known_scores[backend, rows[hit]] = scores[hit]
            else:
                odd[backend] += 1
    for column in range(len(numbers)):
        for hit in range(len(rows)):
            if np.isfinite(numbers[column, hit]) and np.isnan(known[column, rows[hit]]):
                known[column, rows[hit]] = numbers[column, hit]
    return odd


def warm() -> None:
    """Compile the loop, or load it compiled; seconds the first time on a machine."""
    none = np.empty(0)
    starts = np.zeros(2, np.intp)
    gather(starts[:0], starts, none, none.reshape(0, 0), np.zeros((1, 0), np.int32), *np.empty((2, 1, 0)))
