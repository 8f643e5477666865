"""Answers to rows of the feature log: one row a request, its candidates as lists in the order of the final ranking.

Everything that a model saw and said is kept to the bit. The columns are those of any Arrow or Parquet reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from backends.base import FloatColumn
from mixer.schema import Feature, fields_read, schema_hash
from mixer.slices import NO_SLICES, Slices
from mixer.values import Answer, Candidates, IntColumn, ModelRef

_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())
_DOUBLES, _DOUBLE_LISTS = pa.list_(pa.float64()), pa.list_(pa.list_(pa.float64()))

SCHEMA = pa.schema(
    [
        ("query_id", _TEXT),
        ("trace_id", _TEXT),
        ("time", pa.timestamp("us", "UTC")),
        ("mix", _TEXT),
        ("arm", _TEXT),
        ("query", _TEXT),
        ("context", pa.map_(_TEXT, _TEXT)),
        ("slices", pa.map_(_TEXT, _TEXT)),
        ("model_name", _TEXT),
        ("model_version", _TEXT),
        ("model_sha256", _TEXT),
        ("schema_sha256", _TEXT),
        ("ranker", _TEXT),
        ("scorer", _TEXT),
        ("fallback_reason", _TEXT),
        ("degraded", pa.bool_()),
        ("backends", _TEXTS),
        ("backend_outcomes", _TEXTS),
        ("index_versions", _TEXTS),
        ("stores", _TEXTS),
        ("store_outcomes", _TEXTS),
        ("feature_names", _TEXTS),
        ("page_offset", pa.int32()),
        ("page_size", pa.int32()),
        ("ids", _TEXTS),
        ("scores", _DOUBLES),
        ("fused", _DOUBLES),
        ("fused_ranks", pa.list_(pa.int32())),
        ("propensities", _DOUBLES),
        ("ranks", pa.list_(pa.list_(pa.int32()))),
        ("backend_scores", _DOUBLE_LISTS),
        ("features", _DOUBLE_LISTS),
        ("member_models", _TEXTS),
        ("member_scores", _DOUBLE_LISTS),
        ("teams", _TEXTS),
    ]
)
"""What every row has; texts that say nothing are empty, a query that is not to be kept is null.

`slices` names the value of each slice that the mix declares, as metrics do: it is known also where the query is not.

Of `ids`, `scores`, `fused`, `fused_ranks` and `propensities` value i is of the hit in place i + 1. `ranks`,
`backend_scores` and `features` hold a list a hit: a value a backend (0 or NaN for absent), or a value a feature (NaN
for missing). `member_scores` holds a list a member of the ensemble that ranked, one unweighted score a hit; where one
model did, both columns are empty. A list that two arms drafted has the control's scores there by the name of its arm;
`teams` names for each of its hits the arm that picked it, or none, and is empty for any other list.
"""

INPUTS = pa.schema(
    [
        ("context_numbers", pa.map_(_TEXT, pa.float64())),
        ("normalized", _DOUBLE_LISTS),
        ("number_fields", _TEXTS),
        ("numbers", _DOUBLE_LISTS),
        ("text_fields", _TEXTS),
        ("texts", pa.list_(_TEXTS)),
        ("store_fields", _TEXTS),
        ("stored", _DOUBLE_LISTS),
    ]
)
"""What a row has besides, where features are to be made again from it.

`normalized` holds a list a hit, like `ranks`. `numbers`, `texts` and `stored` hold a list a field, one value a hit;
`store_fields` names the store and, after a dot, the field. Of the context's values those that were numbers stand in
`context_numbers` too.
"""


class Entry(NamedTuple):
    """One answer to be logged; all that it refers to stays as it is."""

    answer: Answer
    trace_id: str
    time_us: int
    """Unix time."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What the rows of one mix say of its features, and its slices."""

    schema_sha256: str
    fields: frozenset[str]
    """Of the document, from which features are made."""
    slices: Slices = NO_SLICES

    @classmethod
    def of(cls, features: Sequence[Feature], slices: Slices = NO_SLICES) -> Declared:
        """Of a mix that declares these."""
        return cls(schema_hash(features), fields_read(features), slices)


