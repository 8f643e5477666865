"""The model card: what a person should know of a model before it ranks for them, in Markdown with a picture."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from matplotlib.figure import Figure

from mixer.manifest import CARD, Manifest

PLOT = "importance.png"
_SHOWN = 25


def write(manifest: Manifest, folder: Path) -> None:
    """Write card.md and importance.png beside the manifest."""
    (folder / CARD).write_text(markdown(manifest), encoding="utf-8")
    _plot(manifest, folder / PLOT)


def markdown(manifest: Manifest) -> str:
    """The card as text."""
    trained = datetime.fromtimestamp(manifest.created_at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return "\n".join(
        [
            f"# Model card: {manifest.name} {manifest.version}",
            "",
            f"A LightGBM forest of {manifest.trees} trees (`{manifest.parameters['objective']}`), trained {trained} "
            f"by code {manifest.code_version}.",
            "",
            "## What it is for",
            "",
            "Ordering the merged candidates of one Mixer mix that declares exactly the features below "
            f"(schema `{manifest.schema_sha256[:12]}`). It gives scores that order the candidates of one query; they "
            "are not probabilities, and scores of different queries do not compare.",
            "",
            "## What it learned from",
            "",
            *_data(manifest),
            "",
            "## What scores it",
            "",
            _scorer(manifest),
            "",
            "## How good it is",
            "",
            *_table(("measure", "value"), [(k, f"{v:.4f}") for k, v in manifest.metrics.items()]),
            "",
            "Validation queries stopped the training, so these figures flatter; measure on a test split before use.",
            "",
            "## What it looks at",
            "",
            f"![Share of the gain by feature]({PLOT})",
            "",
            *_table(("feature", "made from", "share of gain", "missing"), _features(manifest)),
            "",
            "## Parameters",
            "",
            *_table(("parameter", "value"), [(k, f"`{v}`") for k, v in manifest.parameters.items()]),
            "",
        ]
    )


def _data(manifest: Manifest) -> list[str]:
    data = manifest.data
    dated = f"{data.since} to {data.until}" if data.since else "not dated"
    splits = ", ".join(f"{count} {split}" for split, count in sorted(data.queries.items()))
    rows = ", ".join(f"{count} {split}" for split, count in sorted(data.rows.items()))
    return [
        f"- Judgements: `{data.source}` (SHA-256 `{data.sha256[:12]}…`), {dated}",
        f"- Judged queries: {splits}",
        f"- Rows: {rows}",
    ]


def _scorer(manifest: Manifest) -> str:
    if manifest.scorer == "forest":
        return "Mixer's own evaluator, which gave the doubles of LightGBM on every golden query."
    why = manifest.scorer.partition(": ")[2] or "not asked when trained"
    return f"LightGBM, not Mixer's own faster evaluator (`{why}`)."


def _features(manifest: Manifest) -> list[tuple[str, ...]]:
    by_share = sorted(manifest.features, key=lambda feature: -manifest.importance[feature.name])
    return [
        (
            f"`{feature.name}`",
            feature.source,
            f"{manifest.importance[feature.name]:.1%}",
            f"{manifest.profiles[feature.name].missing:.1%}",
        )
        for feature in by_share
    ]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]


def _plot(manifest: Manifest, path: Path) -> None:
    shares = sorted(manifest.importance.items(), key=lambda item: item[1])[-_SHOWN:]
    figure = Figure(figsize=(8, 0.3 * len(shares) + 1), layout="constrained")
    axes = figure.subplots()
    axes.barh([name for name, _ in shares], [share * 100 for _, share in shares], color="#3b6ea5")
    axes.set_xlabel("share of the gain, %")
    axes.set_title(f"{manifest.name} {manifest.version}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": ""})
