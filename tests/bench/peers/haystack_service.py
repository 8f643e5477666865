"""The same search as a Haystack pipeline: a retriever a backend, DocumentJoiner, a LightGBM ranker; behind FastAPI.

Served by `uvicorn tests.bench.peers.haystack_service:app`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import lightgbm
import numpy as np
import orjson
from fastapi import FastAPI
from haystack import Document, Pipeline, component, tracing
from haystack.components.joiners import DocumentJoiner
from haystack_integrations.tracing.opentelemetry import OpenTelemetryTracer
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pydantic import BaseModel

from tests.bench.peers.environment import Settings, start_tracing

log = logging.getLogger(__name__)


@component
class BackendRetriever:
    """Asks one search engine over HTTP."""

    def __init__(
        self, url: str, top_k: int = 100, timeout_s: float = 5.0, skip_failures: bool = False
    ) -> None:
        self.url, self.top_k = url, top_k
        self.timeout_s, self.skip_failures = timeout_s, skip_failures
        self._client: httpx.AsyncClient | None = None

    async def warm_up_async(self) -> None:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=self.timeout_s)

    async def close_async(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    @component.output_types(documents=list[Document])
    def run(self, query: str) -> dict[str, list[Document]]:
        try:
            return self._documents(httpx.get(self.url, params=self._params(query), timeout=self.timeout_s))
        except httpx.HTTPError as error:
            return self._none(error)

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str) -> dict[str, list[Document]]:
        assert self._client is not None, "warm_up_async comes first"
        try:
            return self._documents(await self._client.get(self.url, params=self._params(query)))
        except httpx.HTTPError as error:
            return self._none(error)

    def _params(self, query: str) -> dict[str, str | int]:
        return {"q": query, "limit": self.top_k}

    def _documents(self, answer: httpx.Response) -> dict[str, list[Document]]:
        answer.raise_for_status()
        hits = orjson.loads(answer.content)["hits"]
        return {"documents": [Document(id=hit["id"], score=hit["score"], meta=hit["fields"]) for hit in hits]}

    def _none(self, error: httpx.HTTPError) -> dict[str, list[Document]]:
        if not self.skip_failures:
            raise error
        log.warning("backend %s failed: %r", self.url, error)
        return {"documents": []}


@component
class LightGBMRanker:
    """Orders the joined documents by a forest.

    DocumentJoiner keeps neither a document's rank nor its score in each list, so the lists themselves come in too.
    """

    def __init__(self, model: str, features: list[str], retrievers: list[str], top_k: int = 10) -> None:
        self.model, self.features, self.retrievers, self.top_k = model, features, retrievers, top_k
        self._booster: lightgbm.Booster | None = None
        for name in retrievers:
            component.set_input_type(self, name, list[Document])

    def warm_up(self) -> None:
        if self._booster is None:
            self._booster = lightgbm.Booster(model_file=self.model)
            assert self._booster.feature_name() == self.features, "the model was trained on other columns"

    @component.output_types(documents=list[Document], candidates=int)
    def run(self, documents: list[Document], **retrieved: list[Document]) -> dict[str, Any]:
        assert self._booster is not None, "warm_up comes first"
        if not documents:
            return {"documents": [], "candidates": 0}
        known = self._known(retrieved)
        features = np.array(
            [[known[doc.id].get(name, math.nan) for name in self.features] for doc in documents]
        )
        scores = np.asarray(self._booster.predict(features, raw_score=True, num_threads=1))
        best = np.argsort(-scores, kind="stable")[: self.top_k].tolist()
        ranked = [replace(documents[i], score=float(scores[i])) for i in best]
        return {"documents": ranked, "candidates": len(documents)}

    def _known(self, retrieved: dict[str, list[Document]]) -> dict[str, dict[str, float]]:
        known: dict[str, dict[str, float]] = {}
        for name in self.retrievers:
            for rank, document in enumerate(retrieved[name], 1):
                row = known[document.id] = {**document.meta, **known.get(document.id, {})}
                row[f"{name}_score"], row[f"{name}_rank"] = document.score, rank
        return known


def fusion_pipeline(settings: Settings) -> Pipeline:
    """Retrievers beside each other, then the joiner, then the ranker."""
    pipeline = Pipeline()
    pipeline.add_component("joiner", DocumentJoiner(join_mode="reciprocal_rank_fusion"))
    pipeline.add_component(
        "ranker", LightGBMRanker(settings.model, settings.features, list(settings.backends))
    )
    pipeline.connect("joiner.documents", "ranker.documents")
    for name, url in settings.backends.items():
        skips = settings.backend_timeout_s is not None
        pipeline.add_component(name, BackendRetriever(url, timeout_s=settings.timeout_s, skip_failures=skips))
        pipeline.connect(f"{name}.documents", "joiner.documents")
        pipeline.connect(f"{name}.documents", f"ranker.{name}")
    return pipeline


class Hit(BaseModel):
    id: str
    score: float


class SearchResponse(BaseModel):
    hits: list[Hit]
    candidates: int


start_tracing()
tracing.enable_tracing(OpenTelemetryTracer(trace.get_tracer("haystack")))
settings = Settings.from_environment()
pipeline = fusion_pipeline(settings)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    await pipeline.warm_up_async()
    yield
    await pipeline.close_async()


app = FastAPI(lifespan=lifespan)
FastAPIInstrumentor.instrument_app(app)


@app.get("/search")
async def search(q: str) -> SearchResponse:
    outputs = await pipeline.run_async({name: {"query": q} for name in settings.backends})
    ranked = outputs["ranker"]
    hits = [Hit(id=document.id, score=document.score) for document in ranked["documents"]]
    return SearchResponse(hits=hits, candidates=ranked["candidates"])
