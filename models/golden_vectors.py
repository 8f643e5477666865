"""Golden vectors: what goes into a model's ranking and what must come out, for code in any language to verify itself.

The file is JSON. Each vector holds a request, what every backend replied and every feature store held, and what is
expected: the merged ids, the fused scores, the features, the raw scores, and the order. `rows` are features and scores
alone, at the edges of the forest: values on a threshold and beside it, missing ones, zeros, categories never seen. A
missing number is null; every number is written with the digits that give back the same double.

Features must come out within TOLERANCE, which leaves room for the last bit of a logarithm or of a sum taken in another
order; scores, from the expected features, to the last bit. A zero and a minus zero are the same value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from backends.base import FloatColumn, Hits
from mixer.arrange import total_order
from mixer.features import MakeFeatures
from mixer.manifest import Manifest, Record
from mixer.merge import Merge
from mixer.model import LightGbmModel
from mixer.schema import Feature, schema_hash
from mixer.settings import LinearSettings, MixBackendSettings, MixSettings, RrfSettings
from mixer.values import Candidates, Outcome, Plan, Ranker, Reply, Request, Scores, Stored

TOLERANCE = 1e-12
"""Of a feature, relative to its size."""

Numbers = tuple[float | None, ...]


class VectorReply(Record):
    """What one backend replied, best first: columns of one length. One that did not answer has no ids."""

    backend: str
    answered: bool = True
    ids: tuple[str, ...] = ()
    scores: Numbers = ()
    numbers: Mapping[str, Numbers] = Field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)


class VectorStore(Record):
    """What one feature store held: a row a document's id, a value a field. One that is not there has none."""

    store: str
    fields: tuple[str, ...]
    rows: Mapping[str, Numbers]


class Expected(Record):
    """What must come out: `fused`, rows of `features` and `scores` stand in the order of `ids`."""

    ids: tuple[str, ...]
    fused: tuple[float, ...]
    features: tuple[Numbers, ...]
    scores: tuple[float, ...]
    order: tuple[str, ...]
    """Best first, before any rule of the mix."""


class Input(Record):
    """What goes in, and what it is there to find out."""

    why: str
    query: str
    context: Mapping[str, str | float] = Field(default_factory=dict)
    replies: tuple[VectorReply, ...]
    stores: tuple[VectorStore, ...] = ()


class Vector(Input):
    """What goes in, and what must come out."""

    expected: Expected


class Row(Record):
    """One row of features, and its raw score."""

    features: Numbers
    score: float


class Model(Record):
    """The model that the scores are of."""

    name: str
    version: str
    sha256: str


class GoldenVectors(Record):
    """The whole file."""

    format: Literal[1] = 1
    model: Model
    schema_sha256: str
    features: tuple[Feature, ...]
    backends: dict[str, MixBackendSettings]
    fusion: Annotated[RrfSettings | LinearSettings, Field(discriminator="kind")] = RrfSettings()
    tolerance: float = TOLERANCE
    vectors: tuple[Vector, ...]
    rows: tuple[Row, ...] = ()

    @property
    def mix(self) -> MixSettings:
        """The part of a mix's settings that shapes features and order."""
        return MixSettings(backends=self.backends, fusion=self.fusion, features=self.features)


def make(model: LightGbmModel, mix: MixSettings, inputs: Sequence[Input]) -> GoldenVectors:
    """What this model makes of the inputs in this mix; the rows are for `with_rows` to add."""
    return GoldenVectors(
        model=_named(model.manifest),
        schema_sha256=model.manifest.schema_sha256,
        features=model.manifest.features,
        backends=mix.backends,
        fusion=mix.fusion,
        vectors=tuple(
            Vector(**dict(given), expected=_expected(*_ranked(given, mix, model))) for given in inputs
        ),
    )


def with_rows(vectors: GoldenVectors, model: LightGbmModel, rows: FloatColumn) -> GoldenVectors:
    """The same, and what the model makes of rows (n, f) of features."""
    scored = zip(rows, model.score(rows).tolist(), strict=True)
    added = tuple(Row(features=_nullable(row), score=score) for row, score in scored)
    return vectors.model_copy(update={"rows": (*vectors.rows, *added)})


def read(path: Path) -> GoldenVectors:
    """A file of golden vectors. Raises: OSError; ValueError where it is not one."""
    try:
        return GoldenVectors.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def write(vectors: GoldenVectors, path: Path) -> None:
    """Write the file."""
    path.write_text(vectors.model_dump_json(indent=1) + "\n", encoding="utf-8")


