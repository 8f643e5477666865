"""Replies to candidates: one row a document, every backend's rank and score kept, and a fused order.

Fusion by weighted reciprocal rank: Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and
individual rank learning methods", SIGIR 2009; or by a weighted sum of normalized scores: Fox and Shaw, "Combination
of multiple searches", TREC-2 1994, with a known scale instead of the list's own minimum, after Bruch, Gai and Ingber,
"An analysis of fusion functions for hybrid retrieval", TOIS 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn, Hits
from mixer.gather import add_votes, by_rank, gather
from mixer.schema import BackendFeature
from mixer.settings import MixBackendSettings, MixSettings, RrfSettings
from mixer.values import Candidates, Drop, IntColumn, Plan, Reply, TextColumn

_Z_REACH = 3.0
"""Standard deviations from the mean that count as the whole scale."""
_Z_LEAST_SPREAD = 0.05
"""Least standard deviation, as a share of the scale: a flat list is not blown up into noise."""


class Merge:
    """The stage: rows stand in the order of the ids, so that the order of arrival cannot matter."""

    def __init__(self, mix: MixSettings) -> None:
        """Takes the mix whose fusion it does."""
        self._fusion = mix.fusion
        self._normalize = _NORMALIZERS[mix.fusion.normalize] if _normalizes(mix) else _nothing
        members = list(mix.backends.values())
        self._limits = [member.limit for member in members]
        self._weights = np.array([member.weight for member in members])
        self._low = np.array([[member.bounds.low] for member in members])
        self._high = np.array([[np.nan if m.bounds.high is None else m.bounds.high] for m in members])
        self._groups = _vote_groups(mix.backends)

    def __call__(self, plan: Plan, replies: Sequence[Reply]) -> Candidates:
        """Candidates of all replies that have hits; b rows for all b backends of the mix."""
        lists = [reply.hits or _NO_HITS for reply in replies]
        heads = [hits.ids[:limit] for hits, limit in zip(lists, self._limits, strict=True)]
        told = list(chain.from_iterable(heads))
        ids = sorted(set(told))
        place = dict(zip(ids, range(len(ids)), strict=True))
        rows = np.fromiter(map(place.__getitem__, told), np.intp, len(told))
        starts = np.array([0, *accumulate(map(len, heads))], np.intp)
        names, places = _laid_out(tuple((len(hits), tuple(hits.numbers)) for hits in lists))
        sent = np.concatenate([hits.columns() for hits in lists])
        ranks = np.zeros((len(lists), len(ids)), np.int32)
        unknown = np.full((len(lists) + len(names), len(ids)), np.nan)
        scores, known = unknown[: len(lists)], unknown[len(lists) :]
        repeated, odd = gather(rows, starts, sent, places, ranks, scores, known)
        normalized = self._normalize(scores, self._low, self._high)
        fused = self._fuse(ranks, normalized)
        return Candidates(
            ids=ids,
            backends=tuple(reply.backend for reply in replies),
            ranks=ranks,
            scores=scores,
            normalized=normalized,
            fused=fused,
            prior=np.argsort(-fused, kind="stable"),
            numbers=dict(zip(names, known, strict=True)),
            texts=_first_known_texts(lists, rows, starts, len(ids)),
            drops=_drops(replies, heads, repeated, odd),
        )

    def _fuse(self, ranks: NDArray[np.int32], normalized: FloatColumn) -> FloatColumn:
        """Sum over the vote groups of the strongest vote in each (n,)."""
        return add_votes(self._votes(ranks, normalized), self._weights, self._groups)

    def _votes(self, ranks: NDArray[np.int32], normalized: FloatColumn) -> FloatColumn:
        """What each backend says of each row (b, n), unweighted."""
        rule = self._fusion
        votes: FloatColumn = (
            by_rank(ranks, rule.k) if isinstance(rule, RrfSettings) else np.nan_to_num(normalized)
        )
        return votes

    def counted_votes(self, candidates: Candidates) -> FloatColumn:
        """What each backend's vote adds to the fused scores (b, n): 0 where another of its group is stronger."""
        votes: FloatColumn = self._votes(candidates.ranks, candidates.normalized) * self._weights[:, None]
        counted: FloatColumn = np.zeros_like(votes)
        columns = np.arange(votes.shape[1])
        for number in range(self._groups.max() + 1):
            group = np.flatnonzero(self._groups == number)
            strongest = group[votes[group].argmax(axis=0)]
            counted[strongest, columns] = votes[strongest, columns]
        return counted


