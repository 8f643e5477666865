"""Loading a model so that nothing broken ever ranks: checksum, schema, a test-load elsewhere, golden queries.

A truncated file kills the process that loads it, without an exception; a flipped digit or a column out of place
loads in silence and ranks wrong. So the file's hash comes first, then its first load in a process of its own.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightgbm
import numpy as np
from pydantic import ValidationError

from backends.base import FloatColumn
from mixer.manifest import GOLDEN, MANIFEST, MODEL, Golden, Manifest, sha256_of
from mixer.rank import ScoringFailed
from mixer.schema import Feature, schema_hash
from mixer.trees import Reason, Unsupported
from mixer.values import ModelRef

if TYPE_CHECKING:
    from mixer.forest import Forest

TEST_LOAD_TIMEOUT_S = 60.0

Why = Reason | Literal["mismatch"]
"""Why LightGBM scores a forest: it is of a kind that Mixer's own scorer cannot do, or its golden scores differ."""

log = logging.getLogger(__name__)


class ModelRefused(Exception):
    """A model folder that failed a check; `check` is one of registry, manifest, checksum, schema, test_load, golden."""

    def __init__(self, check: str, message: str, ref: ModelRef | None = None) -> None:
        """`ref` where the manifest could be read."""
        super().__init__(message)
        self.check = check
        self.ref = ref


class LightGbmModel:
    """A LightGBM forest, scored on the calling thread: by Mixer's own scorer, or by LightGBM where that cannot."""

    def __init__(self, manifest: Manifest, booster: lightgbm.Booster, forest: Forest | Why) -> None:
        """Takes a booster that stands behind this manifest, and its forest or the reason why there is none."""
        self.manifest = manifest
        self.ref = ref_of(manifest)
        self.left_to_lightgbm: Why | None = forest if isinstance(forest, str) else None
        """Why LightGBM scores, where it does."""
        self.scorer = scorer_name(forest)
        self._booster = booster
        self._forest = None if isinstance(forest, str) else forest

    @property
    def importance(self) -> Mapping[str, float]:
        """Share of the total gain by feature."""
        return self.manifest.importance

    def score(self, matrix: FloatColumn) -> FloatColumn:
        """Raw scores (n,) of rows (n, f), the same doubles whoever scores. Raises: ScoringFailed."""
        if not len(matrix):
            return np.empty(0)
        try:
            return self._forest.score(matrix) if self._forest else raw_scores(self._booster, matrix)
        except (lightgbm.basic.LightGBMError, ValueError) as error:
            raise ScoringFailed from error

    def contributions(self, matrix: FloatColumn) -> FloatColumn:
        """What each feature adds to a row's raw score, and the bias last (n, f + 1); each row adds up to its score.

        By TreeSHAP, as LightGBM computes it: Lundberg, Erion and Lee, "Consistent individualized feature attribution
        for tree ensembles", 2018. Milliseconds a row.
        """
        if not len(matrix):
            return np.empty((0, matrix.shape[1] + 1))
        predicted = self._booster.predict(matrix, pred_contrib=True, num_threads=1)
        shares: FloatColumn = np.asarray(predicted, np.float64)
        return shares


def scorer_name(forest: Forest | Why) -> str:
    """Who scores: `forest`, or `lightgbm:` and why."""
    return f"lightgbm: {forest}" if isinstance(forest, str) else "forest"


def ref_of(manifest: Manifest) -> ModelRef:
    """The model's name, version and hash."""
    return ModelRef(manifest.name, manifest.version, manifest.model_sha256)


def raw_scores(booster: lightgbm.Booster, matrix: FloatColumn) -> FloatColumn:
    """Scores (n,) as the forest sums them, one thread."""
    scores: FloatColumn = np.asarray(booster.predict(matrix, raw_score=True, num_threads=1), np.float64)
    return scores


def load(folder: Path, features: Sequence[Feature]) -> LightGbmModel:
    """Load a model after all its checks, for a mix that declares these features. Takes seconds.

    Raises: ModelRefused, naming the check that failed.
    """
    manifest = read_manifest(folder)
    _check_hashes(folder, manifest)
    _check_schema(manifest, features)
    _test_load(folder, manifest)
    booster = lightgbm.Booster(model_file=str(folder / MODEL))
    made = LightGbmModel(manifest, booster, forest_of(folder, len(manifest.features), booster))
    if made.left_to_lightgbm:
        told = {"model": manifest.name, "version": manifest.version, "scorer": made.scorer}
        log.warning("model left to LightGBM", extra={**told, "scorer_when_trained": manifest.scorer})
    return made


