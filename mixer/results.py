"""What a client gets: the answer of a search as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from backends.base import FloatColumn
from mixer.values import ModelRef
from protos.mixer.v1 import mixer_pb2 as pb


@dataclass(frozen=True, slots=True)
class Source:
    """A backend that returned the document: its rank there (from 1) and raw score."""

    backend: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """One document of the page."""

    id: str
    rank: int
    score: float
    fused_score: float
    fused_rank: int
    fields: Mapping[str, str | float]
    sources: tuple[Source, ...]
    pinned: bool
    team: str = ""
    """The arm that picked it, in a list that two drafted; empty unless features were asked for."""


@dataclass(frozen=True, slots=True)
class BackendReport:
    """How one backend answered."""

    backend: str
    outcome: str
    elapsed_ms: float
    hits: int
    detail: str
    index_version: str
    attempts: int = 1
    """How often it was asked; 0 where it was skipped."""
    hedged: bool = False
    """It was asked again beside a call that took long."""
    breaker: str = ""
    """The state of its circuit breaker; empty where it has none."""


@dataclass(frozen=True, slots=True)
class StoreReport:
    """How one feature store answered: rows looked up, of them those that its cache knew and those that there are."""

    store: str
    outcome: str
    elapsed_ms: float
    asked: int
    cached: int
    found: int
    unreadable: int
    """Values that are no finite number; they count as missing."""
    detail: str


@dataclass(frozen=True, slots=True)
class SearchResult:
    """One page, and how it came about."""

    hits: tuple[Hit, ...]
    query_id: str
    trace_id: str
    mix: str
    candidates: int
    next_cursor: str
    elapsed_ms: float
    ranker: str
    model: ModelRef | None
    degraded: bool
    degraded_reasons: tuple[str, ...]
    backends: tuple[BackendReport, ...]
    drops: Mapping[str, int]
    """Hits or scores left out, by `backend: reason`."""
    feature_names: tuple[str, ...]
    features: FloatColumn
    """(hits, features), NaN for missing; empty unless asked for."""
    arm: str = ""
    """Of the mix's experiment; empty where the request was in none."""
    stores: tuple[StoreReport, ...] = ()
    quality: float = 1.0
    """1 where nothing was left out for load."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a hit stood after each step, from 1, and what each backend adds to its fused score."""

    fused_rank: int
    scored_rank: int
    spread_rank: int
    """After the rule for diversity; 0 where that is not known."""
    rank: int
    """Where it stands, or would stand by the model that was asked for."""
    served_rank: int
    """Where it stood when it was served."""
    votes: tuple[float, ...]
    """One a backend of the answer; none where they are not known."""


@dataclass(frozen=True, slots=True)
class ExplainResult:
    """Hits of an answer, and why they stand where they stand."""

    answer: SearchResult
    """The explained hits alone, with their features."""
    placements: tuple[Placement, ...]
    bias: float
    """The model's mean score."""
    contributions: FloatColumn
    """(m, features): what each feature adds to the score of the first m hits; a row and the bias add up to it."""
    lacking: str
    """Why m is not all of them."""
    served_by: ModelRef | None
    """The model that ranked what was served, where one did; another than the answer's where that was asked for."""


def explained_from(message: pb.ExplainResponse) -> ExplainResult:
    """The values of an explanation's message."""
    answer, parts = result_from(message.answer), message.contributions
    return ExplainResult(
        answer=answer,
        placements=tuple(
            Placement(p.fused_rank, p.scored_rank, p.spread_rank, p.rank, p.served_rank, tuple(p.votes))
            for p in message.placements
        ),
        bias=parts.bias,
        contributions=np.array(parts.values, np.float64).reshape(-1, max(len(answer.feature_names), 1)),
        lacking=parts.lacking,
        served_by=_ref(message.served_by) if message.HasField("served_by") else None,
    )


def result_from(message: pb.SearchResponse) -> SearchResult:
    """The values of an answer's message."""
    execution, names = message.execution, tuple(message.features.names)
    return SearchResult(
        hits=tuple(map(_hit, message.hits)),
        query_id=message.query_id,
        trace_id=message.trace_id,
        mix=message.mix,
        candidates=message.candidates,
        next_cursor=message.next_cursor,
        elapsed_ms=execution.elapsed_ms,
        ranker=_word(pb.Ranker.Name(execution.ranker), "RANKER_"),
        model=_ref(execution.model) if execution.HasField("model") else None,
        degraded=execution.degraded,
        degraded_reasons=tuple(execution.degraded_reasons),
        backends=tuple(map(_report, execution.backends)),
        drops={f"{drop.backend}: {drop.reason}": drop.count for drop in execution.drops},
        feature_names=names,
        features=np.array(message.features.values, np.float64).reshape(
            len(message.hits) if names else 0, len(names)
        ),
        arm=message.arm,
        stores=tuple(map(_store_report, execution.stores)),
        quality=execution.quality,
    )


def _ref(model: pb.Model) -> ModelRef:
    return ModelRef(model.name, model.version, model.sha256)


def _hit(hit: pb.Hit) -> Hit:
    return Hit(
        id=hit.id,
        rank=hit.rank,
        score=hit.score,
        fused_score=hit.fused_score,
        fused_rank=hit.fused_rank,
        fields={name: _plain(value) for name, value in hit.fields.items()},
        sources=tuple(Source(source.backend, source.rank, source.score) for source in hit.sources),
        pinned=hit.pinned,
        team=hit.team,
    )


def _report(report: pb.BackendExecution) -> BackendReport:
    outcome = _word(pb.Outcome.Name(report.outcome), "OUTCOME_")
    return BackendReport(
        report.backend,
        outcome,
        report.elapsed_ms,
        report.hits,
        report.detail,
        report.index_version,
        report.attempts,
        report.hedged,
        report.breaker,
    )


def _store_report(told: pb.StoreExecution) -> StoreReport:
    outcome = _word(pb.Outcome.Name(told.outcome), "OUTCOME_")
    counts = (told.asked, told.cached, told.found, told.unreadable)
    return StoreReport(told.store, outcome, told.elapsed_ms, *counts, told.detail)


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def _plain(value: pb.Value) -> str | float:
    return value.text if value.WhichOneof("kind") == "text" else value.number
