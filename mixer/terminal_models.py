"""What a person sees of a registry in a terminal: versions, decisions, differences, each as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mixer.decision import Decision
from mixer.manifest import Manifest
from mixer.registry import Event, Pointer

_COLORS = {
    "passed": "green",
    "failed": "bold red",
    "off": "yellow",
    "not_run": "dim",
    "promote": "green",
    "refuse": "red",
    "rollback": "yellow",
    "publish": "",
}


def versions(name: str, held: Sequence[Manifest], current: Pointer | None) -> Table:
    """The versions of a model, the newest first, and which is current."""
    table = Table(title=Text(name, "bold"), title_justify="left")
    for heading in ("version", "trained", "trees", "features", "schema", "measured when trained", "state"):
        table.add_column(heading, justify="right" if heading in ("trees", "features") else "left")
    for manifest in held:
        table.add_row(
            Text(manifest.version),
            _when(manifest.created_at_s),
            str(manifest.trees),
            str(len(manifest.features)),
            manifest.schema_sha256[:12],
            Text(", ".join(f"{key} {value:.4f}" for key, value in manifest.metrics.items())),
            state(manifest, current),
        )
    return table


def state(manifest: Manifest, current: Pointer | None) -> Text:
    """Whether a version is current, or what a rollback would go back to."""
    if current and manifest.version == current.version:
        return Text("current", "bold green")
    return Text("previous" if current and manifest.version == current.previous else "", "yellow")


def version(
    manifest: Manifest, current: Pointer | None, history: Sequence[Event], decisions: Sequence[Decision]
) -> Iterator[RenderableType]:
    """All about one version: what it is, what happened to it, what the gate said last."""
    facts = Table(
        title=Text(f"{manifest.name} {manifest.version}", "bold"), title_justify="left", show_header=False
    )
    for key, value in told(manifest).items():
        facts.add_row(key, Text(str(value)))
    facts.add_row("state", state(manifest, current) or Text("not current"))
    yield facts
    yield happened([event for event in history if event.version == manifest.version])
    if decisions:
        yield decision(decisions[-1])


def told(manifest: Manifest) -> dict[str, Any]:
    """What a manifest says in single values."""
    data = manifest.data
    return {
        "sha256": manifest.model_sha256,
        "trained": _when(manifest.created_at_s),
        "trees": manifest.trees,
        "schema": manifest.schema_sha256,
        "features": len(manifest.features),
        "judgements": f"{data.source} ({data.sha256[:12]}…)",
        "queries": ", ".join(f"{count} {split}" for split, count in sorted(data.queries.items())),
        "code": manifest.code_version,
        "scorer": manifest.scorer or "not asked",
        **manifest.metrics,
    }


def happened(events: Sequence[Event]) -> Table:
    """Events, in order."""
    table = Table(title="history", title_justify="left")
    for heading in ("when", "what", "version", "before", "by", "why"):
        table.add_column(heading)
    for event in events:
        what = Text(event.action, _COLORS[event.action])
        when = event.changed_at.partition(".")[0].replace("T", " ")
        table.add_row(when, what, event.version, event.previous or "", Text(event.by), Text(event.why))
    return table


def decision(made: Decision) -> Table:
    """Every check of the gate with what it measured."""
    verdict = "passed" if made.passed else "refused"
    title = Text(f"gate: {made.version} {verdict}", "bold green" if made.passed else "bold red")
    table = Table(title=title, title_justify="left", caption=Text(_measured_by(made)), caption_justify="left")
    for heading in ("check", "outcome", "what was found"):
        table.add_column(heading)
    for check in made.checks:
        table.add_row(
            check.name, Text(check.outcome.replace("_", " "), _COLORS[check.outcome]), Text(check.told)
        )
    return table


def _measured_by(made: Decision) -> str:
    against = f"against {made.against}" if made.against else "nothing was current"
    if not made.evidence:
        return against
    return f"{against}; {made.evidence.queries} judged listings ({made.evidence.split}) of {made.evidence.source}"


def differences(old: Manifest, new: Manifest) -> dict[str, tuple[Any, Any]]:
    """What is not the same in two versions: facts, metrics, parameters, features, importance (by a point or more)."""
    pairs = {**_unequal(told(old), told(new)), **_unequal(old.parameters, new.parameters, "parameter ")}
    pairs.update(_unequal(_declared(old), _declared(new), "feature "))
    return {**pairs, **_unequal(_shares(old), _shares(new), "importance ")}


def _declared(manifest: Manifest) -> dict[str, Any]:
    return {f.name: f.model_dump(mode="json", exclude_defaults=True) for f in manifest.features}


def _shares(manifest: Manifest) -> dict[str, float]:
    return {name: round(share, 2) for name, share in manifest.importance.items()}


def _unequal(old: Any, new: Any, kind: str = "") -> dict[str, tuple[Any, Any]]:
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return {f"{kind}{key}": (old.get(key), new.get(key)) for key in keys}


def difference(old: Manifest, new: Manifest) -> Table:
    """Two versions side by side, only where they differ."""
    table = Table(title=Text(f"{old.name}: {old.version} to {new.version}", "bold"), title_justify="left")
    for heading in ("what", old.version, new.version, "change"):
        table.add_column(heading)
    for what, (before, after) in differences(old, new).items():
        table.add_row(what, _cell(before), _cell(after), _change(before, after))
    return table


def _cell(value: Any) -> Text:
    if value is None:
        return Text("-", "dim")
    return Text(f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value))


def _change(before: Any, after: Any) -> Text:
    numbers = [value for value in (before, after) if isinstance(value, int | float)]
    return Text(f"{numbers[1] - numbers[0]:+.4g}" if len(numbers) == 2 else "")


def _when(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M")
