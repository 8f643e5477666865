"""What a gate decided of a version, and by what: kept in the registry, so that every promotion can be read later."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mixer.manifest import Record

Outcome = Literal["passed", "failed", "off", "not_run"]
"""`off`: the bounds switch it off, or there is nothing to compare with; `not_run`: an earlier check failed."""

CheckName = Literal[
    "manifest",
    "checksum",
    "schema",
    "test_load",
    "golden",
    "judged",
    "finite",
    "constant",
    "units",
    "ndcg_floor",
    "beats_fused",
    "ndcg_drop",
    "slice_drop",
    "latency",
]

Share = Annotated[float, Field(ge=0, le=1)]


class Bounds(Record):
    """What a version must keep to. None switches a check off, and the decision says so."""

    min_queries: Annotated[int, Field(ge=1)] = 20
    """Judged queries with something to order; fewer decide nothing."""
    max_constant: Share | None = 0.2
    """Share of the queries whose candidates may all get one score."""
    max_spread_factor: Annotated[float, Field(gt=1)] | None = 10.0
    """How many times wider or narrower a feature may be spread in the judged listings than in the training."""
    ndcg_floor: Share | None = 0.3
    """Least mean NDCG@10."""
    min_gain_over_fused: Annotated[float, Field(ge=-1, le=1)] | None = 0.0
    """Mean NDCG@10 must be above that of the fused order by more than this."""
    max_drop: Share | None = 0.01
    """How far mean NDCG@10 may be below that of the current version, over the same queries."""
    max_slice_drop: Share | None = 0.05
    """The same, for each slice of at least `min_slice_queries`."""
    min_slice_queries: Annotated[int, Field(ge=1)] = 20
    latency_ms: Annotated[float, Field(gt=0)] | None = 5.0
    """Processor time, median, to score `latency_rows` rows on one thread of the machine that decides."""
    latency_rows: Annotated[int, Field(ge=1, le=100_000)] = 200


class Check(Record):
    """One check: what was measured, what it had to keep to, and a sentence that says both."""

    name: CheckName
    outcome: Outcome
    told: str
    figure: float | None = None
    bound: float | None = None


class Evidence(Record):
    """The judged listings that the gate looked at."""

    source: str
    sha256: str
    split: str
    queries: int


class Decision(Record):
    """gate.json: whether a version may become current."""

    format: Literal[1] = 1
    name: str
    version: str
    sha256: str
    """Of the version's model file, as its manifest names it; empty where that cannot be read."""
    against: str | None
    """The version that was current."""
    decided_at: str
    by: str
    evidence: Evidence | None
    bounds: Bounds
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed, and none was left out for a failure."""
        return all(check.outcome in ("passed", "off") for check in self.checks)

    @property
    def refusals(self) -> tuple[str, ...]:
        """Every failed check, with what was measured."""
        return tuple(f"{check.name}: {check.told}" for check in self.checks if check.outcome == "failed")
