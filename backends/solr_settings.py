"""The settings of the Solr engine; `backends/solr.py` shows them all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from backends.base import EngineSettings
from backends.index import beside_settings
from backends.served import ServedSettings, Url

OURS = frozenset(
    {"q", "text", "defType", "fq", "fl", "rows", "start", "sort", "wt", "timeAllowed", "qf", "mm"}
)
"""Parameters that a search sets itself."""
_SAFE = re.compile(r"^[A-Za-z_][\w.\-]*$")


class Words(EngineSettings):
    """The query's words, by edismax."""

    mode: Literal["words"]
    match: Literal["any", "all"] = "any"
    boosts: Mapping[str, PositiveFloat] = {}
    parameters: Mapping[str, str] = {}

    @model_validator(mode="after")
    def _parameters_are_free(self) -> Words:
        if taken := sorted(set(self.parameters) & OURS):
            raise ValueError(f"parameters has what a search sets itself: {', '.join(taken)}")
        return self


class Vectors(EngineSettings):
    """Nearness to the query's vector."""

    mode: Literal["vectors"]
    field: Annotated[str, Field(pattern=_SAFE)]
    embedder: Annotated[Path, AfterValidator(beside_settings)]
    candidates: PositiveInt = 100


class SolrSettings(ServedSettings):
    """See the top of `backends/solr.py`."""

    kind: Literal["solr"]
    url: Url
    collection: Annotated[str, Field(pattern=re.compile(r"^[\w.\-]+$"))]
    handler: Annotated[str, Field(pattern=re.compile(r"^[\w.\-/]+$"))] = "select"
    id: Annotated[str, Field(pattern=_SAFE)] = "id"
    search: Annotated[Words | Vectors, Field(discriminator="mode")]
    least: float | None = None
    scores: Mapping[str, str] = {}
    version: Literal["luke", "documents", "none"] = "luke"
    updated_at: Annotated[str, Field(pattern=re.compile(rf"^$|{_SAFE.pattern}"))] = ""

    @model_validator(mode="after")
    def _names_are_known(self) -> SolrSettings:
        self.check_names(self.search.boosts if isinstance(self.search, Words) else None, self.scores)
        names: list[Any] = [*self.named("text", "keyword", "number").values(), *self.scores]
        if odd := sorted(name for name in names if not _SAFE.fullmatch(name)):
            raise ValueError(f"names are letters, digits, _, - and dots: {', '.join(odd)}")
        return self
