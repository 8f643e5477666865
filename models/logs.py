"""Reads the feature log's Parquet files: as record batches, or one search at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from backends.base import FloatColumn
from mixer.logged import INPUTS, SCHEMA
from mixer.values import IntColumn, ModelRef, TextColumn

_BATCH_ROWS = 256

WHOLE = pa.unify_schemas([SCHEMA, INPUTS])
"""Every column that a row may have; null where its file has none of that name."""

Progress = Callable[[int, int], None]
"""Hears of files read, and of how many there are."""


def _unheard(done: int, of: int) -> None:
    """Nobody waits."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a log in the order of their hours, and those that no Parquet reader could read."""

    sound: tuple[Path, ...]
    torn: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time, its start inclusive and its end exclusive; None is open."""

    since: datetime | None = None
    until: datetime | None = None

    def may_hold(self, path: Path) -> bool:
        """Whether a file of this hour, by the names of its folders, can hold a row of the window."""
        try:
            day, hour = path.parent.parent.name, path.parent.name
            began = datetime.strptime(f"{day} {hour}", "date=%Y-%m-%d hour=%H").replace(tzinfo=UTC)
        except ValueError:
            return True
        after = self.until is not None and began >= self.until
        return not after and not (
            self.since is not None and began.timestamp() + 3600 <= self.since.timestamp()
        )

    def rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows of the window."""
        for bound, within in ((self.since, pc.greater_equal), (self.until, pc.less)):
            if bound is not None:
                batch = batch.filter(within(batch.column("time"), pa.scalar(bound, WHOLE.field("time").type)))
        return batch


_ALWAYS = Window()


def files(folder: Path, window: Window = _ALWAYS) -> Files:
    """The files of a folder that may hold rows of a window; the folder may be far (`mixer.far_folder`).

    Raises: FileNotFoundError where there is no folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    sound: list[Path] = []
    torn: list[Path] = []
    for path in sorted(folder.rglob("*.parquet")):
        if window.may_hold(path):
            (sound if _is_whole(path) else torn).append(path)
    return Files(tuple(sound), tuple(torn))


def read(
    paths: Sequence[Path],
    columns: Sequence[str] | None = None,
    window: Window = _ALWAYS,
    progress: Progress = _unheard,
) -> Iterator[pa.RecordBatch]:
    """Rows of these files, a few hundred at once, with these columns of WHOLE or all of them."""
    wanted = WHOLE if columns is None else pa.schema([WHOLE.field(name) for name in columns])
    for done, path in enumerate(paths, 1):
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:
            names = [name for name in {*wanted.names, "time"} if name in file.schema_arrow.names]
            for batch in file.iter_batches(_BATCH_ROWS, columns=names):
                yield _shaped(window.rows(batch), wanted)
        progress(done, len(paths))


def _is_whole(path: Path) -> bool:
    try:
        with path.open("rb") as opened:
            pq.read_metadata(opened)
    except (pa.ArrowInvalid, OSError):
        return False
    return True


def _shaped(batch: pa.RecordBatch, wanted: pa.Schema) -> pa.RecordBatch:
    held = set(batch.schema.names)
    arrays = [
        batch.column(field.name).cast(field.type)
        if field.name in held
        else pa.nulls(batch.num_rows, field.type)
        for field in wanted
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=wanted)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the features of n candidates were made from, in the order of the ranking: columns (n,) by field."""

    context: Mapping[str, str | float]
    normalized: FloatColumn
    """(backends, n)"""
    numbers: Mapping[str, FloatColumn]
    texts: Mapping[str, TextColumn]
    stored: Mapping[str, FloatColumn] = field(default_factory=dict)
    """By store and, after a dot, field."""


