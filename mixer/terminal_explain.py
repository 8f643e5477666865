"""An explanation for a terminal: the ranking, then for each hit its places, its votes, and its features."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mixer import terminal
from mixer.client import ExplainResult, Hit, Placement
from mixer.terminal import strongest

LACKING = {
    "no_model": "no model ranked: the fused order stands",
    "model_gone": "the model that ranked is not at hand; with a log, name it with --model",
    "not_additive": "the features' parts do not add up to the score that was served",
    "time": "the time was up before the other hits",
}


def explanation(title: str, told: ExplainResult, features: int) -> Iterator[RenderableType]:
    """The whole explanation; so many features a hit, the strongest first, 0 for all."""
    yield from terminal.ranking(title, told.answer, terminal.movers(told))
    if told.answer.ranker == "model" and told.answer.model != told.served_by:
        was = told.served_by
        told_by = f"{was.name} {was.version}" if was else "the fused order"
        yield Text(f"not as it was served: by the model that was asked for; served by {told_by}", "yellow")
    for place, (hit, placement) in enumerate(zip(told.answer.hits, told.placements, strict=True)):
        yield Text()
        yield Text(f"{hit.rank} ") + Text(hit.id, "bold")
        yield _places(placement)
        if placement.votes:
            yield _votes(hit, placement, told)
        if place < len(told.contributions):
            yield _features(hit, place, told, features)
    if told.lacking:
        yield Text(LACKING.get(told.lacking, told.lacking), "yellow")


def _places(placement: Placement) -> Text:
    """Its place after each step, and how far the step moved it."""
    steps = {"fused": placement.fused_rank, "by score": placement.scored_rank}
    if placement.spread_rank:
        steps |= {"diversity": placement.spread_rank, "pins": placement.rank}
    else:
        steps["rules"] = placement.rank
    line = Text(f"  fused {placement.fused_rank}")
    for (_, before), (name, after) in pairwise(steps.items()):
        line.append(" → ", "dim").append(f"{name} {after}")
        if after != before:
            up = after < before
            line.append(f" {'▲' if up else '▼'}{abs(after - before)}", "green" if up else "red")
    if placement.served_rank != placement.rank:
        line.append(f" (served at {placement.served_rank})", "yellow")
    return line


def _votes(hit: Hit, placement: Placement, told: ExplainResult) -> Text:
    ranks = {source.backend: source.rank for source in hit.sources}
    names = [report.backend for report in told.answer.backends]
    parts = [
        f"{name} {vote:.4f} (rank {ranks[name]})"
        for name, vote in zip(names, placement.votes, strict=True)
        if name in ranks
    ]
    return Text(f"  fused score {hit.fused_score:.4f} = {' + '.join(parts)}")


def _features(hit: Hit, place: int, told: ExplainResult, most: int) -> Table:
    """Each feature's value and what it adds to the score, down to what adds nothing."""
    row, values = told.contributions[place], told.answer.features[place]
    shown = strongest(row)[: most or None] if most else sorted(range(len(row)), key=lambda i: -abs(row[i]))
    table = Table(box=None, padding=(0, 2), show_edge=False)
    for heading in ("feature", "value", "adds"):
        table.add_column(heading, justify="left" if heading == "feature" else "right", style="dim")
    for i in shown:
        value = "missing" if values[i] != values[i] else f"{values[i]:.6g}"
        table.add_row(Text(told.answer.feature_names[i]), value, f"{row[i]:+.4f}")
    rest = float(row.sum() - row[shown].sum())
    if len(shown) < len(row):
        table.add_row(f"{len(row) - len(shown)} others", "", f"{rest:+.4f}")
    table.add_row("the model's mean", "", f"{told.bias:+.4f}")
    table.add_row("score", "", f"{hit.score:.4f}")
    return table
