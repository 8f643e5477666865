"""The declared features of a mix: what each is made from, its type, default and valid range."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BackendValue = Literal["score", "rank", "present", "normalized"]
MixValue = Literal["fused", "backends"]
QueryValue = Literal["chars", "words", "digits", "quotes"]
TextMeasure = Literal[
    "query_coverage",
    "field_coverage",
    "weighted_coverage",
    "exact",
    "starts_with_query",
    "inside_query",
    "phrase",
    "pair_coverage",
    "field_pair_coverage",
    "last_word_prefix",
    "similarity",
    "letters",
    "words",
]


class FeatureBase(BaseModel):
    """What every feature declares besides its source."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
    dtype: Literal["float", "category"] = "float"
    default: float | None = None
    """What stands in for a missing or out-of-range value; None leaves it missing (NaN)."""
    relative: bool = False
    """Divided by the greatest value among the candidates, before the range is looked at."""
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _is_range(self) -> FeatureBase:
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The valid range, both ends inclusive."""
        return (
            -math.inf if self.low is None else self.low,
            math.inf if self.high is None else self.high,
        )


class BackendFeature(FeatureBase):
    """One backend's score, rank (from 1), presence (0 or 1) or normalized score of the document."""

    source: Literal["backend"]
    backend: str
    value: BackendValue


class MixFeature(FeatureBase):
    """The fused score, or how many backends returned the document."""

    source: Literal["mix"]
    value: MixValue


class NumberFeature(FeatureBase):
    """A numeric field of the document, as the backends returned it."""

    source: Literal["number"]
    field: str


class NumberInQueryFeature(FeatureBase):
    """1 where a number written in the query equals a numeric field of the document, else 0."""

    source: Literal["number_in_query"]
    field: str


class QueryFeature(FeatureBase):
    """The query's length in characters or words, its digits, its quotation marks."""

    source: Literal["query"]
    value: QueryValue


class TextFeature(FeatureBase):
    """How far the query's words and those of text fields (taken together) overlap."""

    source: Literal["text"]
    fields: Annotated[tuple[str, ...], Field(min_length=1)]
    measure: TextMeasure


class FirstFeature(FeatureBase):
    """How much a text field is like that of the document that stands first in the fused order."""

    source: Literal["first"]
    field: str


class ContextFeature(FeatureBase):
    """A number the caller sent, or the place of a text the caller sent among declared levels (from 0)."""

    source: Literal["context"]
    key: str
    levels: tuple[str, ...] = ()


class StoreFeature(FeatureBase):
    """A number that a feature store of the mix holds of the document, or of who asks."""

    source: Literal["store"]
    store: str
    field: str


Feature = Annotated[
    BackendFeature
    | MixFeature
    | NumberFeature
    | NumberInQueryFeature
    | QueryFeature
    | TextFeature
    | FirstFeature
    | ContextFeature
    | StoreFeature,
    Field(discriminator="source"),
]


def schema_hash(features: Sequence[Feature]) -> str:
    """SHA-256 (hex) of the declared features in their order: equal hashes mean equal columns."""
    declared = [feature.model_dump(mode="json") for feature in features]
    canonical = json.dumps(declared, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def fields_read(features: Sequence[Feature]) -> frozenset[str]:
    """The document fields that these features are made from."""
    read: set[str] = set()
    for feature in features:
        if isinstance(feature, NumberFeature | NumberInQueryFeature | FirstFeature):
            read.add(feature.field)
        elif isinstance(feature, TextFeature):
            read.update(feature.fields)
    return frozenset(read)
