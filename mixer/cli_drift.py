"""Commands about models that grow old: rules that watch for drift, NDCG by age, features that are made otherwise."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from rich.progress import BarColumn, Progress, TextColumn

from backends.index import IndexFault
from mixer.cli_inputs import (
    Asked,
    Config,
    Judged,
    Mix,
    RecipeFile,
    job_of,
    mix_of,
    read_from,
    read_of,
    recipe_of,
    settings_of,
)
from mixer.cli_server import HERE, Reach
from mixer.cli_words import console, errors, failure
from mixer.client import MixerError
from mixer.faults import describe
from mixer.model_settings import EnsembleModelSettings
from mixer.settings import Settings

if TYPE_CHECKING:
    from mixer.manifest import Manifest
    from models.rules import Bounds


def rules(
    config: Config,
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

    labels, loaded = dict(_label(text) for text in match or ()), settings_of(config)
    try:
        sliced = any(mix.slices for mix in loaded.mixes.values())
        doubts = rule_files.write(_manifests(loaded), out, _bounds(bounds), labels, runbooks, sliced)
    except OSError as error:
        raise failure(f"{error.filename}: {error.strerror}") from error
    for doubt in doubts:
        typer.secho(doubt, fg=typer.colors.YELLOW, err=True)
    typer.echo(f"{out / rule_files.RULES}\n{out / rule_files.TESTS}")


def decay(
    config: Config,
    judgements: Judged,
    mix: Mix = "",
    windows: Annotated[int, typer.Option(min=2, help="Windows to train on, each as many queries.")] = 5,
    overlap: Annotated[float, typer.Option(help="Share of a window that the next holds too.")] = 0.5,
    tested: Annotated[float, typer.Option(help="Share of the queries, the newest, to measure on.")] = 0.2,
    tolerance: Annotated[float, typer.Option(help="NDCG that may be lost.")] = 0.01,
    recipe: RecipeFile = None,
    target: Asked = "",
    reach: Reach = HERE,
) -> None:
    """Train on older and older judgements; show NDCG by age, and the greatest age that a model should reach."""
    from models import work
    from models.decay import Windows

    job, how = job_of(config, mix, judgements, "open", target, reach), recipe_of(recipe)
    try:
        parted = Windows(number=windows, overlap=overlap, tested=tested, tolerance=tolerance)
        for part in asyncio.run(work.decay(job, how, parted, errors)):
            console.print(part)
    except ValidationError as error:
        lines = [f"--{fault.path}: {fault.message}" for fault in describe(error)]
        raise failure("\n".join(lines)) from error
    except (MixerError, ValueError, OSError, IndexFault) as error:
        raise failure(str(error)) from error


def skew(
    log: Annotated[
        Path,
        typer.Argument(
            help="Folder or fsspec URL of a feature log that was written with inputs: true.",
            parser=read_from,
            metavar="LOG",
        ),
    ],
    config: Config,
    mix: Mix = "",
    tolerance: Annotated[float, typer.Option(min=0, help="Relative difference that is none.")] = 1e-9,
) -> None:
    """Make logged features again from their logged inputs; status 2 where a feature differs."""
    from models import logs
    from models import skew as compared

    loaded = settings_of(config)
    name = mix_of(loaded, mix)
    try:
        found = logs.files(log)
        with Progress(TextColumn("{task.description}"), BarColumn(), console=errors) as progress:
            bar = progress.add_task("files", total=len(found.sound))
            read = logs.read(found.sound, progress=lambda done, of: progress.update(bar, completed=done))
            report = compared.compare(logs.searches(read), name, loaded.mixes[name].features, tolerance)
    except (OSError, ValueError) as error:
        raise failure(str(error)) from error
    report.torn = len(found.torn)
    for part in compared.tables(report, name):
        console.print(part)
    if not report.searches:
        raise failure(f"{log} holds no search of mix {name!r} to compare")
    if report.skewed:
        raise typer.Exit(2)


def _manifests(loaded: Settings) -> dict[str, Manifest | None]:
    """The manifest of every mix's model, None where it has none: an ensemble's scores have no profile."""
    from mixer import model, sources

    declared = {name: loaded.models.get(mix.model) for name, mix in loaded.mixes.items()}
    try:
        return {
            name: None
            if each is None or isinstance(each, EnsembleModelSettings)
            else model.read_manifest(sources.folder_of(each))
            for name, each in declared.items()
        }
    except model.ModelRefused as refusal:
        raise failure(str(refusal)) from refusal


def _bounds(path: Path | None) -> Bounds:
    from models.rules import Bounds

    return read_of(Bounds, path) if path else Bounds()


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or set(value) & set('"\\\n'):
        raise failure(f"--match {text}: write label=value")
    return name, value
