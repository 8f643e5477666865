"""How far what is served has moved from what was trained on: the population stability index (PSI).

PSI = sum over the bins of (served - trained) * ln(served / trained), a symmetric Kullback-Leibler divergence (Kullback
and Leibler, "On information and sufficiency", 1951) as credit scoring uses it: below 0.1 little has changed, above
0.25 much has (Siddiqi, "Credit Risk Scorecards", 2006). Without any drift its mean is (bins - 1) * (1/n + 1/m) for n
served and m trained observations (Yurdakul and Naranjo, "Statistical properties of the population stability index",
Journal of Risk Model Validation, 2020), which says how many answers it takes to tell drift from chance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.base import FloatColumn
from mixer.values import IntColumn

Bins = Sequence[float] | FloatColumn | IntColumn
"""Counts or shares, bin by bin."""

LEAST_SHARE = 1e-4
"""Stands in for a smaller share, an empty bin's too: the index stays finite."""


def psi(trained: Bins, served: Bins) -> float:
    """The index of two lists of bins, counts or shares. Raises: ValueError where they do not fit or one is empty."""
    if len(trained) != len(served):
        raise ValueError(f"{len(trained)} bins beside {len(served)}")
    old, new = _shares(trained), _shares(served)
    return float(np.sum((new - old) * np.log(new / old)))


def _shares(bins: Bins) -> FloatColumn:
    counts = np.array(bins, np.float64)
    if not counts.sum() > 0:
        raise ValueError("no bin holds anything")
    shares: FloatColumn = np.maximum(counts / counts.sum(), LEAST_SHARE)
    return shares
