"""The service an experienced engineer writes in a day: FastAPI, httpx, LightGBM, automatic instrumentation.

Served by `uvicorn tests.bench.peers.fastapi_service:app`.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import lightgbm
import numpy as np
import orjson
from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pydantic import BaseModel

from tests.bench.peers.environment import Settings, start_tracing

RRF_K = 60

log = logging.getLogger(__name__)
settings = Settings.from_environment()
state: dict[str, Any] = {}


class Hit(BaseModel):
    id: str
    score: float
    fused_score: float


class SearchResponse(BaseModel):
    hits: list[Hit]
    candidates: int


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    booster = lightgbm.Booster(model_file=settings.model)
    assert booster.feature_name() == settings.features, "the model was trained on other columns"
    async with httpx.AsyncClient(timeout=settings.timeout_s) as client:
        state.update(booster=booster, client=client)
        yield


start_tracing()
app = FastAPI(lifespan=lifespan)
FastAPIInstrumentor.instrument_app(app)


@app.get("/search")
async def search(q: str, size: int = 10) -> SearchResponse:
    answers = await asyncio.gather(*(ask(name, q) for name in settings.backends))
    rows = merge(dict(zip(settings.backends, answers, strict=True)))
    if not rows:
        return SearchResponse(hits=[], candidates=0)
    features = np.array([[row.get(name, math.nan) for name in settings.features] for row in rows])
    scores = state["booster"].predict(features, raw_score=True, num_threads=1)
    best = np.argsort(-scores, kind="stable")[:size].tolist()
    hits = [Hit(id=rows[i]["id"], score=scores[i], fused_score=rows[i]["fused"]) for i in best]
    return SearchResponse(hits=hits, candidates=len(rows))


async def ask(name: str, query: str) -> list[dict[str, Any]]:
    """One backend's hits, best first."""
    try:
        answer = await state["client"].get(settings.backends[name], params={"q": query, "limit": 100})
        answer.raise_for_status()
    except httpx.HTTPError as error:
        if settings.backend_timeout_s is None:
            raise
        log.warning("backend %s failed: %r", name, error)
        return []
    hits: list[dict[str, Any]] = orjson.loads(answer.content)["hits"]
    return hits


def merge(answers: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row a document with the fields of all who know it, fused by reciprocal rank, best first."""
    merged: dict[str, dict[str, Any]] = {}
    for name, hits in answers.items():
        for rank, hit in enumerate(hits, 1):
            row = merged[hit["id"]] = {
                **hit["fields"],
                **merged.get(hit["id"], {"id": hit["id"], "fused": 0.0}),
            }
            row["fused"] += 1 / (RRF_K + rank)
            row[f"{name}_score"] = hit["score"]
            row[f"{name}_rank"] = rank
    return sorted(merged.values(), key=lambda row: (-row["fused"], row["id"]))