@dataclass(frozen=True, slots=True)
class Served:
    """One logged search: n candidates in the order of the ranking, b backends, f features.

    `scores`, `fused`, `fused_ranks` and `propensities` (n,); `ranks` and `backend_scores` (b, n); `features` (n, f).
    """

    query_id: str
    trace_id: str
    time: datetime
    mix: str
    arm: str
    query: str | None
    """As it may be kept: raw, a hash, or None."""
    model: ModelRef | None
    schema_sha256: str
    ranker: str
    fallback_reason: str
    degraded: bool
    backends: tuple[str, ...]
    backend_outcomes: tuple[str, ...]
    feature_names: tuple[str, ...]
    ids: tuple[str, ...]
    scores: FloatColumn
    fused: FloatColumn
    fused_ranks: IntColumn
    propensities: FloatColumn
    ranks: NDArray[np.int32]
    backend_scores: FloatColumn
    features: FloatColumn
    page_offset: int
    page_size: int
    members: Mapping[str, FloatColumn] = field(default_factory=dict)
    """Of an ensemble: each member's own scores (n,), unweighted, by its name in the settings."""
    teams: tuple[str, ...] = ()
    """Of a list that two arms drafted: the arm that picked each hit, or none."""
    inputs: Inputs | None = None
    """Where they were logged."""

    def __len__(self) -> int:
        return len(self.ids)


def searches(batches: Iterator[pa.RecordBatch]) -> Iterator[Served]:
    """The searches of whole rows."""
    for batch in batches:
        plain = batch.select([name for name in batch.schema.names if name not in _ARRAYS]).to_pylist()
        columns = {name: batch.column(name) for name in _ARRAYS}
        for place, row in enumerate(plain):
            yield _served(row, {name: column[place].values for name, column in columns.items()})


_ARRAYS = (
    "scores",
    "fused",
    "fused_ranks",
    "propensities",
    "ranks",
    "backend_scores",
    "features",
    "normalized",
)
"""Columns that become numpy's without an object a value."""


def _served(row: dict[str, Any], lists: Mapping[str, pa.Array]) -> Served:
    n, b = len(row["ids"]), len(row["backends"])
    model = ModelRef(row["model_name"], row["model_version"], row["model_sha256"])
    tuples: dict[str, Any] = {name: tuple(row[name]) for name in _TUPLES}
    return Served(
        **{name: row[name] for name in _AS_THEY_ARE},
        **tuples,
        **{name: lists[name].to_numpy() for name in ("scores", "fused", "fused_ranks", "propensities")},
        model=model if model.name else None,
        ranks=_matrix(lists["ranks"], n, b).T,
        backend_scores=_matrix(lists["backend_scores"], n, b).T,
        features=_matrix(lists["features"], n, len(row["feature_names"])),
        teams=tuple(row["teams"] or ()),
        members=_columns(row["member_models"] or (), row["member_scores"] or ()),
        inputs=None if row["number_fields"] is None else _inputs(row, _matrix(lists["normalized"], n, b).T),
    )


_TUPLES = ("backends", "backend_outcomes", "feature_names", "ids")
_AS_THEY_ARE = (
    "query_id",
    "trace_id",
    "time",
    "mix",
    "arm",
    "query",
    "schema_sha256",
    "ranker",
    "fallback_reason",
    "degraded",
    "page_offset",
    "page_size",
)


def _inputs(row: dict[str, Any], normalized: FloatColumn) -> Inputs:
    texts = zip(row["text_fields"], row["texts"], strict=True)
    return Inputs(
        context={**dict(row["context"]), **dict(row["context_numbers"])},
        normalized=normalized,
        numbers=_columns(row["number_fields"], row["numbers"]),
        texts={name: np.array(values, object) for name, values in texts},
        stored=_columns(row["store_fields"] or (), row["stored"] or ()),
    )


def _columns(names: Sequence[str], values: Sequence[Sequence[float]]) -> dict[str, FloatColumn]:
    return {name: np.array(column, np.float64) for name, column in zip(names, values, strict=True)}


def _matrix(lists: pa.Array, rows: int, width: int) -> Any:
    return lists.flatten().to_numpy().reshape(rows, width)
