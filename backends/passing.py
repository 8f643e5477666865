"""Which rows pass a query's filters, exactly: for engines whose own index knows no filters."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from backends import filters
from backends.base import Filter, Range
from backends.columns import Columns, Rows, mapped
from backends.schema import Document, Schema

_FOLDER = "keywords"

Mask = NDArray[np.bool_]


class _Keyword:
    """The rows that hold each value of one keyword field."""

    def __init__(self, stem: Path) -> None:
        values = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        self._place = {value: place for place, value in enumerate(values)}
        self._ends, self._rows = mapped(stem.with_suffix(".ends.npy")), mapped(stem.with_suffix(".rows.npy"))

    def rows(self, values: Iterable[str | float]) -> list[Rows]:
        places = [self._place[value] for value in values if isinstance(value, str) and value in self._place]
        return [self._rows[self._ends[place] : self._ends[place + 1]] for place in places]


class Passing:
    """Filters over an opened index, looked up in memory; safe in many threads."""

    def __init__(self, folder: Path, schema: Schema, columns: Columns) -> None:
        """`folder` is the index folder that `write_keywords` wrote into."""
        self._columns = columns
        self._row = {id_: row for row, id_ in enumerate(columns.ids())}
        self._keywords = {name: _Keyword(folder / _FOLDER / name) for name in schema.names("keyword")}

    def rows(self, asked: Sequence[Filter]) -> Rows:
        """The rows for which every filter holds, in order; a document without the field never passes."""
        mask = np.ones(len(self._row), dtype=np.bool_)
        for item in asked:
            mask &= self._mask(item)
        return np.flatnonzero(mask)

    def _mask(self, item: Filter) -> Mask:
        if item.field in self._columns.numbers:
            return self._number_mask(item)
        values = () if isinstance(item.condition, Range) else filters.values_of(item.condition)
        mask = np.zeros(len(self._row), dtype=np.bool_)
        if item.field == "id":
            mask[[row for value in values if (row := self._row.get(str(value))) is not None]] = True
        else:
            for rows in self._keywords[item.field].rows(values):
                mask[rows] = True
        return mask

    def _number_mask(self, item: Filter) -> Mask:
        numbers = self._columns.numbers[item.field]
        if isinstance(item.condition, Range):
            low, high = item.condition.min, item.condition.max
            return (numbers >= (-np.inf if low is None else low)) & (
                numbers <= (np.inf if high is None else high)
            )
        return np.isin(numbers, np.array(filters.values_of(item.condition), dtype=np.float64))


def write_keywords(documents: Sequence[Document], schema: Schema, folder: Path) -> None:
    """Write the rows of every keyword into an index folder."""
    (folder / _FOLDER).mkdir()
    for name in schema.names("keyword"):
        held: dict[str, list[int]] = {}
        for row, document in enumerate(documents):
            for value in dict.fromkeys(document.texts.get(name, ())):
                held.setdefault(value, []).append(row)
        _write(folder / _FOLDER / name, held)


def _write(stem: Path, held: dict[str, list[int]]) -> None:
    stem.with_suffix(".json").write_text(json.dumps(list(held)), encoding="utf-8")
    np.save(stem.with_suffix(".ends.npy"), np.cumsum([0, *map(len, held.values())], dtype=np.int64))
    np.save(
        stem.with_suffix(".rows.npy"),
        np.array([row for rows in held.values() for row in rows], dtype=np.intp),
    )
