"""What a person sees in a terminal: a ranking with where each hit came from, a trace as a tree, the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mixer.catalogue import ATTRIBUTES, METRICS, SPANS
from mixer.client import Hit, SearchResult
from mixer.manifest import MODEL, sha256_of

_MOVERS = 3
_COLORS = {"ok": "green", "timeout": "yellow", "error": "red", "refused": "magenta"}


def ranking(query: str, result: SearchResult, model: Path | None = None) -> Iterator[RenderableType]:
    """The hits as a table, then how they came about; with a model folder, what moved each hit."""
    names = [report.backend for report in result.backends]
    moved = movers(result, model) if model and result.ranker == "model" else None
    table = Table(title=Text(query, "bold"), title_justify="left", expand=False)
    for heading in ("rank", "document", *names, "fused", "score"):
        table.add_column(heading, justify="left" if heading == "document" else "right")
    if moved:
        table.add_column("what moved it")
    for place, hit in enumerate(result.hits):
        table.add_row(*_row(hit, names), *([moved[place]] if moved else []))
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
        line.append(f" {report.hits} hits {report.elapsed_ms:.1f} ms", "dim")
        line.append(f" ({report.detail})  " if report.detail else "  ", "dim")
    model = f"{result.model.name} {result.model.version}" if result.model else "no model"
    line.append(
        f"\n{result.candidates} candidates, ranked by {result.ranker} ({model}), {result.elapsed_ms:.1f} ms"
    )
    if result.trace_id:
        line.append(f", trace {result.trace_id}", "dim")
    if result.degraded:
        line.append(f"\ndegraded: {'; '.join(result.degraded_reasons)}", "yellow")
    return line


def movers(result: SearchResult, model: Path) -> list[str]:
    """For each hit, the features that moved its score most against the average hit of this page.

    By TreeSHAP: Lundberg, Erion and Lee, "Consistent individualized feature attribution for tree ensembles", 2018.
    Raises: OSError where the folder holds no model; ValueError where another model ranked.
    """
    # Also keeps a broken file from LightGBM, which would die of it.
    if result.model is None or sha256_of(model / MODEL) != result.model.sha256:
        raise ValueError(f"{model} is not the model that ranked this answer")
    if not result.hits:
        return []
    import lightgbm

    booster = lightgbm.Booster(model_file=str(model / MODEL))
    shares = np.asarray(booster.predict(result.features, pred_contrib=True, num_threads=1))[:, :-1]
    shares = shares - shares.mean(axis=0)
    return [_told(row, result.feature_names) for row in shares]


def _told(row: Any, names: Sequence[str]) -> str:
    strongest = np.argsort(-np.abs(row))[:_MOVERS].tolist()
    return ", ".join(f"{names[place]} {row[place]:+.2f}" for place in strongest if abs(row[place]) >= 0.005)


def plain(result: SearchResult) -> dict[str, Any]:
    """The result in JSON's types."""
    told = asdict(result)
    told["features"] = [
        [None if value != value else value for value in row] for row in result.features.tolist()
    ]
    return told


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
