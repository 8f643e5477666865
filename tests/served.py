"""A feature log with searches that a forest ranked, for the tests of what reads one."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixer.arrange import best_first
from mixer.logged import SCHEMA
from mixer.model import LightGbmModel
from mixer.schema import schema_hash
from tests import forest

BEGAN = datetime(2024, 5, 1, 10, tzinfo=UTC)


def row(number: int, model: LightGbmModel | None, **changes: Any) -> dict[str, Any]:
    """The search that `forest.listing(number)` is, as this model ranked it, or the fusion."""
    listing = forest.listing(number)
    n = len(listing)
    fused = 1.0 / (60 + np.arange(1, n + 1))
    scores = model.score(listing.features) if model else fused
    order = best_first(scores, np.arange(n)).tolist()
    return {
        "query_id": f"q{number}",
        "trace_id": f"{number:032x}",
        "time": BEGAN + timedelta(minutes=number),
        "mix": "default",
        "arm": "",
        "query": listing.judged.query,
        "context": [("plan", "free")],
        "model_name": model.ref.name if model else "",
        "model_version": model.ref.version if model else "",
        "model_sha256": model.ref.sha256 if model else "",
        "schema_sha256": schema_hash(forest.FEATURES),
        "ranker": "model" if model else "fused",
        "scorer": "forest" if model else "",
        "fallback_reason": "",
        "degraded": False,
        "backends": ["a"],
        "backend_outcomes": ["ok"],
        "index_versions": ["v1"],
        "feature_names": [feature.name for feature in forest.FEATURES],
        "page_offset": 0,
        "page_size": 5,
        "ids": [listing.ids[place] for place in order],
        "scores": scores[order].tolist(),
        "fused": fused[order].tolist(),
        "fused_ranks": [place + 1 for place in order],
        "propensities": [1.0] * n,
        "ranks": [[place + 1] for place in order],
        "backend_scores": [[listing.features[place, 0]] for place in order],
        "features": listing.features[order].tolist(),
        **changes,
    }


def write(folder: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """The rows as the files of a feature log, one an hour."""
    hours: dict[datetime, list[dict[str, Any]]] = {}
    for made in rows:
        hours.setdefault(made["time"].replace(minute=0), []).append(made)
    for hour, held in hours.items():
        path = folder / f"date={hour:%Y-%m-%d}" / f"hour={hour:%H}" / "0.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(held, SCHEMA), path)
    return folder
