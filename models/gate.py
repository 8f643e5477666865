"""The gate before a version becomes current: named checks, each a figure against a bound.

It scores saved judged listings with the model as serving would load it; no server takes part. A model that cannot be
loaded safely is looked at no further.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import numpy as np

from backends.base import FloatColumn
from mixer import model
from mixer.decision import Bounds, Check, CheckName, Outcome
from mixer.manifest import MANIFEST
from mixer.model import LightGbmModel, ModelRefused
from mixer.schema import Feature
from mixer.slices import Slices
from models import evaluation
from models.listings import Held
from models.measured import Key, Measured, Peer
from models.slicing import BY_LENGTH

LOAD_CHECKS: tuple[CheckName, ...] = ("manifest", "checksum", "schema", "test_load", "golden")
"""In the order in which loading does them."""
ALL_CHECKS: tuple[CheckName, ...] = get_args(CheckName)

_REPEATS, _WARM_UPS = 30, 3
_Q10, _Q90 = 0.1, 0.9
_LEAST_WIDTH = 1e-9
"""Of a feature's spread, relative to its values: narrower is none."""


def judge(
    folder: Path,
    held: Held | str,
    peer: Peer,
    features: tuple[Feature, ...] | None,
    bounds: Bounds,
    slices: Slices = BY_LENGTH,
) -> tuple[Check, ...]:
    """Every check of a version's folder, in the order of their names.

    `held` are listings of its features, or why there are none; `features` those of the mix that will serve it, or None
    to believe the manifest; `slices` are those of that mix. Takes seconds.
    """
    checks, loaded = _load(folder, features)
    if loaded:
        found = _judged(loaded, held, bounds)
        checks.append(found)
        if found.outcome == "passed" and isinstance(held, Held):
            ours = Measured(loaded, held, slices)
            checks += [check(ours, peer, bounds) for check in MEASURES.values()]
    done = {check.name for check in checks}
    left = [
        Check(name=n, outcome="not_run", told="an earlier check failed") for n in ALL_CHECKS if n not in done
    ]
    return (*checks, *left)


def _load(folder: Path, features: tuple[Feature, ...] | None) -> tuple[list[Check], LightGbmModel | None]:
    try:
        declared = features or model.read_manifest(folder).features
        loaded = model.load(folder, declared)
    except ModelRefused as refusal:
        place = LOAD_CHECKS.index(refusal.check)
        passed = [_passed(name, _SOUND[name]) for name in LOAD_CHECKS[:place]]
        return [*passed, Check(name=LOAD_CHECKS[place], outcome="failed", told=str(refusal))], None
    return [_passed(name, _SOUND[name]) for name in LOAD_CHECKS], loaded


_SOUND: Mapping[CheckName, str] = {
    "manifest": f"{MANIFEST} is whole",
    "checksum": "the files are those that the manifest names",
    "schema": "the mix's features are those it was trained on",
    "test_load": "it loads in a process of its own",
    "golden": "the golden queries score as when trained, to the last bit",
}


def _judged(loaded: LightGbmModel, held: Held | str, bounds: Bounds) -> Check:
    if isinstance(held, str):
        return Check(name="judged", outcome="failed", told=held)
    if held.schema_sha256 != loaded.manifest.schema_sha256:
        return Check(name="judged", outcome="failed", told=f"{held.source} was made for other features")
    queries = len(Measured(loaded, held).weights)
    told = f"{queries} judged queries ({held.split}) have something to order; at least {bounds.min_queries}"
    return _bounded("judged", queries, bounds.min_queries, queries >= bounds.min_queries, told)


def _finite(ours: Measured, _: Peer, bounds: Bounds) -> Check:
    scores = np.concatenate(ours.scores)
    bad = int((~np.isfinite(scores)).sum())
    return _bounded("finite", bad, 0, not bad, f"{bad} of {len(scores)} scores are not finite")


def _constant(ours: Measured, _: Peer, bounds: Bounds) -> Check:
    flat = sum(len(np.unique(scores[np.isfinite(scores)])) < 2 for scores in ours.scores)
    share = flat / len(ours.scores)
    return _at_most(
        "constant", share, bounds.max_constant, f"{share:.1%} of the queries get one score for all", "{:.1%}"
    )


def _units(ours: Measured, _: Peer, bounds: Bounds) -> Check:
    matrix = np.concatenate([ls.features for ls in ours.listings])
    profiles = ours.model.manifest.profiles
    factors = {
        name: _spread_factor(matrix[:, place], profiles[name].edges)
        for place, name in enumerate(ours.held.feature_names)
    }
    worst = max(factors, key=lambda name: abs(np.log(factors[name])))
    factor = factors[worst]
    told = f"{worst} is spread {factor:.3g} times as wide in the judged listings as in the training"
    return _at_most(
        "units", max(factor, 1 / factor), bounds.max_spread_factor, told, "{:.3g} times either way"
    )


def _spread_factor(column: FloatColumn, edges: tuple[float, ...]) -> float:
    """Width between the 10th and 90th percentile over that of the training; 1 where either has none."""
    known = column[np.isfinite(column)]
    # An edge just below the least value stands for no width.
    trained = edges[-1] - edges[0] if edges else 0.0
    if not len(known) or trained <= _LEAST_WIDTH * max(abs(edge) for edge in (*edges, 1.0)):
        return 1.0
    low, high = np.quantile(known, [_Q10, _Q90])
    return float(high - low) / trained or 1.0


