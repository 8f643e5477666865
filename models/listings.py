"""Judged listings in a file, so that a model can be measured later without a server: `judged.npz` beside a model.

A NumPy archive that holds no Python objects. Of q listings, n rows in all, b backends and f features: `features` (n, f)
float64, `ranks` (b, n), `fused_ranks` and `grades` (n,) int32, and `told`, UTF-8 JSON: the features' names, the hash of
their schema, the split, the backends, and per listing its judged query, pool, weight, slices and ids, whose number
says how many of the rows are its own. The queries stand there as they were judged.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from mixer.manifest import Record
from mixer.schema import Feature, schema_hash
from models.collection import Listing, Pool
from models.judgements import Judged

QUERIES = 300
"""Listings of a pool that are kept beside a model: some hundred kilobytes to a few megabytes."""

_INTS = np.int32


class _One(Record):
    judged: Judged
    pool: Pool
    ids: tuple[str, ...]
    weight: float = 1.0
    slices: dict[str, str] | None = None


class _Told(Record):
    feature_names: tuple[str, ...]
    schema_sha256: str
    split: str
    left_out: int
    backends: tuple[str, ...]
    listings: tuple[_One, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """Judged listings, and what their features are."""

    listings: tuple[Listing, ...]
    feature_names: tuple[str, ...]
    schema_sha256: str
    """As a manifest's: equal hashes mean equal columns."""
    split: str
    left_out: int
    """Listings that were asked for and are not here: degraded, or beyond the number that is kept."""
    source: str
    sha256: str
    """Of the file."""


class ListingsError(ValueError):
    """A file that holds no judged listings."""


def sample(listings: Sequence[Listing], queries: int = QUERIES) -> tuple[Listing, ...]:
    """At most so many listings a pool, none of them degraded: those whose need's hash is the least.

    The second listing of a query comes after the first of every other one.
    """
    sound = sorted((ls for ls in listings if not ls.degraded and len(ls)), key=lambda ls: ls.judged.digest)
    pools = sorted({listing.pool for listing in sound})
    turns = Counter[tuple[str, str]]()
    ranked: list[tuple[int, Listing]] = []
    for ls in sound:
        ranked.append((turns[ls.pool, ls.judged.digest], ls))
        turns[ls.pool, ls.judged.digest] += 1
    ranked.sort(key=lambda pair: pair[0])
    return tuple(ls for pool in pools for ls in [one for _, one in ranked if one.pool == pool][:queries])


def _one(listing: Listing) -> _One:
    return _One(
        judged=listing.judged,
        pool=listing.pool,
        ids=listing.ids,
        weight=listing.weight,
        slices=dict(listing.slices) if listing.slices else None,
    )


def write(path: Path, asked: Sequence[Listing], features: Sequence[Feature], split: str) -> None:
    """Write a sample of listings; the same listings give the same bytes. Raises: ValueError where none is sound."""
    kept = sample(asked)
    if not kept:
        raise ValueError("no listing to keep: every one is degraded or empty")
    told = _Told(
        feature_names=tuple(feature.name for feature in features),
        schema_sha256=schema_hash(features),
        split=split,
        left_out=len(asked) - len(kept),
        backends=kept[0].backends,
        listings=tuple(_one(ls) for ls in kept),
    )
    np.savez_compressed(
        path,
        allow_pickle=False,
        features=np.concatenate([ls.features for ls in kept]),
        ranks=np.concatenate([ls.ranks for ls in kept], axis=1).astype(_INTS),
        fused_ranks=np.concatenate([ls.fused_ranks for ls in kept]).astype(_INTS),
        grades=np.concatenate([ls.grades for ls in kept]).astype(_INTS),
        told=np.frombuffer(told.model_dump_json().encode(), np.uint8),
    )


def read(path: Path) -> Held:
    """The listings of a file. Raises: ListingsError, OSError."""
    data = path.read_bytes()
    try:
        with np.load(BytesIO(data), allow_pickle=False) as arrays:
            told = _Told.model_validate(json.loads(arrays["told"].tobytes()))
            listings = _listings(
                told, *(arrays[key] for key in ("features", "ranks", "fused_ranks", "grades"))
            )
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, ValidationError) as error:
        raise ListingsError(f"{path} holds no judged listings: {str(error).splitlines()[0]}") from error
    digest = hashlib.sha256(data).hexdigest()
    return Held(
        listings, told.feature_names, told.schema_sha256, told.split, told.left_out, str(path), digest
    )


def _listings(
    told: _Told, features: np.ndarray, ranks: np.ndarray, fused_ranks: np.ndarray, grades: np.ndarray
) -> tuple[Listing, ...]:
    ends = np.cumsum([len(one.ids) for one in told.listings])
    wanted = (int(ends[-1]) if len(ends) else 0, len(told.feature_names))
    if features.shape != wanted or ranks.shape != (len(told.backends), wanted[0]):
        raise ValueError(f"features of the shape {features.shape} are not {wanted}")
    return tuple(
        Listing(
            judged=one.judged,
            pool=one.pool,
            ids=one.ids,
            backends=told.backends,
            features=np.asarray(features[rows], np.float64),
            ranks=ranks[:, rows].astype(np.intp),
            fused_ranks=fused_ranks[rows].astype(np.intp),
            grades=grades[rows].astype(np.intp),
            degraded=False,
            weight=one.weight,
            slices=one.slices,
        )
        for one, end in zip(told.listings, ends.tolist(), strict=True)
        for rows in (slice(end - len(one.ids), end),)
    )
