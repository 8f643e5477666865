"""Makes logged features again from their logged inputs: what differs was made by other code, or from other facts.

Training-serving skew, as Breck and others name it in "The ML Test Score: a rubric for ML production readiness and
technical debt reduction", IEEE Big Data 2017.

What feature stores held is taken as it was logged: a store tells what it holds now, not what it held then, so that a
value that was wrong in the store is no skew here. What is made of it (range, default, share) is compared as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table
from rich.text import Text

from backends.base import FloatColumn
from mixer.features import MakeFeatures
from mixer.schema import Feature, schema_hash
from mixer.values import Candidates, Outcome, Plan, Request, Stored
from models.logs import Inputs, Served

_FACTOR_SPREAD = 1e-6
"""Ratios of logged to made values that differ less are one factor."""


@dataclass(slots=True)
class FeatureSkew:
    """One feature's values: how many were compared, how many differ, by how much."""

    name: str
    compared: int = 0
    differ: int = 0
    worst: float = 0.0
    """Greatest difference between two known values."""
    lowest_ratio: float = np.inf
    highest_ratio: float = -np.inf
    example: str = ""

    @property
    def hint(self) -> str:
        """What the difference looks like: one factor throughout is a unit."""
        ratio, spread = self.highest_ratio, self.highest_ratio - self.lowest_ratio
        if np.isfinite(spread) and spread <= _FACTOR_SPREAD * abs(ratio):
            return f"logged is {ratio:.6g} times what is made"
        return self.example


@dataclass(slots=True)
class Report:
    """What came of comparing: features by name, and why searches were left out."""

    features: dict[str, FeatureSkew]
    searches: int = 0
    rows: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    torn: int = 0
    """Files that could not be read."""

    @property
    def skewed(self) -> list[FeatureSkew]:
        """Features that differ somewhere, the most frequent first."""
        return sorted((f for f in self.features.values() if f.differ), key=lambda f: -f.differ)


def compare(
    searches: Iterable[Served], mix: str, features: Sequence[Feature], tolerance: float = 1e-9
) -> Report:
    """Make the features of a mix's logged searches again, and compare.

    `tolerance` is relative: other processors may sum in another order.
    """
    make, declared = MakeFeatures(features), schema_hash(features)
    report = Report({feature.name: FeatureSkew(feature.name) for feature in features})
    for served in searches:
        if served.mix != mix:
            continue
        if why := _not_comparable(served, declared):
            report.left_out[why] = report.left_out.get(why, 0) + 1
            continue
        report.searches += 1
        report.rows += len(served)
        made = made_again(served, make)
        for place, skew in enumerate(report.features.values()):
            _add(skew, served, served.features[:, place], made[:, place], tolerance)
    return report


def _not_comparable(served: Served, declared: str) -> str:
    if served.inputs is None or served.query is None:
        return "logged without inputs"
    return "" if served.schema_sha256 == declared else "of other declared features"


def made_again(served: Served, make: MakeFeatures) -> FloatColumn:
    """The features (n, f) of a search that was logged with inputs, in the order of its ranking."""
    # Rows stand in the order of the ids, as the merge left them.
    rows = np.array(sorted(range(len(served)), key=served.ids.__getitem__), np.intp)
    inputs = served.inputs
    if inputs is None or served.query is None:
        raise ValueError(f"search {served.query_id} was logged without inputs")
    request = Request(served.query, served.mix, served.page_size, context=inputs.context)
    made = make(Plan(request, (), 0), _candidates(served, inputs, rows)).matrix
    back = np.empty_like(made)
    back[rows] = made
    return back


def _candidates(
    served: Served, inputs: Inputs, rows: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> Candidates:
    return Candidates(
        ids=[served.ids[row] for row in rows.tolist()],
        backends=served.backends,
        ranks=served.ranks[:, rows],
        scores=served.backend_scores[:, rows],
        normalized=inputs.normalized[:, rows],
        fused=served.fused[rows],
        prior=np.argsort(served.fused_ranks[rows]),
        numbers={name: column[rows] for name, column in inputs.numbers.items()},
        texts={name: column[rows] for name, column in inputs.texts.items()},
        stores=tuple(
            Stored(name, Outcome.OK, 0.0, columns) for name, columns in _stored(inputs, rows).items()
        ),
    )


def _stored(
    inputs: Inputs, rows: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> dict[str, dict[str, FloatColumn]]:
    """Columns by field, by store; no store's name has a dot."""
    stores: dict[str, dict[str, FloatColumn]] = {}
    for name, column in inputs.stored.items():
        store, _, field_ = name.partition(".")
        stores.setdefault(store, {})[field_] = column[rows]
    return stores


def _add(skew: FeatureSkew, served: Served, logged: FloatColumn, made: FloatColumn, tolerance: float) -> None:
    wrong = np.flatnonzero(~np.isclose(logged, made, rtol=tolerance, atol=0.0, equal_nan=True))
    skew.compared += len(logged)
    skew.differ += len(wrong)
    if not len(wrong):
        return
    then, now = logged[wrong], made[wrong]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = then / now
    skew.worst = float(np.fmax.reduce(np.abs(then - now), initial=skew.worst))
    # A value that is lacking on one side is no factor of the other: NaN stays.
    skew.lowest_ratio = float(np.minimum(skew.lowest_ratio, ratios.min()))
    skew.highest_ratio = float(np.maximum(skew.highest_ratio, ratios.max()))
    if not skew.example:
        where = f"{served.query_id}, {served.ids[int(wrong[0])]}"
        skew.example = f"{then[0]:.6g} was logged, {now[0]:.6g} is made ({where})"


def tables(report: Report, mix: str) -> list[Table | Text]:
    """The report for people."""
    drawn = Table(title=f"skew of mix {mix}: logged features against those made again")
    for title in ("feature", "values", "differ", "share", "worst", ""):
        drawn.add_column(title, justify="left" if title in ("feature", "") else "right")
    for skew in report.skewed:
        share = f"{skew.differ / skew.compared:.2%}"
        drawn.add_row(skew.name, str(skew.compared), str(skew.differ), share, f"{skew.worst:.6g}", skew.hint)
    lines = [f"{report.searches} searches, {report.rows} rows, {len(report.features)} features: "]
    lines.append(f"{len(report.skewed)} skewed" if report.skewed else "no skew")
    lines += [f"\n{count} searches left out: {why}" for why, count in report.left_out.items()]
    lines += [f"\n{report.torn} files cannot be read"] if report.torn else []
    return [*([drawn] if report.skewed else []), Text("".join(lines))]
