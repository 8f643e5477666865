"""What an arm did lately beside the control, and whether that is past a bound for more than chance. Pure.

Shares are compared by Newcombe's score interval for a difference (Statistics in Medicine 17, 1998, method 10),
quantiles by order statistics, which assume nothing of how times are spread. An arm is judged again and again: limits
stand 3.29 standard errors out, where chance passes one of them once in two thousand independent looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, sqrt
from typing import Literal

import numpy as np

from backends.base import FloatColumn
from mixer.experiment_settings import CanarySettings
from mixer.stability import psi

ROWS = 16_384
"""Requests of one arm that are remembered at most."""
_Z, _QUANTILE = 3.29, 0.95

Reason = Literal["errors", "fallbacks", "latency", "scores", "clicks"]


@dataclass(frozen=True, slots=True)
class Figures:
    """An arm's requests of a stretch of time."""

    requests: int
    failed: int
    fell_back: int
    added_s: FloatColumn
    """Ascending, of those answered."""
    score_shift: float
    """Population stability index of the scores against the model's own profile; 0 where there is none."""
    score_noise: float
    """What that index may be by chance, were all scores of a request one draw."""
    seen: int
    """Requests whose hits were seen, where feedback tells."""
    clicked: int


@dataclass(frozen=True, slots=True)
class Breach:
    """A bound that an arm is past: its figure, the control's, the bound, and over how many requests of each."""

    reason: Reason
    figure: float
    control: float
    bound: float
    requests: int
    control_requests: int

    def __str__(self) -> str:
        """In a sentence."""
        return (
            f"{self.reason}: {self.figure:.4g} beside the control's {self.control:.4g}, past the bound "
            f"{self.bound:g}, over {self.requests} and {self.control_requests} requests"
        )


class Window:
    """The last requests of one arm, a row each; `edges` and `shares` are its model's score profile."""

    def __init__(self, edges: Sequence[float] = (), shares: Sequence[float] = ()) -> None:
        """Empty; without a profile scores are not looked at."""
        self._edges, self._shares = np.array(edges, np.float64), np.array(shares, np.float64)
        self._at_s, self._added_s = np.full(ROWS, -inf), np.full(ROWS, np.nan)
        self._failed, self._fell_back, self._seen, self._clicked = np.zeros((4, ROWS), bool)
        self._bins = np.zeros((ROWS, len(self._shares)), np.int32)
        self._ids, self._rows = [""] * ROWS, dict[str, int]()
        self._next = 0

    @property
    def from_s(self) -> float:
        """What was before is forgotten."""
        return float(self._at_s[self._next])

    def failed(self, at_s: float) -> None:
        """A request got no answer."""
        self._failed[self._add(at_s, "")] = True

    def answered(self, at_s: float, query_id: str, added_s: float, scores: FloatColumn | None) -> None:
        """A request was answered: by the model, or in fused order though a model should have ranked (None)."""
        row = self._add(at_s, query_id)
        self._added_s[row], self._fell_back[row] = added_s, scores is None
        if scores is not None and len(self._shares):
            bins = np.searchsorted(self._edges, scores[np.isfinite(scores)])
            self._bins[row] = np.bincount(bins, minlength=len(self._shares))

    def saw(self, query_id: str, clicked: bool) -> bool:
        """The answer was seen, or one of its hits clicked; whether the request is remembered here."""
        row = self._rows.get(query_id)
        if row is None:
            return False
        self._seen[row] = True
        self._clicked[row] |= clicked
        return True

    def figures(self, since_s: float) -> Figures:
        """What happened since."""
        rows = self._at_s > since_s
        answered = rows & ~self._failed
        free = max(len(self._shares) - 1, 0)
        bins = self._bins[answered].sum(axis=0)
        return Figures(
            requests=int(rows.sum()),
            failed=int(self._failed[rows].sum()),
            fell_back=int(self._fell_back[answered].sum()),
            added_s=np.sort(self._added_s[answered]),
            score_shift=psi(self._shares, bins) if bins.any() else 0.0,
            score_noise=(free + _Z * sqrt(2 * free)) / max(int(answered.sum()), 1),
            seen=int(self._seen[answered].sum()),
            clicked=int(self._clicked[answered].sum()),
        )

    def _add(self, at_s: float, query_id: str) -> int:
        row = self._next
        self._next = (row + 1) % ROWS
        if self._rows.get(self._ids[row]) == row:
            del self._rows[self._ids[row]]
        self._ids[row], self._at_s[row], self._added_s[row] = query_id, at_s, np.nan
        self._failed[row] = self._fell_back[row] = self._seen[row] = self._clicked[row] = False
        self._bins[row] = 0
        if query_id:
            self._rows[query_id] = row
        return row