class Conversion:
    """Makes rows of answers; pure."""

    def __init__(
        self, mixes: Mapping[str, Declared], shown: Callable[[str], str | None], inputs: bool = False
    ) -> None:
        """`shown` is how a query may be kept; `inputs` adds the columns of INPUTS."""
        self._mixes, self._shown, self._inputs = mixes, shown, inputs
        self.schema = pa.unify_schemas([SCHEMA, INPUTS]) if inputs else SCHEMA

    def __call__(self, entries: Sequence[Entry]) -> pa.RecordBatch:
        """A row an entry; there must be one. Raises: ValueError where a text is not Unicode."""
        answers = [entry.answer for entry in entries]
        columns = {**self._of_requests(entries), **_of_answers(answers), **_of_hits(answers)}
        if self._inputs:
            columns |= self._of_inputs(answers)
        return pa.RecordBatch.from_pydict(columns, self.schema)

    def _of_requests(self, entries: Sequence[Entry]) -> dict[str, Any]:
        requests = [entry.answer.plan.request for entry in entries]
        return {
            "query_id": [request.query_id for request in requests],
            "trace_id": [entry.trace_id for entry in entries],
            "time": [entry.time_us for entry in entries],
            "mix": [request.mix for request in requests],
            "query": [self._shown(request.query) for request in requests],
            "context": [
                [(key, str(value)) for key, value in request.context.items()] for request in requests
            ],
            "slices": [
                list(self._mixes[entry.answer.plan.request.mix].slices.of_answer(entry.answer).items())
                for entry in entries
            ],
            "schema_sha256": [self._mixes[request.mix].schema_sha256 for request in requests],
        }

    def _of_inputs(self, answers: Sequence[Answer]) -> dict[str, Any]:
        fields = [self._mixes[answer.plan.request.mix].fields for answer in answers]
        numbers = [_read(answer.candidates.numbers, wanted) for answer, wanted in _each(answers, fields)]
        texts = [_read(answer.candidates.texts, wanted) for answer, wanted in _each(answers, fields)]
        stored = [_stored(answer.candidates) for answer in answers]
        orders = [answer.page.order for answer in answers]
        contexts = [answer.plan.request.context.items() for answer in answers]
        return {
            "context_numbers": [
                [pair for pair in pairs if not isinstance(pair[1], str)] for pairs in contexts
            ],
            "normalized": _by_hit([_normalized(answer.candidates) for answer in answers], orders),
            "number_fields": [list(held) for held in numbers],
            "numbers": _by_field(numbers, orders, pa.float64()),
            "text_fields": [list(held) for held in texts],
            "texts": _by_field(texts, orders, _TEXT),
            "store_fields": [list(held) for held in stored],
            "stored": _by_field(stored, orders, pa.float64()),
        }


def _of_answers(answers: Sequence[Answer]) -> dict[str, Any]:
    scores = [answer.scores for answer in answers]
    models = [score.model or _NO_MODEL for score in scores]
    return {
        "arm": [answer.arm for answer in answers],
        "model_name": [model.name for model in models],
        "model_version": [model.version for model in models],
        "model_sha256": [model.sha256 for model in models],
        "ranker": [score.ranker.value for score in scores],
        "scorer": [score.scorer for score in scores],
        "fallback_reason": [score.fallback_reason for score in scores],
        "degraded": [bool(answer.degraded_reasons) for answer in answers],
        "backends": [[reply.backend for reply in answer.replies] for answer in answers],
        "backend_outcomes": [[reply.outcome.value for reply in answer.replies] for answer in answers],
        "index_versions": [[reply.index.version for reply in answer.replies] for answer in answers],
        "stores": [[stored.store for stored in answer.candidates.stores] for answer in answers],
        "store_outcomes": [
            [stored.outcome.value for stored in answer.candidates.stores] for answer in answers
        ],
        "feature_names": [list(answer.features.names) for answer in answers],
        "page_offset": [answer.page.offset for answer in answers],
        "page_size": [answer.page.size for answer in answers],
    }