def faults(vectors: GoldenVectors, model: LightGbmModel) -> Iterator[str]:
    """What this code and this model make otherwise than the file says; nothing where all is well."""
    if vectors.model.sha256 != model.ref.sha256:
        yield f"the vectors are of model {vectors.model.version}, not of {model.ref.version}"
        return
    if schema_hash(vectors.features) != model.manifest.schema_sha256:
        yield "the vectors' features are not those of the model"
        return
    for vector in vectors.vectors:
        yield from (f"{vector.why}: {fault}" for fault in _faults_of(vector, vectors.mix, model))
    scores = model.score(_matrix([row.features for row in vectors.rows], len(vectors.features)))
    expected = np.array([row.score for row in vectors.rows])
    yield from (f"row {place}: the score differs" for place in np.flatnonzero(scores != expected))


def _faults_of(vector: Vector, mix: MixSettings, model: LightGbmModel) -> Iterator[str]:
    expected = vector.expected
    candidates, matrix, _ = _ranked(vector, mix, model)
    if tuple(candidates.ids) != expected.ids:
        yield "other ids come out of the merge"
        return
    if not np.allclose(candidates.fused, expected.fused, rtol=TOLERANCE, atol=0):
        yield "the fused scores differ"
    wanted = _matrix(expected.features, len(mix.features))
    near = np.isclose(matrix, wanted, rtol=TOLERANCE, atol=0, equal_nan=True)
    for place in np.flatnonzero(~near.all(axis=0)).tolist():
        yield f"feature {mix.features[place].name} differs"
    scores = model.score(wanted)
    if not np.array_equal(scores, np.array(expected.scores)):
        yield "the scores of the expected features differ"
    elif _order(candidates, scores) != expected.order:
        yield "the order differs"


def _ranked(
    given: Input, mix: MixSettings, model: LightGbmModel
) -> tuple[Candidates, FloatColumn, FloatColumn]:
    """The candidates, their features and their scores, by the stages that serve."""
    request = Request(given.query, mix="", page_size=1, context=given.context)
    plan = Plan(request, calls=(), offset=0)
    candidates = Merge(mix)(plan, [_reply(reply) for reply in given.replies])
    candidates = replace(candidates, stores=tuple(_stored(held, candidates.ids) for held in given.stores))
    matrix = MakeFeatures(mix.features)(plan, candidates).matrix
    return candidates, matrix, model.score(matrix)


def _expected(candidates: Candidates, matrix: FloatColumn, scores: FloatColumn) -> Expected:
    return Expected(
        ids=tuple(candidates.ids),
        fused=tuple(candidates.fused.tolist()),
        features=tuple(map(_nullable, matrix)),
        scores=tuple(scores.tolist()),
        order=_order(candidates, scores),
    )


def _order(candidates: Candidates, scores: FloatColumn) -> tuple[str, ...]:
    order = total_order(candidates, Scores(scores, Ranker.MODEL))
    return tuple(candidates.ids[row] for row in order.tolist())


def _reply(reply: VectorReply) -> Reply:
    if not reply.answered:
        return Reply(reply.backend, Outcome.TIMEOUT, 0.0)
    numbers = {name: _column(values) for name, values in reply.numbers.items()}
    texts = {name: list(values) for name, values in reply.texts.items()}
    hits = Hits(list(reply.ids), _column(reply.scores), numbers, texts)
    if fault := hits.fault():
        raise ValueError(f"{reply.backend}: {fault}")
    return Reply(reply.backend, Outcome.OK, 0.0, hits)


def _stored(held: VectorStore, ids: Sequence[str]) -> Stored:
    nothing: Numbers = (None,) * len(held.fields)
    values = _matrix([held.rows.get(id_, nothing) for id_ in ids], len(held.fields))
    return Stored(held.store, Outcome.OK, 0.0, dict(zip(held.fields, values.T, strict=True)))


def _column(values: Numbers) -> FloatColumn:
    return np.array(values, np.float64).reshape(len(values))


def _matrix(rows: Sequence[Numbers], width: int) -> FloatColumn:
    return np.array(rows, np.float64).reshape(len(rows), width)


def _nullable(row: FloatColumn) -> Numbers:
    return tuple(None if value != value else value for value in row.tolist())


def _named(manifest: Manifest) -> Model:
    return Model(name=manifest.name, version=manifest.version, sha256=manifest.model_sha256)
