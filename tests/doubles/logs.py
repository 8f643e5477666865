"""Feature logs and event logs as the servers write them, made up by tests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from mixer.event_log import SCHEMA as EVENTS
from mixer.event_log import Taken, batch_of
from mixer.events import Event, EventOutcome

START_S = 1_700_000_000.0

FEATURE_LOG = pa.schema(
    [
        ("query_id", pa.string()),
        ("trace_id", pa.string()),
        ("time", pa.timestamp("us", "UTC")),
        ("mix", pa.string()),
        ("arm", pa.string()),
        ("query", pa.string()),
        ("context", pa.map_(pa.string(), pa.string())),
        ("slices", pa.map_(pa.string(), pa.string())),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("model_sha256", pa.string()),
        ("schema_sha256", pa.string()),
        ("ranker", pa.string()),
        ("scorer", pa.string()),
        ("fallback_reason", pa.string()),
        ("degraded", pa.bool_()),
        ("backends", pa.list_(pa.string())),
        ("backend_outcomes", pa.list_(pa.string())),
        ("index_versions", pa.list_(pa.string())),
        ("feature_names", pa.list_(pa.string())),
        ("page_offset", pa.int32()),
        ("page_size", pa.int32()),
        ("ids", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64())),
        ("fused", pa.list_(pa.float64())),
        ("fused_ranks", pa.list_(pa.int32())),
        ("propensities", pa.list_(pa.float64())),
        ("ranks", pa.list_(pa.list_(pa.int32()))),
        ("backend_scores", pa.list_(pa.list_(pa.float64()))),
        ("features", pa.list_(pa.list_(pa.float64()))),
        ("teams", pa.list_(pa.string())),
    ]
)


def search(
    query_id: str, ids: Sequence[str] = ("a", "b", "c"), at_s: float = 0.0, **columns: Any
) -> dict[str, Any]:
    """One row of the feature log, served `at_s` after the start; of one backend and no feature unless given."""
    n = len(ids)
    return {
        "query_id": query_id,
        "trace_id": "",
        "time": _time(at_s),
        "mix": "default",
        "arm": "",
        "query": "read a csv file",
        "context": [],
        "slices": [],
        "model_name": "",
        "model_version": "",
        "model_sha256": "",
        "schema_sha256": "",
        "ranker": "fused",
        "scorer": "",
        "fallback_reason": "",
        "degraded": False,
        "backends": ["one"],
        "backend_outcomes": ["ok"],
        "index_versions": ["v1"],
        "feature_names": [],
        "page_offset": 0,
        "page_size": 10,
        "ids": list(ids),
        "scores": [float(n - place) for place in range(n)],
        "fused": [float(n - place) for place in range(n)],
        "fused_ranks": list(range(1, n + 1)),
        "propensities": [1.0] * n,
        "ranks": [[place + 1] for place in range(n)],
        "backend_scores": [[float(n - place)] for place in range(n)],
        "features": [[] for _ in ids],
        "teams": [],
        **columns,
    }


def write_searches(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One more file of the feature log."""
    _write(folder, pa.Table.from_pylist([dict(row) for row in rows], schema=FEATURE_LOG))


def write_events(folder: Path, taken: Iterable[tuple[float, Event]]) -> None:
    """One more file of the event log: events, each with when it was taken, seconds after the start."""
    rows = [Taken(event, START_S + at_s, EventOutcome.ACCEPTED) for at_s, event in taken]
    _write(folder, pa.Table.from_batches([batch_of(rows)], schema=EVENTS))


def _write(folder: Path, table: pa.Table) -> None:
    hour = folder / "date=2023-11-14" / "hour=22"
    hour.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, hour / f"{uuid4().hex}.parquet")


def _time(at_s: float) -> datetime:
    return datetime.fromtimestamp(START_S, UTC) + timedelta(seconds=at_s)
