"""Replies to candidates: one row a document, every backend's rank and score kept, and a fused order.

Fusion by weighted reciprocal rank: Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and
individual rank learning methods", SIGIR 2009; or by a weighted sum of normalized scores: Fox and Shaw, "Combination
of multiple searches", TREC-2 1994, with a known scale instead of the list's own minimum, after Bruch, Gai and Ingber,
"An analysis of fusion functions for hybrid retrieval", TOIS 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn, Hits
from mixer.gather import gather
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
        self._members = mix.backends
        self._fusion = mix.fusion
        self._normalize = _NORMALIZERS[mix.fusion.normalize] if _normalizes(mix) else _nothing
        members = list(mix.backends.values())
        self._weights = np.array([[member.weight] for member in members])
        self._low = np.array([[member.bounds.low] for member in members])
        self._high = np.array([[np.nan if m.bounds.high is None else m.bounds.high] for m in members])
        self._groups = _vote_groups(mix.backends)

    def __call__(self, plan: Plan, replies: Sequence[Reply]) -> Candidates:
        """Candidates of all replies that have hits; b rows for all b backends of the mix."""
        lists = [_Listed.of(reply, self._members[reply.backend].limit) for reply in replies]
        hits = list(chain.from_iterable(listed.ids for listed in lists))
        ids = sorted(set(hits))
        place = dict(zip(ids, range(len(ids)), strict=True))
        rows = np.fromiter(map(place.__getitem__, hits), np.intp, len(hits))
        starts = np.array([0, *accumulate(len(listed.ids) for listed in lists)], np.intp)
        names = list(dict.fromkeys(name for listed in lists for name in listed.names))
        ranks, scores = np.zeros((len(lists), len(ids)), np.int32), np.full((len(lists), len(ids)), np.nan)
        known = np.full((len(names), len(ids)), np.nan)
        sent_scores = np.concatenate([listed.scores for listed in lists])
        sent = np.concatenate([listed.columns(names) for listed in lists], axis=1)
        odd = gather(rows, starts, sent_scores, sent, ranks, scores, known).tolist()
        normalized = self._normalize(scores, self._low, self._high)
        fused = self._fuse(ranks, normalized)
        return Candidates(
            ids=ids,
            backends=tuple(listed.backend for listed in lists),
            ranks=ranks,
            scores=scores,
            normalized=normalized,
            fused=fused,
            prior=np.argsort(-fused, kind="stable"),
            numbers=dict(zip(names, known, strict=True)),
            texts=_first_known_texts(lists, rows, starts, len(ids)),
            drops=_drops(lists, odd),
        )

    def _fuse(self, ranks: NDArray[np.int32], normalized: FloatColumn) -> FloatColumn:
        """Sum over the vote groups of the strongest vote in each (n,)."""
        if isinstance(self._fusion, RrfSettings):
            votes = np.where(ranks > 0, 1.0 / (self._fusion.k + ranks), 0.0)
        else:
            votes = np.nan_to_num(normalized)
        votes *= self._weights
        if len(self._groups) < len(votes):
            votes = np.stack([votes[group].max(axis=0) for group in self._groups])
        fused: FloatColumn = votes.sum(axis=0)
        return fused


@dataclass(frozen=True, slots=True)
class _Listed:
    """One reply's n hits within its limit, each document once."""

    backend: str
    ids: list[str]
    scores: FloatColumn
    names: list[str]
    """Of the numeric fields."""
    numbers: FloatColumn
    """(names, n)"""
    texts: Mapping[str, TextColumn]
    over_limit: int
    repeated: int

    @classmethod
    def of(cls, reply: Reply, limit: int) -> _Listed:
        hits = reply.hits or _NO_HITS
        ids = hits.ids[:limit]
        repeated = len(ids) - len(set(ids))
        keep = _first_of_each(ids) if repeated else slice(len(ids))
        return cls(
            backend=reply.backend,
            ids=np.array(ids, object)[keep].tolist() if repeated else ids,
            scores=hits.scores[keep],
            names=list(hits.numbers),
            numbers=np.array(list(hits.numbers.values())).reshape(len(hits.numbers), len(hits))[:, keep],
            texts={name: np.array(column, object)[keep] for name, column in hits.texts.items()},
            over_limit=len(hits) - len(ids),
            repeated=repeated,
        )

    def columns(self, names: list[str]) -> FloatColumn:
        """The numeric fields in this order (names, n), NaN for those not sent."""
        if names == self.names:
            return self.numbers
        held = dict(zip(self.names, self.numbers, strict=True))
        missing = np.full(len(self.ids), np.nan)
        return np.array([held.get(name, missing) for name in names]).reshape(len(names), len(self.ids))


def _drops(lists: Sequence[_Listed], odd: Sequence[int]) -> tuple[Drop, ...]:
    counts = [
        (listed.backend, reason, count)
        for listed, not_finite in zip(lists, odd, strict=True)
        for reason, count in (
            ("over_limit", listed.over_limit),
            ("repeated", listed.repeated),
            ("score_not_finite", not_finite),
        )
    ]
    return tuple(Drop(reason, count, backend) for backend, reason, count in counts if count)


_NO_HITS = Hits([], np.empty(0))


def _first_of_each(ids: Sequence[str]) -> IntColumn:
    """Places at which an id stands for the first time, in order."""
    last = {id_: place for place, id_ in zip(range(len(ids) - 1, -1, -1), reversed(ids), strict=True)}
    return np.sort(np.fromiter(last.values(), np.intp, len(last)))


def _vote_groups(members: Mapping[str, MixBackendSettings]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for b, (name, member) in enumerate(members.items()):
        groups.setdefault(f"group {member.group}" if member.group else f"alone {name}", []).append(b)
    return list(groups.values())


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
    lists: Sequence[_Listed], rows: IntColumn, starts: IntColumn, n: int
) -> dict[str, TextColumn]:
    """Text columns (n,), each value from the first backend (in the mix's order) that knows it."""
    columns: dict[str, TextColumn] = {}
    for listed, start in zip(reversed(lists), reversed(starts[:-1].tolist()), strict=True):
        row = rows[start : start + len(listed.ids)]
        for name, sent in listed.texts.items():
            column = columns.setdefault(name, np.full(n, "", object))
            column[row] = np.where(sent != "", sent, column[row])
    return columns
