"""The differences of two models as a picture: how far every query moved, from where to where, and the worst one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from models.differences import TOP, Changed, Differences

_DEPTH = 30
"""Ranks of the map; what stands further down counts as its last."""
_RISE, _FALL, _STAY = "#2f7d4f", "#b3423a", "#b8bcc2"
_LABEL_CHARS = 28


def plot(found: Differences, path: Path) -> None:
    """Write it in the format that the file's ending names. Raises: OSError, ValueError."""
    figure = Figure(figsize=(15, 5), layout="constrained")
    figure.suptitle(f"{found.before} → {found.after}, {len(found.changed)} searches")
    overlaps, ranks, worst = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    _plot_overlaps(overlaps, found)
    _plot_ranks(ranks, found)
    _plot_search(worst, found.worst_first[0] if found.changed else None)
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else {})


def _plot_overlaps(axes: Any, found: Differences) -> None:
    axes.hist([each.overlap for each in found.changed], bins=np.linspace(0, 1, 21).tolist(), color="#3b6ea5")
    axes.set_xlabel("rank-biased overlap of the two orders (1: the same)")
    axes.set_ylabel("searches")
    axes.spines[["top", "right"]].set_visible(False)


def _plot_ranks(axes: Any, found: Differences) -> None:
    """How often a rank before became a rank after; brightness by the logarithm."""
    counts = np.zeros((_DEPTH, _DEPTH))
    for each in found.changed:
        before, after = (np.minimum(ranks, _DEPTH) - 1 for ranks in each.ranks)
        np.add.at(counts, (before, after), 1)
    counts[-1, -1] = 0  # what was and stays below tells nothing, and would outshine the rest
    axes.imshow(np.log1p(counts), cmap="Blues", extent=(0.5, _DEPTH + 0.5, _DEPTH + 0.5, 0.5))
    axes.plot([0.5, _DEPTH + 0.5], [0.5, _DEPTH + 0.5], color=_STAY, linewidth=0.8)
    axes.set_xlabel(f"rank after ({_DEPTH}: or below)")
    axes.set_ylabel(f"rank before ({_DEPTH}: or below)")


def _plot_search(axes: Any, each: Changed | None) -> None:
    """The first ranks of the most changed search as lines from before to after."""
    axes.set_axis_off()
    if each is None:
        return
    axes.set_title(f"most changed: {_cut(each.name, 44)}", fontsize=10)
    before, after = each.ranks
    for place in np.flatnonzero((before <= TOP) | (after <= TOP)).tolist():
        ends = [min(int(ranks[place]), TOP + 1) for ranks in (before, after)]
        color = _RISE if ends[1] < ends[0] else _FALL if ends[1] > ends[0] else _STAY
        axes.plot((0, 1), ends, color=color, marker="o", markersize=4)
        for x, end, ranks, side in ((0, ends[0], before, "right"), (1, ends[1], after, "left")):
            if end <= TOP:
                label = _end_of(each.ids[place], _LABEL_CHARS)
                text = f"{label}  {ranks[place]}" if side == "right" else f"{ranks[place]}  {label}"
                axes.text(
                    x + (0.04 if x else -0.04), end, text, ha=side, va="center", fontsize=8, parse_math=False
                )
    axes.set_xlim(-1.1, 2.1)
    axes.set_ylim(TOP + 1.3, 0.4)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _end_of(text: str, most: int) -> str:
    """Ids tend to differ at their ends."""
    return text if len(text) <= most else f"…{text[1 - most :]}"