def judge(bounds: CanarySettings, arm: Figures, control: Figures) -> Breach | None:
    """The first bound that the arm is past, or None: also where there is too little to tell by."""
    if min(arm.requests, control.requests) < bounds.min_requests:
        return None
    return next(_breaches(bounds, arm, control), None)


def _breaches(bounds: CanarySettings, arm: Figures, control: Figures) -> Iterator[Breach]:
    counts = arm.requests, control.requests
    shares: tuple[tuple[Reason, int, int, float | None], ...] = (
        ("errors", arm.failed, control.failed, bounds.error_share),
        ("fallbacks", arm.fell_back, control.fell_back, bounds.fallback_share),
    )
    for reason, ours, theirs, bound in shares:
        if bound is not None and _least_rise((ours, counts[0]), (theirs, counts[1])) > bound:
            yield Breach(reason, ours / counts[0], theirs / counts[1], bound, *counts)
    if bounds.latency_ratio is not None:
        ours_s, theirs_s = _quantile_limits(arm.added_s)[0], _quantile_limits(control.added_s)[1]
        if ours_s > theirs_s * bounds.latency_ratio:
            yield Breach(
                "latency", _quantile(arm.added_s), _quantile(control.added_s), bounds.latency_ratio, *counts
            )
    shift = arm.score_shift - control.score_shift - arm.score_noise
    if bounds.score_shift is not None and shift > bounds.score_shift:
        yield Breach("scores", arm.score_shift, control.score_shift, bounds.score_shift, *counts)
    if bounds.ctr_drop is not None and min(arm.seen, control.seen) >= bounds.min_requests:
        drop = _least_rise((control.clicked, control.seen), (arm.clicked, arm.seen))
        if drop > bounds.ctr_drop:
            rates = arm.clicked / arm.seen, control.clicked / control.seen
            yield Breach("clicks", *rates, bounds.ctr_drop, arm.seen, control.seen)


def _least_rise(ours: tuple[int, int], theirs: tuple[int, int]) -> float:
    """By how much our share (count, of) is above theirs at least, chance left out."""
    low, high = _wilson(*ours)[0], _wilson(*theirs)[1]
    p, q = ours[0] / ours[1], theirs[0] / theirs[1]
    return p - q - sqrt((p - low) ** 2 + (high - q) ** 2)


def _wilson(count: int, of: int) -> tuple[float, float]:
    """Limits of a share (Wilson 1927)."""
    share, z2 = count / of, _Z * _Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = _Z / (1 + z2 / of) * sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return middle - half, middle + half


def _quantile(ascending: FloatColumn) -> float:
    return float(np.quantile(ascending, _QUANTILE)) if len(ascending) else 0.0


def _quantile_limits(ascending: FloatColumn) -> tuple[float, float]:
    """Limits of the quantile: 0 and infinity where the values are too few to tell."""
    n = len(ascending)
    middle, spread = n * _QUANTILE, _Z * sqrt(n * _QUANTILE * (1 - _QUANTILE))
    low, high = floor(middle - spread) - 1, ceil(middle + spread)
    return float(ascending[low]) if low >= 0 else 0.0, float(ascending[high]) if high < n else inf
