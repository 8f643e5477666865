"""Protobuf to values and back, pure. What is wrong with a request is collected, every field by its path."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from functools import lru_cache
from time import monotonic

import numpy as np

from backends.base import Equals, Filter, Index, Range, Terms
from mixer.errors import InvalidRequest, Violation
from mixer.settings import LimitSettings, MixSettings
from mixer.values import (
    Answer,
    Candidates,
    Features,
    IntColumn,
    ModelRef,
    Outcome,
    Ranker,
    Reply,
    Request,
    Stored,
)
from protos.mixer.v1 import mixer_pb2 as pb

YEAR_10000_S = 253_402_300_800
_OUTCOMES = {outcome: getattr(pb, f"OUTCOME_{outcome.name}") for outcome in Outcome}
_RANKERS = {ranker: getattr(pb, f"RANKER_{ranker.name}") for ranker in Ranker}


def request_from(
    message: pb.SearchRequest, mix: str, rules: MixSettings, limits: LimitSettings, time_left_s: float
) -> Request:
    """A checked request for this mix. Raises: InvalidRequest that names every wrong field."""
    wrong = [
        *_wrong_sizes(message, limits),
        *_wrong_filters(message, limits),
        *_wrong_context(message, limits),
    ]
    if wrong:
        raise InvalidRequest(wrong)
    return Request(
        query=message.query,
        mix=mix,
        page_size=message.page_size or rules.page_size,
        offset=message.offset,
        cursor=message.cursor,
        filters=tuple(map(_filter, message.filters)),
        context={key: _value(value) for key, value in message.context.items()},
        debug=message.debug == pb.DEBUG_LEVEL_FEATURES,
        query_id=message.request_id or f"{random.getrandbits(128):032x}",
        time_left_s=time_left_s,
        deadline_s=monotonic() + time_left_s,
    )


def _wrong_sizes(message: pb.SearchRequest, limits: LimitSettings) -> list[Violation]:
    wrong: list[Violation] = []
    if not message.query.strip():
        wrong.append(Violation("query", "is empty; send the user's words"))
    if len(message.query) > limits.query_chars:
        wrong.append(
            Violation("query", f"has {len(message.query)} characters; send {limits.query_chars} at most")
        )
    if not 0 <= message.page_size <= limits.page_size:
        wrong.append(Violation("page_size", f"is {message.page_size}; send 0 to {limits.page_size}"))
    if not 0 <= message.offset <= limits.candidates:
        wrong.append(Violation("offset", f"is {message.offset}; send 0 to {limits.candidates}"))
    if message.cursor and message.offset:
        wrong.append(Violation("offset", "goes without a cursor; send one of the two"))
    if len(message.request_id) > limits.text_chars:
        wrong.append(Violation("request_id", f"is longer than {limits.text_chars} characters"))
    return wrong


def _wrong_filters(message: pb.SearchRequest, limits: LimitSettings) -> list[Violation]:
    if len(message.filters) > limits.filters:
        return [Violation("filters", f"has {len(message.filters)}; send {limits.filters} at most")]
    wrong: list[Violation] = []
    for place, item in enumerate(message.filters):
        path, kind = f"filters[{place}]", item.WhichOneof("condition")
        if not item.field:
            wrong.append(Violation(f"{path}.field", "is empty; name a document field or id"))
        if kind is None:
            wrong.append(Violation(path, "has no condition; set equals, range or terms"))
        elif kind == "equals":
            wrong.extend(_wrong_value(item.equals, f"{path}.equals", limits))
        elif kind == "range":
            wrong.extend(_wrong_range(item.range, f"{path}.range"))
        else:
            wrong.extend(_wrong_terms(item.terms, f"{path}.terms", limits))
    return wrong


def _wrong_terms(terms: pb.Terms, path: str, limits: LimitSettings) -> list[Violation]:
    if not 0 < len(terms.values) <= limits.terms:
        return [Violation(f"{path}.values", f"has {len(terms.values)}; send 1 to {limits.terms}")]
    return [w for i, v in enumerate(terms.values) for w in _wrong_value(v, f"{path}.values[{i}]", limits)]


def _wrong_range(item: pb.Range, path: str) -> list[Violation]:
    if not item.HasField("min") and not item.HasField("max"):
        return [Violation(path, "is open at both ends; set min, max or both")]
    if math.isnan(item.min) or math.isnan(item.max):
        return [Violation(path, "has an end that is not a number")]
    if item.HasField("min") and item.HasField("max") and item.min > item.max:
        return [Violation(path, f"is empty: min {item.min:g} is above max {item.max:g}")]
    return []


def _wrong_context(message: pb.SearchRequest, limits: LimitSettings) -> list[Violation]:
    if len(message.context) > limits.context_keys:
        return [Violation("context", f"has {len(message.context)} keys; send {limits.context_keys} at most")]
    wrong: list[Violation] = []
    for key, value in message.context.items():
        if len(key) > limits.text_chars:
            wrong.append(Violation("context", f"has a key longer than {limits.text_chars} characters"))
        else:
            wrong.extend(_wrong_value(value, f"context[{key!r}]", limits))
    return wrong


def _wrong_value(value: pb.Value, path: str, limits: LimitSettings) -> list[Violation]:
    kind = value.WhichOneof("kind")
    if kind is None:
        return [Violation(path, "is empty; set text or number")]
    if kind == "number" and not math.isfinite(value.number):
        return [Violation(path, "is not a finite number")]
    if kind == "text" and len(value.text) > limits.text_chars:
        return [Violation(path, f"is longer than {limits.text_chars} characters")]
    return []


def _value(value: pb.Value) -> str | float:
    return value.text if value.WhichOneof("kind") == "text" else value.number


def _filter(item: pb.Filter) -> Filter:
    kind = item.WhichOneof("condition")
    if kind == "equals":
        return Filter(item.field, Equals(_value(item.equals)))
    if kind == "terms":
        return Filter(item.field, Terms(tuple(map(_value, item.terms.values))))
    ends = item.range
    low, high = (getattr(ends, end) if ends.HasField(end) else None for end in ("min", "max"))
    return Filter(item.field, Range(low, high))


def response_from(
    answer: Answer, shown: tuple[str, ...], trace_id: str, elapsed_s: float
) -> pb.SearchResponse:
    """The whole answer; `shown` are the document fields that the mix displays."""
    request, rows = answer.plan.request, answer.page.rows
    response = pb.SearchResponse(
        query_id=request.query_id,
        trace_id=trace_id,
        mix=request.mix,
        candidates=len(answer.candidates),
        next_cursor=answer.page.next_cursor,
        features=_feature_table(answer.features, rows) if request.debug else None,
        arm=answer.arm,
    )
    _add_execution(response, answer, elapsed_s)
    for row, hit in zip(rows.tolist(), _add_hits(response, answer, rows), strict=True):
        if shown:
            _show(hit, answer.candidates, shown, row)
    if request.debug and answer.page.draft:
        names = answer.page.draft.names(answer.page.places)
        for hit, name in zip(response.hits, names, strict=True):
            hit.team = name
    return response


def _add_hits(response: pb.SearchResponse, answer: Answer, rows: IntColumn) -> Iterator[pb.Hit]:
    """Hits are added in place: a message built apart would be copied."""
    candidates, page = answer.candidates, answer.page
    values, fused = answer.scores.values[rows].tolist(), candidates.fused[rows].tolist()
    fused_ranks = (candidates.prior.argsort()[rows] + 1).tolist()
    ranks, scores = candidates.ranks[:, rows].T.tolist(), candidates.scores[:, rows].T.tolist()
    for place, row in enumerate(rows.tolist()):
        hit = response.hits.add(
            id=candidates.ids[row],
            rank=page.offset + place + 1,
            score=values[place],
            fused_score=fused[place],
            fused_rank=fused_ranks[place],
            pinned=row in page.pinned,
        )
        for name, rank, score in zip(candidates.backends, ranks[place], scores[place], strict=True):
            if rank:
                hit.sources.add(backend=name, rank=rank, score=score)
        yield hit


def _show(hit: pb.Hit, candidates: Candidates, shown: tuple[str, ...], row: int) -> None:
    for name in shown:
        text = candidates.texts[name][row] if name in candidates.texts else ""
        number = candidates.numbers[name][row] if name in candidates.numbers else math.nan
        if not math.isnan(number):
            hit.fields[name].number = number
        elif text:
            hit.fields[name].text = text


def _feature_table(features: Features, rows: IntColumn) -> pb.FeatureTable:
    return pb.FeatureTable(names=features.names, values=features.matrix[rows].ravel().tolist())


def _add_execution(response: pb.SearchResponse, answer: Answer, elapsed_s: float) -> None:
    scores, reasons, execution = answer.scores, answer.degraded_reasons, response.execution
    execution.CopyFrom(_ranked(scores.ranker, scores.fallback_reason, scores.model))
    execution.degraded = bool(reasons)
    execution.degraded_reasons.extend(reasons)
    execution.elapsed_ms = elapsed_s * 1000
    execution.quality = answer.plan.request.effort.quality
    counts = np.count_nonzero(answer.candidates.ranks, axis=1).tolist()
    for reply, hits in zip(answer.replies, counts, strict=True):
        _add_backend(execution, reply, hits)
    for stored in answer.candidates.stores:
        _add_store(execution, stored)
    for drop in answer.candidates.drops:
        execution.drops.add(reason=drop.reason, count=drop.count, backend=drop.backend)


def _add_backend(execution: pb.Execution, reply: Reply, hits: int) -> None:
    backend = execution.backends.add()
    guarded = reply.attempts, reply.hedged, reply.breaker
    backend.CopyFrom(_answered(reply.backend, reply.outcome, reply.index, *guarded))
    backend.elapsed_ms = reply.elapsed_s * 1000
    backend.hits = hits
    if reply.detail:
        backend.detail = reply.detail


def _add_store(execution: pb.Execution, stored: Stored) -> None:
    execution.stores.add(
        store=stored.store,
        outcome=_OUTCOMES[stored.outcome],
        elapsed_ms=stored.elapsed_s * 1000,
        asked=stored.asked,
        cached=stored.cached,
        found=stored.found,
        unreadable=stored.unreadable,
        detail=stored.detail,
    )


# What is the same in one answer after the other is made once, and copied.
@lru_cache(256)
def _ranked(ranker: Ranker, fallback_reason: str, model: ModelRef | None) -> pb.Execution:
    told = pb.Model(name=model.name, version=model.version, sha256=model.sha256) if model else None
    return pb.Execution(ranker=_RANKERS[ranker], fallback_reason=fallback_reason, model=told)


@lru_cache(256)
def _answered(
    backend: str, outcome: Outcome, index: Index, attempts: int, hedged: bool, breaker: str
) -> pb.BackendExecution:
    made = pb.BackendExecution(
        backend=backend,
        outcome=_OUTCOMES[outcome],
        index_version=index.version,
        server_version=index.server_version,
        attempts=attempts,
        hedged=hedged,
        breaker=breaker,
    )
    # Unknown is 0; some times no calendar holds.
    if 0 < index.fresh_at_s < YEAR_10000_S:
        whole_s = int(index.fresh_at_s)
        made.fresh_at.seconds = whole_s
        made.fresh_at.nanos = int((index.fresh_at_s - whole_s) * 1e9)
    return made