def forest_of(folder: Path, width: int, booster: lightgbm.Booster) -> Forest | Why:
    """The booster's forest, warm and true to the golden queries to the last bit; or why LightGBM scores."""
    from mixer.forest import Forest, warm  # takes a while, which the test-load need not wait for

    warm()
    try:
        forest = Forest.compile(booster)
    except Unsupported as refusal:
        return refusal.reason
    return "mismatch" if _golden_fault(folder, width, forest.score) else forest


def read_manifest(folder: Path) -> Manifest:
    """The folder's manifest. Raises: ModelRefused."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise ModelRefused("manifest", f"{folder / MANIFEST} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "(file)"
        raise ModelRefused("manifest", f"{folder / MANIFEST}: {where}: {first['msg']}") from error


def _check_hashes(folder: Path, manifest: Manifest) -> None:
    for name, expected in ((MODEL, manifest.model_sha256), (GOLDEN, manifest.golden_sha256)):
        path = folder / name
        if not path.is_file():
            raise ModelRefused("checksum", f"{path} is missing", ref_of(manifest))
        if (found := sha256_of(path)) != expected:
            message = (
                f"{path} is not the file its manifest names: SHA-256 {found[:12]}…, not {expected[:12]}…"
            )
            raise ModelRefused("checksum", message, ref_of(manifest))


def _check_schema(manifest: Manifest, features: Sequence[Feature]) -> None:
    if schema_hash(manifest.features) != manifest.schema_sha256:
        raise ModelRefused(
            "schema", "the manifest's features are not those it was sealed with", ref_of(manifest)
        )
    if schema_hash(features) != manifest.schema_sha256:
        difference = _first_difference(manifest.features, features)
        raise ModelRefused("schema", f"the mix declares other features: {difference}", ref_of(manifest))


def _first_difference(trained: Sequence[Feature], declared: Sequence[Feature]) -> str:
    for place, (theirs, ours) in enumerate(zip(trained, declared, strict=False)):
        if theirs != ours:
            return f"feature {place} is {ours.name!r}, trained as {theirs.name!r}: {_changed(theirs, ours)}"
    return f"{len(declared)} of them, trained on {len(trained)}"


def _changed(theirs: Feature, ours: Feature) -> str:
    trained, declared = theirs.model_dump(), ours.model_dump()
    keys = [key for key in {**trained, **declared} if trained.get(key) != declared.get(key)]
    return ", ".join(f"{key} {declared.get(key)!r} was {trained.get(key)!r}" for key in keys)


def _test_load(folder: Path, manifest: Manifest) -> None:
    """Load and score the golden queries in a process of its own, which may die of it."""
    command = [sys.executable, "-m", "mixer.testload", str(folder)]
    try:
        # What LightGBM prints as it dies need not be text.
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, errors="replace", timeout=TEST_LOAD_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        message = f"no end within {TEST_LOAD_TIMEOUT_S:g} s"
        raise ModelRefused("test_load", message, ref_of(manifest)) from error
    if done.returncode < 0:
        raise ModelRefused("test_load", f"LightGBM died of signal {-done.returncode}", ref_of(manifest))
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"the test-load ended with status {done.returncode}"]
        raise ModelRefused("golden", said[-1], ref_of(manifest))


def check_golden(folder: Path, manifest: Manifest, booster: lightgbm.Booster) -> str | None:
    """Why the forest is not the one that was trained, or None: its columns, and its scores to the last bit."""
    declared = [feature.name for feature in manifest.features]
    if booster.feature_name() != declared:
        return "the forest's columns are not the manifest's features"
    return _golden_fault(folder, len(declared), lambda matrix: raw_scores(booster, matrix))


def _golden_fault(folder: Path, width: int, score: Callable[[FloatColumn], FloatColumn]) -> str | None:
    golden = Golden.model_validate_json((folder / GOLDEN).read_bytes())
    if not golden.queries:
        return "there is no golden query"
    for place, query in enumerate(golden.queries):
        scores = score(_matrix(query.features, width))
        if not np.array_equal(scores, np.array(query.scores)):
            return f"golden query {place} scores otherwise than when trained"
    return None


def _matrix(rows: Sequence[Sequence[Any]], width: int) -> FloatColumn:
    return np.array(rows, np.float64).reshape(len(rows), width)
