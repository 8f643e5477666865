"""Document fields as columns on disk, read by row: what engines show of the documents they found.

Numbers and offsets are `.npy` files, texts one UTF-8 blob a field; all are mapped, not loaded.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn, Hits, Index, Query
from backends.schema import Document, Schema

Rows = NDArray[np.intp]

_FOLDER = "columns"


class _Texts:
    """Row i of a blob of UTF-8."""

    def __init__(self, stem: Path) -> None:
        self._starts = mapped(stem.with_suffix(".npy"))
        with stem.with_suffix(".utf8").open("rb") as blob:
            # An empty file cannot be mapped.
            empty = int(self._starts[-1]) == 0
            self._blob: mmap.mmap | bytes = (
                b"" if empty else mmap.mmap(blob.fileno(), 0, access=mmap.ACCESS_READ)
            )

    def __len__(self) -> int:
        return len(self._starts) - 1

    def take(self, rows: Rows) -> list[str]:
        starts, ends = self._starts[rows].tolist(), self._starts[rows + 1].tolist()
        return [str(self._blob[start:end], "utf-8") for start, end in zip(starts, ends, strict=True)]


class Columns:
    """The columns of an index, opened for reading; safe in many threads."""

    def __init__(self, folder: Path, schema: Schema) -> None:
        """`folder` is the index folder that `write` wrote into."""
        held = folder / _FOLDER
        self._ids = _Texts(held / "id")
        self._texts = {name: _Texts(held / name) for name in schema.names("text", "keyword")}
        self.numbers: dict[str, FloatColumn] = {
            name: mapped(held / f"{name}.npy") for name in schema.names("number")
        }
        """Each of shape (documents,), NaN for missing."""

    def hits(self, rows: Rows, scores: FloatColumn, query: Query, index: Index) -> Hits:
        """The documents of these rows with the fields that the query wants and the index holds."""
        return Hits(
            ids=self._ids.take(rows),
            scores=scores,
            numbers={name: self.numbers[name][rows] for name in query.fields if name in self.numbers},
            texts={name: self._texts[name].take(rows) for name in query.fields if name in self._texts},
            index=index,
        )

    def ids(self) -> list[str]:
        """Every id, by row."""
        return self._ids.take(np.arange(len(self._ids)))


def mapped(path: Path) -> NDArray[Any]:
    """A `.npy` file, read as it is needed."""
    return np.asarray(np.load(path, mmap_mode="r"))


def write(documents: Sequence[Document], schema: Schema, folder: Path) -> None:
    """Write the columns of the documents, in their order, into an index folder."""
    held = folder / _FOLDER
    held.mkdir()
    _write_texts(held / "id", [document.id for document in documents])
    for name in schema.names("text", "keyword"):
        _write_texts(held / name, [document.shown(name) for document in documents])
    for name in schema.names("number"):
        values = [document.numbers.get(name, np.nan) for document in documents]
        np.save(held / f"{name}.npy", np.array(values, dtype=np.float64))


def _write_texts(stem: Path, texts: list[str]) -> None:
    encoded = [text.encode() for text in texts]
    starts = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    np.save(stem.with_suffix(".npy"), starts)
    stem.with_suffix(".utf8").write_bytes(b"".join(encoded))
