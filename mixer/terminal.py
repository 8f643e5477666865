"""What a person sees in a terminal: a ranking with where each hit came from, a trace as a tree, the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from backends.base import FloatColumn
from mixer.catalogue import ATTRIBUTES, METRICS, SPANS
from mixer.client import ExplainResult, Hit, SearchResult

_MOVERS = 3
_WORTH_TELLING = 0.005
"""Of a score: what rounds to nothing is left out."""
_COLORS = {"ok": "green", "timeout": "yellow", "error": "red", "refused": "magenta"}


def ranking(query: str, result: SearchResult, moved: Sequence[str] = ()) -> Iterator[RenderableType]:
    """The hits as a table, then how they came about; `moved` says what moved each of the first hits."""
    names = [report.backend for report in result.backends]
    table = Table(title=Text(query, "bold"), title_justify="left", expand=False)
    for heading in ("rank", "document", *names, "fused", "score"):
        table.add_column(heading, justify="left" if heading == "document" else "right")
    if moved:
        table.add_column("what moved it")
    for place, hit in enumerate(result.hits):
        table.add_row(*_row(hit, names), *moved[place : place + 1])
    yield table
    yield _outcomes(result)


def _row(hit: Hit, names: Sequence[str]) -> list[Text]:
    ranks = {source.backend: str(source.rank) for source in hit.sources}
    shift = hit.fused_rank - hit.rank
    arrow = (
        Text(f" ▲{shift}", "green") if shift > 0 else Text(f" ▼{-shift}", "red") if shift < 0 else Text("")
    )
    return [
        Text(str(hit.rank) + (" pinned" if hit.pinned else "")),
        _document(hit),
        *(Text(ranks.get(name, "-"), "" if name in ranks else "dim") for name in names),
        Text(str(hit.fused_rank)) + arrow,
        Text(f"{hit.score:.3f}"),
    ]


def _document(hit: Hit) -> Text:
    """The id in bold, and the longest of its shown texts that says something else, cut to a line."""
    texts = [value for value in hit.fields.values() if isinstance(value, str) and value != hit.id]
    text = max(texts, key=len, default="")
    return Text(hit.id, "bold") + Text(f"  {text[:60]}{'…' if len(text) > 60 else ''}" if text else "", "dim")


def _outcomes(result: SearchResult) -> Text:
    line = Text()
    for report in result.backends:
        line.append(f"{report.backend} {report.outcome}", _COLORS.get(report.outcome, ""))
        line.append(f" {report.hits} hits{_took(report.elapsed_ms, ' ')}", "dim")
        again = f"asked {report.attempts} times" if report.attempts > 1 else ""
        told = ", ".join(filter(None, (report.detail, again)))
        line.append(f" ({told})  " if told else "  ", "dim")
    for stored in result.stores:
        line.append(f"store {stored.store} {stored.outcome}", _COLORS.get(stored.outcome, ""))
        rows = f" {stored.found} of {stored.asked} rows, {stored.cached} from the cache"
        line.append(f"{rows},{_took(stored.elapsed_ms, ' ')}", "dim")
        line.append(f" ({stored.detail})  " if stored.detail else "  ", "dim")
    model = f"{result.model.name} {result.model.version}" if result.model else "no model"
    took = _took(result.elapsed_ms, ", ")
    line.append(f"\n{result.candidates} candidates, ranked by {result.ranker} ({model}){took}")
    if result.arm:
        line.append(f", arm {result.arm}")
    if result.query_id:
        line.append(f", query id {result.query_id}", "dim")
    if result.trace_id:
        line.append(f", trace {result.trace_id}", "dim")
    if result.degraded:
        line.append(f"\ndegraded: {'; '.join(result.degraded_reasons)}", "yellow")
    return line


def _took(elapsed_ms: float, before: str) -> str:
    """A time, where it is known."""
    return f"{before}{elapsed_ms:.1f} ms" if np.isfinite(elapsed_ms) else ""


def movers(told: ExplainResult) -> list[str]:
    """For each hit, the features that moved its score most against the average of these hits, where it is not alone."""
    shares = told.contributions
    if len(shares) > 1:
        shares = shares - shares.mean(axis=0)
    return [_told(row, told.answer.feature_names) for row in shares]


def _told(row: FloatColumn, names: Sequence[str]) -> str:
    return ", ".join(f"{names[place]} {row[place]:+.2f}" for place in strongest(row)[:_MOVERS])


def strongest(row: FloatColumn) -> list[int]:
    """Features (f,) that add or take something worth telling, the strongest first."""
    order: list[int] = np.argsort(-np.abs(row), kind="stable").tolist()
    return [place for place in order if abs(row[place]) >= _WORTH_TELLING]


def plain(result: SearchResult | ExplainResult) -> dict[str, Any]:
    """The result in JSON's types."""
    told: dict[str, Any] = _plain(asdict(result))
    return told


def _plain(value: Any) -> Any:
    """Columns as lists; what is no number, as null."""
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(held) for held in (value.tolist() if isinstance(value, np.ndarray) else value)]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def catalogue_markdown() -> str:
    """Every metric, span and attribute as Markdown tables."""
    return "\n\n".join(
        [
            _markdown(
                ("metric", "type", "labels", "what it says"),
                [(f"`{m.name}`", m.kind.value, ", ".join(m.labels), m.help) for m in METRICS],
            ),
            _markdown(("span", "what it is"), [(f"`{name}`", text) for name, text in SPANS.items()]),
            _markdown(
                ("attribute", "type", "on", "what it says"),
                [(f"`{a.key}`", a.type, a.spans, a.help) for a in ATTRIBUTES],
            ),
        ]
    )


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
