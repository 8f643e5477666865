"""Commands about models that grow old: rules that watch for drift."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer import settings
from mixer.cli_words import failure
from mixer.faults import FileFault, read_as
from mixer.settings import Settings

if TYPE_CHECKING:
    from mixer.manifest import Manifest
    from models.rules import Bounds


def rules(
    config: Annotated[Path, typer.Option("--config", "-c", help="Settings file (YAML).")],
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    bounds: Annotated[Path | None, typer.Option(help="YAML: beyond which alerts are raised.")] = None,
    match: Annotated[
        list[str] | None,
        typer.Option(
            help="Label of the series to watch, repeatable: job=mixer, where Prometheus scrapes others."
        ),
    ] = None,
    runbooks: Annotated[
        str, typer.Option(help="Address of the runbooks that alerts point to.")
    ] = "docs/runbooks.md",
) -> None:
    """Write Prometheus rules for a settings file: drift of scores and features, fallbacks, failures; with tests."""
    from models import rule_files

    labels = dict(_label(text) for text in match or ())
    try:
        loaded = settings.load(config)
        sliced = any(mix.slices for mix in loaded.mixes.values())
        doubts = rule_files.write(_manifests(loaded), out, _bounds(bounds), labels, runbooks, sliced)
    except settings.SettingsError as error:
        raise failure(str(error)) from error
    except OSError as error:
        raise failure(f"{error.filename}: {error.strerror}") from error
    for doubt in doubts:
        typer.secho(doubt, fg=typer.colors.YELLOW, err=True)
    typer.echo(f"{out / rule_files.RULES}\n{out / rule_files.TESTS}")


def _manifests(loaded: Settings) -> dict[str, Manifest | None]:
    """The manifest of every mix's model, None where it has none."""
    from mixer import model, sources

    try:
        return {
            name: model.read_manifest(sources.folder_of(loaded.models[mix.model])) if mix.model else None
            for name, mix in loaded.mixes.items()
        }
    except model.ModelRefused as refusal:
        raise failure(str(refusal)) from refusal


def _bounds(path: Path | None) -> Bounds:
    from models.rules import Bounds

    try:
        return read_as(Bounds, path) if path else Bounds()
    except FileFault as error:
        raise failure(str(error)) from error


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or set(value) & set('"\\\n'):
        raise failure(f"--match {text}: write label=value")
    return name, value
