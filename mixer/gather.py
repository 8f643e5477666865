"""The numbers of merged lists, gathered in compiled loops: many small array operations cost more than the work."""

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
    sent: FloatColumn,
    places: NDArray[np.intp],
    ranks: NDArray[np.int32],
    scores: FloatColumn,
    known: FloatColumn,
) -> tuple[IntColumn, IntColumn]:
    """Fill what is known of n documents from the h hits of b backends.

    `rows` (h,) are the hits' documents, `starts` (b + 1,) where each backend's hits begin; `sent` holds what the
    backends sent, and `places` (b, 1 + k) tell where in it each one's scores begin and its values of each field, -1
    for a field that it did not send. Filled: `ranks` (b, n), zeros before; `scores` (b, n) and `known` (k, n), NaN
    before. Of a backend's repeats of a document the first is kept, of several finite values of a document the first
    backend's. Returns the repeats and the scores that are not finite (b,).
    """
    repeated, odd = np.zeros(len(places), np.intp), np.zeros(len(places), np.intp)
    for backend in range(len(places)):
        for hit in range(starts[backend + 1] - starts[backend]):
            row = rows[starts[backend] + hit]
            if ranks[backend, row]:
                repeated[backend] += 1
                continue
            ranks[backend, row] = hit + 1 - repeated[backend]
            score = sent[places[backend, 0] + hit]
            if np.isfinite(score):
                scores[backend, row] = score
            else:
                odd[backend] += 1
            for field in range(len(known)):
                place = places[backend, 1 + field]
                if place >= 0 and np.isnan(known[field, row]) and np.isfinite(sent[place + hit]):
                    known[field, row] = sent[place + hit]
    return repeated, odd


@compiled
def by_rank(ranks: NDArray[np.int32], k: float) -> FloatColumn:
    """Votes (b, n) of ranks (b, n): the reciprocal of `k` and the rank, 0 for absent."""
    votes = np.zeros(ranks.shape)
    for backend in range(len(ranks)):
        for row in range(ranks.shape[1]):
            if ranks[backend, row]:
                votes[backend, row] = 1.0 / (k + ranks[backend, row])
    return votes


@compiled
def add_votes(votes: FloatColumn, weights: FloatColumn, groups: IntColumn) -> FloatColumn:
    """Sum (n,) over the groups, numbered from 0 in the order of their first backend, of the strongest vote in each.

    Votes are (b, n), not negative, weights and groups (b,).
    """
    strongest = np.zeros((groups.max() + 1, votes.shape[1]))
    for backend in range(len(votes)):
        for row in range(votes.shape[1]):
            vote = votes[backend, row] * weights[backend]
            strongest[groups[backend], row] = max(strongest[groups[backend], row], vote)
    fused = np.zeros(votes.shape[1])
    for group in range(len(strongest)):
        fused += strongest[group]
    return fused


def warm() -> None:
    """Compile the loops, or load them compiled; seconds the first time on a machine."""
    none, starts = np.empty(0), np.zeros(2, np.intp)
    ranks = np.zeros((1, 0), np.int32)
    gather(starts[:0], starts, none, np.zeros((1, 1), np.intp), ranks, *np.empty((2, 1, 0)))
    add_votes(by_rank(ranks, 1.0), np.ones(1), np.zeros(1, np.intp))