_NO_MODEL = ModelRef("", "", "")


def _of_hits(answers: Sequence[Answer]) -> dict[str, pa.Array]:
    candidates, orders = [answer.candidates for answer in answers], [answer.page.order for answer in answers]
    places = [np.argsort(held.prior)[order] + 1 for held, order in _each(candidates, orders)]
    ids = [pa.array(held.ids, _TEXT).take(pa.array(order)) for held, order in _each(candidates, orders)]
    values = [answer.scores.values[order] for answer, order in _each(answers, orders)]
    members = [answer.scores.members for answer in answers]
    return {
        "member_models": [list(held) for held in members],
        "member_scores": _by_field(members, orders, pa.float64()),
        "teams": [answer.page.draft.names() if answer.page.draft else [] for answer in answers],
        "ids": _lists(pa.concat_arrays(ids), map(len, orders)),
        "scores": _lists(np.concatenate(values), map(len, orders)),
        "fused": _lists(_concatenated([held.fused for held in candidates], orders), map(len, orders)),
        "fused_ranks": _lists(np.concatenate(places).astype(np.int32), map(len, orders)),
        "propensities": _lists(
            np.concatenate([_propensities(answer) for answer in answers]), map(len, orders)
        ),
        "ranks": _by_hit([held.ranks for held in candidates], orders),
        "backend_scores": _by_hit([held.scores for held in candidates], orders),
        "features": _by_hit([answer.features.matrix.T for answer in answers], orders),
    }


def _propensities(answer: Answer) -> NDArray[np.float64]:
    page = answer.page
    return np.ones(len(page.order)) if page.propensities is None else page.propensities[page.order]


def _each(answers: Sequence[Any], others: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(answers, others, strict=True)


def _concatenated(columns: Sequence[NDArray[Any]], orders: Sequence[IntColumn]) -> NDArray[Any]:
    return np.concatenate([column[order] for column, order in _each(columns, orders)])


def _normalized(candidates: Candidates) -> FloatColumn:
    """(b, n); all missing where the mix reads none."""
    held = candidates.normalized.shape == candidates.scores.shape
    return candidates.normalized if held else np.full(candidates.scores.shape, np.nan)


def _stored(candidates: Candidates) -> dict[str, FloatColumn]:
    """Columns (n,) by store and field."""
    return {
        f"{stored.store}.{field}": column
        for stored in candidates.stores
        for field, column in stored.columns.items()
    }


def _by_hit(matrices: Sequence[NDArray[Any]], orders: Sequence[IntColumn]) -> pa.Array:
    """Of matrices (w, n), every answer's list of its hits' lists of w values."""
    rows = [matrix.T[order] for matrix, order in _each(matrices, orders)]
    widths = np.concatenate([np.full(*matrix.shape) for matrix in rows])
    hits = _lists(np.concatenate([matrix.reshape(-1) for matrix in rows]), widths)
    return _lists(hits, map(len, rows))


def _by_field(
    held: Sequence[Mapping[str, NDArray[Any]]], orders: Sequence[IntColumn], kind: pa.DataType
) -> pa.Array:
    """Every answer's list of its fields' lists of one value a hit."""
    columns = [column[order] for fields, order in _each(held, orders) for column in fields.values()]
    values = pa.array(np.concatenate([*columns, np.empty(0, object if kind == _TEXT else None)]), kind)
    return _lists(_lists(values, map(len, columns)), map(len, held))


def _lists(values: NDArray[Any] | pa.Array, lengths: Iterable[int]) -> pa.Array:
    """Values, one after the other, as lists of these lengths."""
    ends = np.fromiter(chain([0], lengths), np.int32).cumsum(dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values))


def _read(columns: Mapping[str, NDArray[Any]], wanted: frozenset[str]) -> dict[str, NDArray[Any]]:
    return {name: column for name, column in columns.items() if name in wanted}