@lru_cache(256)
def _laid_out(sent: tuple[tuple[int, tuple[str, ...]], ...]) -> tuple[list[str], IntColumn]:
    """Of backends that each sent so many hits with these numeric fields: all fields, and where the columns begin.

    The columns stand one after the other: backend by backend its scores, then its fields (b, 1 + k); -1 for none.
    """
    names = list(dict.fromkeys(name for _, own in sent for name in own))
    places, end = np.full((len(sent), 1 + len(names)), -1, np.intp), 0
    for backend, (hits, own) in enumerate(sent):
        columns = [0, *(1 + names.index(name) for name in own)]
        places[backend, columns] = end + hits * np.arange(len(columns))
        end += len(columns) * hits
    return names, places


def _drops(
    replies: Sequence[Reply], heads: Sequence[list[str]], repeated: IntColumn, odd: IntColumn
) -> tuple[Drop, ...]:
    found = zip(replies, heads, repeated.tolist(), odd.tolist(), strict=True)
    counts = [
        (("over_limit", len(reply.hits or ()) - len(head)), ("repeated", again), ("score_not_finite", other))
        for reply, head, again, other in found
    ]
    return tuple(
        Drop(reason, count, reply.backend)
        for reply, own in zip(replies, counts, strict=True)
        for reason, count in own
        if count
    )


_NO_HITS = Hits([], np.empty(0))


def _vote_groups(members: Mapping[str, MixBackendSettings]) -> IntColumn:
    """(b,): the number of each backend's group, in the order of their first."""
    keys = [f"group {member.group}" if member.group else f"alone {name}" for name, member in members.items()]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], np.intp)


def _min_max(scores: FloatColumn, low: FloatColumn, high: FloatColumn) -> FloatColumn:
    """Scores on the scale from `low` to the best score or `high`, whichever is more; 0 to 1."""
    top = _scale_top(scores, low, high)
    # Scales near the ends of what a float holds, or of no length.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        shares = np.maximum(np.fmin((scores - low) / (top - low), 1.0), 0.0)
    return np.where(np.isnan(scores), np.nan, np.where(top > low, shares, 0.0))


def _z_score(scores: FloatColumn, low: FloatColumn, high: FloatColumn) -> FloatColumn:
    """Standard deviations from the mean, cut at 3 either way and brought to 0 to 1; a flat list is 0.5."""
    least = _Z_LEAST_SPREAD * np.maximum(_scale_top(scores, low, high) - low, 1e-12)
    return np.array([_deviations(row, float(spread)) for row, [spread] in zip(scores, least, strict=True)])


def _deviations(scores: FloatColumn, least: float) -> FloatColumn:
    known = scores[~np.isnan(scores)]
    if not len(known):
        return scores
    with np.errstate(over="ignore", invalid="ignore"):  # scores near the end of the scale: no deviation
        deviations = np.nan_to_num((scores - known.mean()) / max(float(known.std()), least))
    return np.where(np.isnan(scores), np.nan, np.clip(deviations / (2 * _Z_REACH) + 0.5, 0.0, 1.0))


def _scale_top(scores: FloatColumn, low: FloatColumn, high: FloatColumn) -> FloatColumn:
    """(b, 1): the best known score, or `low` where there is none; at least `high` where that is known."""
    best = np.fmax.reduce(scores, axis=1, keepdims=True, initial=np.nan)
    return np.fmax(np.where(np.isnan(best), low, best), high)


def _nothing(scores: FloatColumn, low: FloatColumn, high: FloatColumn) -> FloatColumn:
    """For mixes that read no normalized score."""
    return np.empty((len(scores), 0))


def _normalizes(mix: MixSettings) -> bool:
    read = any(
        isinstance(feature, BackendFeature) and feature.value == "normalized" for feature in mix.features
    )
    return read or not isinstance(mix.fusion, RrfSettings)


_NORMALIZERS: Mapping[str, Callable[[FloatColumn, FloatColumn, FloatColumn], FloatColumn]] = {
    "min_max": _min_max,
    "z_score": _z_score,
}


def _first_known_texts(
    lists: Sequence[Hits], rows: IntColumn, starts: IntColumn, n: int
) -> dict[str, TextColumn]:
    """Text columns (n,), each value from the first backend (in the mix's order) that knows it."""
    columns: dict[str, TextColumn] = {}
    for backend in reversed(range(len(lists))):
        start, end = starts[backend], starts[backend + 1]
        for name, sent in lists[backend].texts.items():
            # From the last to the first: of a document that is repeated, the first stays.
            row, texts = rows[start:end][::-1], np.array(sent[: end - start], object)[::-1]
            column = columns.setdefault(name, np.full(n, "", object))
            column[row] = np.where(texts != "", texts, column[row])
    return columns
