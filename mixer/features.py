"""Candidates to the columns a model sees: one path for training, serving, replay and explanation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.base import FloatColumn
from mixer.schema import (
    BackendFeature,
    ContextFeature,
    Feature,
    FirstFeature,
    MixFeature,
    NumberFeature,
    NumberInQueryFeature,
    QueryFeature,
    StoreFeature,
    TextFeature,
)
from mixer.text import (
    Overlap,
    QueryWords,
    any_of,
    coverage,
    field_coverage,
    field_pair_coverage,
    greatest,
    pair_coverage,
    weighted_coverage,
)
from mixer.values import Candidates, Features, IntColumn, Plan, Request
from mixer.walk import compiled

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_QUOTES = "\"'`“”‘’«»"


class MakeFeatures:
    """The stage: makes the declared features of every candidate."""

    def __init__(self, declared: Sequence[Feature]) -> None:
        """The columns come out in this order."""
        self._declared = tuple(declared)
        self._names = tuple(feature.name for feature in declared)
        defaults = [np.nan if feature.default is None else feature.default for feature in declared]
        rules = [(*f.bounds, default) for f, default in zip(declared, defaults, strict=True)]
        self._rules = np.array(rules, np.float64).reshape(-1, 3)
        _fill_blanks(np.empty((len(declared), 0)), self._rules)  # compiled, or loaded compiled

    def __call__(self, plan: Plan, candidates: Candidates) -> Features:
        """Float64 (n, f): values out of range count as such and, like missing ones, become the default."""
        facts = Facts(plan.request, candidates)
        columns = np.empty((len(self._declared), len(candidates)))
        for feature, column in zip(self._declared, columns, strict=True):
            made = _COLUMNS[type(feature)](feature, facts)
            column[:] = _relative(made) if feature.relative else made
        missing, outside = _fill_blanks(columns, self._rules)
        return Features(self._names, columns.T, missing, outside)


@compiled
def _fill_blanks(columns: FloatColumn, rules: FloatColumn) -> tuple[IntColumn, IntColumn]:
    """Put the defaults where values of columns (f, n) are missing or out of range, and count those (f,) and (f,).

    Rules (f, 3) are the ends of the range, both inclusive, and the default.
    """
    missing, outside = np.zeros(len(rules), np.intp), np.zeros(len(rules), np.intp)
    for feature in range(len(rules)):
        low, high, default = rules[feature]
        for row in range(columns.shape[1]):
            value = columns[feature, row]
            if np.isnan(value):
                missing[feature] += 1
                columns[feature, row] = default
            elif value < low or value > high:
                outside[feature] += 1
                columns[feature, row] = default
    return missing, outside


class Facts:
    """What the columns of one request are made from; shared work is done once, and only when asked for."""

    def __init__(self, request: Request, candidates: Candidates) -> None:
        """Takes one request and its n candidates."""
        self.request = request
        self.candidates = candidates
        self._overlaps: dict[str, Overlap] = {}

    @cached_property
    def query_words(self) -> QueryWords:
        """The query's words."""
        return QueryWords(self.request.query)

    @cached_property
    def query_numbers(self) -> FloatColumn:
        """The numbers written in the query."""
        return np.array([float(found) for found in _NUMBER.findall(self.request.query)])

    def number(self, field: str) -> FloatColumn:
        """A numeric field (n,); all missing where no backend sent it."""
        column = self.candidates.numbers.get(field)
        return np.full(len(self.candidates), np.nan) if column is None else column

    def stored(self, store: str, field: str) -> FloatColumn:
        """A field of a feature store (n,); all missing where that was not asked."""
        columns = (s.columns.get(field) for s in self.candidates.stores if s.store == store)
        column = next(columns, None)
        return np.full(len(self.candidates), np.nan) if column is None else column

    def overlap(self, field: str) -> Overlap:
        """How a text field meets the query; an absent field is empty everywhere."""
        if field not in self._overlaps:
            texts = self.candidates.texts.get(field)
            column = [""] * len(self.candidates) if texts is None else texts.tolist()
            self._overlaps[field] = self.query_words.overlap(column)
        return self._overlaps[field]