def _floor(ours: Measured, _: Peer, bounds: Bounds) -> Check:
    mean = ours.mean(ours.ndcg)
    return _at_least("ndcg_floor", mean, bounds.ndcg_floor, f"NDCG@{evaluation.DEPTH} is {mean:.4f}")


def _beats_fused(ours: Measured, _: Peer, bounds: Bounds) -> Check:
    gain = ours.mean(ours.ndcg) - ours.mean(ours.fused)
    told = f"NDCG@{evaluation.DEPTH} is {ours.mean(ours.ndcg):.4f}, {gain:+.4f} against the fused order"
    bound = bounds.min_gain_over_fused
    if bound is None:
        return _off("beats_fused", told)
    return _bounded("beats_fused", gain, bound, gain > bound, f"{told}; must be above {bound:+.4f}")


def _drop(ours: Measured, peer: Peer, bounds: Bounds) -> Check:
    if bounds.max_drop is None:
        return _off("ndcg_drop", "the bounds switch it off")
    if not peer.measured:
        return peer.missing("ndcg_drop")
    both = ours.ndcg.keys() & peer.measured.ndcg.keys()
    if len(both) < bounds.min_queries:
        told = f"only {len(both)} queries were judged for both versions; at least {bounds.min_queries}"
        return Check(
            name="ndcg_drop", outcome="failed", told=told, figure=len(both), bound=bounds.min_queries
        )
    drop, interval = _lost(ours, peer.measured, both)
    told = f"NDCG@{evaluation.DEPTH} falls by {interval} against {peer.measured.model.ref.version}"
    return _at_most("ndcg_drop", drop, bounds.max_drop, told)


def _slice_drop(ours: Measured, peer: Peer, bounds: Bounds) -> Check:
    if bounds.max_slice_drop is None:
        return _off("slice_drop", "the bounds switch it off")
    if not peer.measured:
        return peer.missing("slice_drop")
    shared = {name: keys & peer.measured.ndcg.keys() for name, keys in ours.parts.items()}
    lost = {
        name: _lost(ours, peer.measured, keys)
        for name, keys in shared.items()
        if len(keys) >= bounds.min_slice_queries
    }
    if not lost:
        return _off("slice_drop", f"no slice has {bounds.min_slice_queries} queries")
    worst = max(lost, key=lambda name: lost[name][0])
    where = f"in the worst of {len(lost)} slices ({' '.join(worst)}, {len(shared[worst])} queries)"
    told = f"{where} NDCG falls by {lost[worst][1]}"
    return _at_most("slice_drop", lost[worst][0], bounds.max_slice_drop, told)


def _lost(ours: Measured, theirs: Measured, keys: set[Key]) -> tuple[float, str]:
    """How far we are below them over these queries: the mean, and it with its interval."""
    both = sorted(keys)
    losses = np.array([theirs.ndcg[key] - ours.ndcg[key] for key in both])
    interval = evaluation.interval(losses, np.array([ours.weights[key] for key in both]))
    return interval.mean, str(interval)


def _latency(ours: Measured, _: Peer, bounds: Bounds) -> Check:
    rows = np.concatenate([ls.features for ls in ours.listings])
    rows = np.ascontiguousarray(np.resize(rows, (bounds.latency_rows, rows.shape[1])))
    spent_ms = float(
        np.median([_score_ms(ours.model, rows) for _ in range(_WARM_UPS + _REPEATS)][_WARM_UPS:])
    )
    told = f"{spent_ms:.3f} ms of processor time for {bounds.latency_rows} rows ({ours.model.scorer})"
    return _at_most("latency", spent_ms, bounds.latency_ms, told, "{:g} ms")


def _score_ms(loaded: LightGbmModel, rows: FloatColumn) -> float:
    """This thread's processor time: what else the machine does is not the model's fault."""
    began = time.thread_time_ns()
    loaded.score(rows)
    return (time.thread_time_ns() - began) / 1e6


MEASURES: Mapping[str, Callable[[Measured, Peer, Bounds], Check]] = {
    "finite": _finite,
    "constant": _constant,
    "units": _units,
    "ndcg_floor": _floor,
    "beats_fused": _beats_fused,
    "ndcg_drop": _drop,
    "slice_drop": _slice_drop,
    "latency": _latency,
}


def _at_most(name: CheckName, figure: float, bound: float | None, told: str, form: str = "{:.4f}") -> Check:
    if bound is None:
        return _off(name, told)
    return _bounded(name, figure, bound, figure <= bound, f"{told}; at most {form.format(bound)}")


def _at_least(name: CheckName, figure: float, bound: float | None, told: str) -> Check:
    if bound is None:
        return _off(name, told)
    return _bounded(name, figure, bound, figure >= bound, f"{told}; at least {bound:.4f}")


def _bounded(name: CheckName, figure: float, bound: float, held: bool, told: str) -> Check:
    outcome: Outcome = "passed" if held else "failed"
    return Check(name=name, outcome=outcome, figure=float(figure), bound=float(bound), told=told)


def _passed(name: CheckName, told: str) -> Check:
    return Check(name=name, outcome="passed", told=told)


def _off(name: CheckName, told: str) -> Check:
    return Check(name=name, outcome="off", told=told)
