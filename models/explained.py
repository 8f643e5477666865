"""Explains a logged search: what a server that remembers it would say, but for what the log does not hold.

The log holds no votes and no order between diversity and pins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mixer.explain import Contributions, Lacking, parts_of
from mixer.model import LightGbmModel
from mixer.results import BackendReport, ExplainResult, Hit, Placement, SearchResult, Source
from mixer.values import IntColumn, Outcome, Ranker
from models.logs import Served
from models.replay import by_score


def explained(
    served: Served, model: LightGbmModel | None, hits: int, ids: Sequence[str] = ()
) -> ExplainResult:
    """Hits from the top of the page, or these documents wherever they stand.

    By the model that ranked, or by another one as that would have ranked the same candidates, before any rule of the
    mix. Without a model no feature's part is told. Raises: ValueError for an id that was no candidate, and for a model
    of other features.
    """
    seen, served_at = served, np.arange(1, len(served) + 1)
    if model and (served.ranker != Ranker.MODEL or model.ref != served.model):
        seen, served_at = _ranked_by(served, model)
    places = _places(seen, hits, ids)
    scored = by_score(seen, seen.scores).argsort() + 1
    parts = _parts(seen, model, places)
    return ExplainResult(
        answer=_answer(seen, places),
        placements=tuple(
            Placement(
                int(seen.fused_ranks[place]), int(scored[place]), 0, place + 1, int(served_at[place]), ()
            )
            for place in places
        ),
        bias=parts.bias,
        contributions=parts.values,
        lacking=parts.lacking,
        served_by=served.model if served.ranker == Ranker.MODEL else None,
    )


def _ranked_by(served: Served, model: LightGbmModel) -> tuple[Served, IntColumn]:
    """What would have been logged had this model ranked, and the rank (n,) at which each hit of it was served."""
    if served.schema_sha256 != model.manifest.schema_sha256:
        raise ValueError("the model is of other features than the search was logged with")
    scores = model.score(served.features)
    order = by_score(served, scores)
    seen = replace(
        served,
        model=model.ref,
        ranker=Ranker.MODEL.value,
        fallback_reason="",
        ids=tuple(served.ids[place] for place in order.tolist()),
        scores=scores[order],
        fused=served.fused[order],
        fused_ranks=served.fused_ranks[order],
        propensities=np.ones(len(served)),
        ranks=served.ranks[:, order],
        backend_scores=served.backend_scores[:, order],
        features=served.features[order],
        inputs=None,
    )
    return seen, order + 1


def _parts(seen: Served, model: LightGbmModel | None, places: Sequence[int]) -> Contributions:
    if model:
        return parts_of(model, seen.features[places], seen.scores[places], lambda: True)
    lacking: Lacking = "model_gone" if seen.ranker == Ranker.MODEL else "no_model"
    return Contributions(0.0, np.empty((0, len(seen.feature_names))), lacking)


def _places(served: Served, hits: int, ids: Sequence[str]) -> list[int]:
    if not ids:
        end = min(served.page_offset + min(hits or served.page_size, served.page_size), len(served))
        return list(range(served.page_offset, end))
    at = {id_: place for place, id_ in enumerate(served.ids)}
    if unknown := [id_ for id_ in ids if id_ not in at]:
        raise ValueError(
            f"{', '.join(map(repr, unknown))}: not among the {len(served)} candidates; no backend returned it"
        )
    return sorted({at[id_] for id_ in ids})


def _answer(served: Served, places: Sequence[int]) -> SearchResult:
    return SearchResult(
        hits=tuple(_hit(served, place) for place in places),
        query_id=served.query_id,
        trace_id=served.trace_id,
        mix=served.mix,
        candidates=len(served),
        next_cursor="",
        elapsed_ms=np.nan,
        ranker=served.ranker,
        model=served.model,
        degraded=served.degraded,
        degraded_reasons=_reasons(served),
        backends=tuple(_report(served, place) for place in range(len(served.backends))),
        drops={},
        feature_names=served.feature_names,
        features=served.features[list(places)],
        arm=served.arm,
    )


def _report(served: Served, place: int) -> BackendReport:
    hits = int(np.count_nonzero(served.ranks[place]))
    return BackendReport(served.backends[place], served.backend_outcomes[place], np.nan, hits, "", "")


def _reasons(served: Served) -> tuple[str, ...]:
    """As an answer gives them."""
    told = zip(served.backends, served.backend_outcomes, strict=True)
    late = [f"{backend}: {outcome}" for backend, outcome in told if outcome != Outcome.OK]
    return (*late, *([f"ranker: {served.fallback_reason}"] if served.fallback_reason else []))


def _hit(served: Served, place: int) -> Hit:
    columns = zip(served.backends, served.ranks[:, place], served.backend_scores[:, place], strict=True)
    return Hit(
        id=served.ids[place],
        rank=place + 1,
        score=float(served.scores[place]),
        fused_score=float(served.fused[place]),
        fused_rank=int(served.fused_ranks[place]),
        fields={},
        sources=tuple(Source(name, int(rank), float(score)) for name, rank, score in columns if rank),
        pinned=False,
    )
