"""Random projection: an embedder for how texts are spelled, rather than what they mean.

The same weighed words and pieces of words as latent semantic analysis, pressed by random directions, which keeps
every cosine nearly as it was (Johnson and Lindenstrauss, 1984): names and titles stay apart that an SVD would blend.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backends.lsa import Lsa, Matrix


class RandomProjection(Lsa):
    """Text to unit vectors by directions that are the same at every fit."""

    @staticmethod
    def directions(matrix: Any, dimensions: int) -> Matrix:
        """Normal random numbers, (features, dimensions)."""
        return np.random.default_rng(0).standard_normal((matrix.shape[1], dimensions), np.float32)