def _backend(feature: BackendFeature, facts: Facts) -> FloatColumn:
    candidates = facts.candidates
    if feature.backend not in candidates.backends:
        return np.full(len(candidates), np.nan)
    row = candidates.backends.index(feature.backend)
    if feature.value in ("score", "normalized"):
        columns = candidates.scores if feature.value == "score" else candidates.normalized
        column: FloatColumn = columns[row]
        return column
    ranks: NDArray[np.int32] = candidates.ranks[row]
    if feature.value == "present":
        return (ranks > 0).astype(np.float64)
    return np.where(ranks > 0, ranks, np.nan)


def _mix(feature: MixFeature, facts: Facts) -> FloatColumn:
    if feature.value == "fused":
        return facts.candidates.fused
    votes: FloatColumn = (facts.candidates.ranks > 0).sum(axis=0).astype(np.float64)
    return votes


def _number(feature: NumberFeature, facts: Facts) -> FloatColumn:
    return facts.number(feature.field)


def _number_in_query(feature: NumberInQueryFeature, facts: Facts) -> FloatColumn:
    return np.isin(facts.number(feature.field), facts.query_numbers).astype(np.float64)


def _query(feature: QueryFeature, facts: Facts) -> float:
    query = facts.request.query
    if feature.value == "words":
        return float(len(facts.query_words.words))
    if feature.value == "digits":
        return float(sum(map(str.isdigit, query)))
    if feature.value == "quotes":
        return float(sum(map(query.count, _QUOTES)))
    return float(len(query))


def _text(feature: TextFeature, facts: Facts) -> FloatColumn:
    return _MEASURES[feature.measure]([facts.overlap(field) for field in feature.fields])


def _first(feature: FirstFeature, facts: Facts) -> FloatColumn | float:
    if not len(facts.candidates):
        return np.nan
    return facts.overlap(feature.field).text.share_of(int(facts.candidates.prior[0]))


def _context(feature: ContextFeature, facts: Facts) -> float:
    value = facts.request.context.get(feature.key)
    if isinstance(value, str):
        return float(feature.levels.index(value)) if value in feature.levels else np.nan
    return np.nan if value is None or feature.levels else float(value)


def _store(feature: StoreFeature, facts: Facts) -> FloatColumn:
    return facts.stored(feature.store, feature.field)


def _relative(column: FloatColumn | float) -> FloatColumn:
    """The column as shares of its greatest value; missing where nothing is above 0."""
    values = np.atleast_1d(np.asarray(column, np.float64))
    known = values[np.isfinite(values)]
    top = float(known.max()) if len(known) else 0.0
    return values / top if top > 0 else np.full(len(values), np.nan)


_COLUMNS: Mapping[type, Callable[[Any, Facts], FloatColumn | float]] = {
    BackendFeature: _backend,
    MixFeature: _mix,
    NumberFeature: _number,
    NumberInQueryFeature: _number_in_query,
    QueryFeature: _query,
    TextFeature: _text,
    FirstFeature: _first,
    ContextFeature: _context,
    StoreFeature: _store,
}

_MEASURES: Mapping[str, Callable[[Sequence[Overlap]], FloatColumn]] = {
    "query_coverage": coverage,
    "weighted_coverage": weighted_coverage,
    "field_coverage": field_coverage,
    "exact": lambda overlaps: any_of(overlaps, [o.exact for o in overlaps]),
    "starts_with_query": lambda overlaps: any_of(overlaps, [o.starts for o in overlaps]),
    "inside_query": lambda overlaps: any_of(overlaps, [o.inside for o in overlaps]),
    "pair_coverage": pair_coverage,
    "field_pair_coverage": field_pair_coverage,
    "similarity": lambda overlaps: greatest(overlaps, [o.similarity for o in overlaps]),
    "letters": lambda overlaps: greatest(overlaps, [o.letters for o in overlaps]),
    "phrase": lambda overlaps: any_of(overlaps, [o.phrase for o in overlaps]),
    "last_word_prefix": lambda overlaps: any_of(overlaps, [o.last_word_prefix for o in overlaps]),
    "words": lambda overlaps: np.sum([o.words for o in overlaps], axis=0).astype(np.float64),
}
