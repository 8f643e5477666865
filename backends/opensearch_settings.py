"""The settings of the OpenSearch engine; `backends/opensearch.py` shows them all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from backends.base import EngineSettings
from backends.index import beside_settings
from backends.served import ServedSettings, Url

Dsl = dict[str, Any]


class Words(EngineSettings):
    """BM25 of the query's words."""

    mode: Literal["words"] = "words"
    match: Literal["any", "all"] = "any"
    boosts: Mapping[str, PositiveFloat] = {}


class Vectors(EngineSettings):
    """Nearness to the query's vector."""

    mode: Literal["vectors"]
    field: str
    embedder: Annotated[Path, AfterValidator(beside_settings)] | None = None
    model: str = ""
    exact: bool = False
    metric: Literal["cosine", "l2", "inner_product"] = "cosine"
    candidates: PositiveInt = 100

    @model_validator(mode="after")
    def _one_embeds(self) -> Vectors:
        if (self.embedder is None) == (not self.model):
            raise ValueError("give one of `embedder` and `model`: what makes a vector of the query")
        if self.exact and self.model:
            raise ValueError("`exact` needs an `embedder`: the server's model is asked by its index alone")
        return self


class Template(EngineSettings):
    """A query of the server's own language."""

    mode: Literal["template"]
    query: Dsl


class OpenSearchSettings(ServedSettings):
    """See the top of `backends/opensearch.py`."""

    kind: Literal["opensearch"]
    flavor: Literal["opensearch", "elasticsearch"] = "opensearch"
    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    index: Annotated[str, Field(min_length=1)]
    id: str = "_id"
    search: Annotated[Words | Vectors | Template, Field(discriminator="mode")] = Words()
    least: float | None = None
    scores: Mapping[str, Dsl] = {}
    api_key_env: str = ""
    version: Literal["segments", "none"] = "segments"
    updated_at: str = ""

    @model_validator(mode="after")
    def _names_are_known(self) -> OpenSearchSettings:
        self.check_names(self.search.boosts if isinstance(self.search, Words) else None, self.scores)
        if self.api_key_env and self.user:
            raise ValueError("give one of `user` and `api_key_env`")
        return self
