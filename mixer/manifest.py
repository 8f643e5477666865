"""What a model folder says of itself, and the proofs that travel with it.

A folder holds `model.txt` (LightGBM's text format), `golden.json` (queries with their exact features and scores),
`manifest.json`, and `card.md` for people. It never changes once written; its version is its content.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mixer.schema import Feature

MANIFEST, MODEL, GOLDEN, CARD = "manifest.json", "model.txt", "golden.json", "card.md"
JUDGED = "judged.npz"
"""Judged listings that the model did not learn from, to measure it and its successors by."""


class Record(BaseModel):
    """Base of what is written: frozen, and an unknown key is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Profile(Record):
    """How values were spread over the training rows, for comparison with those served.

    Bin i of `shares` holds values v with edges[i-1] < v <= edges[i], the outer bins being open; the shares of the
    bins and `missing` add up to 1.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]
    missing: float = 0.0

    @model_validator(mode="after")
    def _bins_fit(self) -> Profile:
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(
                f"{len(self.edges)} edges bound {len(self.edges) + 1} bins, not {len(self.shares)}"
            )
        return self


class TrainingData(Record):
    """What the model was trained on."""

    source: str
    sha256: str
    """Of the judgements file."""
    since: str | None = None
    until: str | None = None
    """First and last day (ISO 8601) of the judgements, where they are dated."""
    queries: dict[str, int]
    """By split."""
    rows: dict[str, int]
    """By split."""


class Manifest(Record):
    """manifest.json."""

    format: Literal[1] = 1
    name: str
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]
    created_at_s: float
    """Unix time."""
    model_sha256: str
    golden_sha256: str
    features: tuple[Feature, ...]
    schema_sha256: str
    """Of `features`; a mix loads a model only where its own features have the same."""
    trees: int
    parameters: dict[str, str | int | float | bool]
    data: TrainingData
    metrics: dict[str, float]
    importance: dict[str, float]
    """Share of the total gain by feature; all of them add up to 1."""
    profiles: dict[str, Profile]
    score_profile: Profile
    profile_rows: Literal["", "open", "judged"] = ""
    """Which rows the profiles are of: all that were listed for the training queries when everything was searched
    (`open`), as it is in serving, or only their judged documents; empty in older manifests: the rows learned from."""
    code_version: str
    libraries: dict[str, str]
    scorer: str = ""
    """Who could score the golden queries when it was trained: `forest`, or `lightgbm:` and why; empty where it was not
    asked. Who scores is found out at every load."""
    judged_sha256: str = ""
    """Of the judged listings beside the model; empty where there are none. Serving does not read them."""

    @model_validator(mode="after")
    def _tells_of_every_feature(self) -> Manifest:
        names = {feature.name for feature in self.features}
        for told in (self.importance, self.profiles):
            if told.keys() != names:
                raise ValueError("importance and profiles are not of the declared features")
        return self


class GoldenQuery(Record):
    """Rows of one query, None for missing, and the raw score the trained model gave each, to the last bit."""

    query: str
    ids: tuple[str, ...]
    features: tuple[tuple[float | None, ...], ...]
    scores: tuple[float, ...]


class Golden(Record):
    """golden.json."""

    queries: tuple[GoldenQuery, ...]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
