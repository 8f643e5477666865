"""How far what is served has moved from what was trained on: the population stability index (PSI).

PSI = sum over the bins of (served - trained) * ln(served / trained), a symmetric Kullback-Leibler divergence (Kullback
and Leibler, "On information and sufficiency", 1951) as credit scoring uses it: below 0.1 little has changed, above
0.25 much has (Siddiqi, "Credit Risk Scorecards", 2006). Without any drift its mean is (bins - 1) * (1/n + 1/m) for n
served and m trained observations (Yurdakul and Naranjo, "Statistical properties of the population stability index",
Journal of Risk Model Validation, 2020), which says how many answers it takes to tell drift from chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from backends.base import FloatColumn
from mixer.manifest import Manifest, Profile

LEAST_SHARE = 1e-4
"""Stands in for a smaller share, an empty bin's too: the index stays finite."""


def psi(trained: Sequence[float], served: Sequence[float]) -> float:
    """The index of two lists of bins, counts or shares. Raises: ValueError where they do not fit or one is empty."""
    if len(trained) != len(served):
        raise ValueError(f"{len(trained)} bins beside {len(served)}")
    old, new = _shares(trained), _shares(served)
    return float(np.sum((new - old) * np.log(new / old)))


def _shares(bins: Sequence[float]) -> FloatColumn:
    counts = np.array(bins, np.float64)
    if not counts.sum() > 0:
        raise ValueError("no bin holds anything")
    shares: FloatColumn = np.maximum(counts / counts.sum(), LEAST_SHARE)
    return shares


def shares_of(profile: Profile) -> list[float]:
    """The trained shares of a profile's bins, and last of what was missing."""
    return [*profile.shares, profile.missing]


def answers_needed(manifest: Manifest, bound: float) -> int | None:
    """How many answers it takes until chance makes up at most half of this bound; None where none are enough.

    Rows of one answer are alike, so an answer counts as one observation, and so does a training query.
    """
    profiles = (manifest.score_profile, *manifest.profiles.values())
    bins = max(len(shares_of(profile)) for profile in profiles)
    left = bound / 2 / (bins - 1) - 1 / max(1, manifest.data.queries.get("train", 0))
    return math.ceil(1 / left) if left > 0 else None


def weighty(manifest: Manifest, share: float = 0.9) -> tuple[str, ...]:
    """The fewest features that hold this share of the gain, the weightiest first."""
    held, taken = 0.0, []
    for name, gain in sorted(manifest.importance.items(), key=lambda item: -item[1]):
        if held >= share:
            break
        held += gain
        taken.append(name)
    return tuple(taken)
