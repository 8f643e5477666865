"""`mixer models`: publish a model to a registry, look at what is there, make a version current, take it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from mixer import cli_drift, terminal_models
from mixer.cli_server import reaches_a_server
from mixer.cli_words import console, errors, failure, say
from mixer.decision import Bounds
from mixer.faults import read_as
from mixer.place import given, place_of, somewhere
from mixer.proof import RegistryError
from mixer.registry import Registry
from mixer.settings import SettingsError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Versions of models in a registry: a folder, or any fsspec URL (s3://…, gs://…).\n\n"
    "The way: [bold]publish[/] a folder that `mixer train` wrote, [bold]list[/] and [bold]diff[/] what is there, "
    "[bold]promote[/] a version, which runs the gate, [bold]rollback[/] in one command. "
    "[bold]decay[/] and [bold]skew[/] tell how fast models age, and which features serving made otherwise. "
    "Running servers follow what is current, without a restart.\n\n"
    "Where the registry is: --registry, or MIXER_REGISTRY, or the settings file of --config.",
)

Where = Annotated[
    str,
    typer.Option(
        "--registry", "-r", envvar="MIXER_REGISTRY", help="Folder or fsspec URL.", show_default=False
    ),
]
Name = Annotated[str, typer.Option("--name", "-n", help="Model; the registry's only one where not given.")]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Settings file: names registry and model, and declares the features."
    ),
]
Mix = Annotated[str, typer.Option(help="Mix of the settings file; the default one where not given.")]
Why = Annotated[str, typer.Option("--why", "-m", help="A sentence for the history.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Version = Annotated[
    str, typer.Argument(help="A version, or as much of its start as only it has.", show_default=False)
]


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="Model folder, as `mixer train` writes it.")],
    registry: Where = "",
    name: Annotated[
        str, typer.Option("--name", "-n", help="Name in the registry; the model's own if empty.")
    ] = "",
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Add a model folder as a version that never changes. The same model again changes nothing.

    Files that are not those of the manifest are refused. Nothing is served yet: `promote` makes a version current.
    """
    with _told():
        manifest, new = Registry(given(registry)).publish(folder, name, why)
    if as_json:
        return _json({"version": manifest.version, "sha256": manifest.model_sha256, "new": new})
    state = "published; `mixer models promote` makes it current" if new else "was there already"
    return say(f"{name or manifest.name} {manifest.version}: {state}")


@app.command("list")
def list_(
    registry: Where = "", name: Name = "", config: Config = None, mix: Mix = "", as_json: Json = False
) -> None:
    """List the whole versions of every model, or of one, and which is current."""
    with _told():
        place = somewhere(registry, config, mix)
        shelf = place.registry
        names = [name or place.name] if name or place.name else shelf.names()
        held = [(one, shelf.versions(one), shelf.current(one)) for one in names]
    if as_json:
        return _json([_line(one, manifest, now) for one, found, now in held for manifest in found])
    for one, found, current in held:
        console.print(terminal_models.versions(one, found, current))
    return None if held else say(f"{shelf.url} holds no model; `mixer models publish` adds one")


def _line(name: str, manifest: Any, current: Any) -> dict[str, Any]:
    state = str(terminal_models.state(manifest, current))
    return {"name": name, "version": manifest.version, "state": state, **terminal_models.told(manifest)}


@app.command()
def show(
    version: Annotated[
        str, typer.Argument(help="A version or its start; the current one where not given.")
    ] = "",
    registry: Where = "",
    name: Name = "",
    config: Config = None,
    mix: Mix = "",
    as_json: Json = False,
) -> None:
    """Show one version: what it is, what happened to it, and what the gate found when it was last asked."""
    with _told():
        place = place_of(registry, name, config, mix)
        current = place.registry.current(place.name)
        if not (version or current):
            raise RegistryError(f"{place.name} has no current version: name one")
        manifest = place.registry.manifest(
            place.name, place.version(version) if version else (current.version if current else "")
        )
        history = place.registry.history(place.name)
        decisions = place.registry.decisions(place.name, manifest.version)
    if as_json:
        return _json(
            {
                "manifest": manifest.model_dump(mode="json"),
                "current": current.model_dump(mode="json") if current else None,
                "history": [e.model_dump(mode="json") for e in history if e.version == manifest.version],
                "decisions": [{**d.model_dump(mode="json"), "passed": d.passed} for d in decisions],
            }
        )
    for part in terminal_models.version(manifest, current, history, decisions):
        console.print(part)
    return None


@app.command()
def diff(
    old: Version,
    new: Version,
    registry: Where = "",
    name: Name = "",
    config: Config = None,
    mix: Mix = "",
    as_json: Json = False,
) -> None:
    """Show in what two versions differ: figures, parameters, data, features, importance."""
    with _told():
        place = place_of(registry, name, config, mix)
        one, other = (place.registry.manifest(place.name, place.version(text)) for text in (old, new))
    if as_json:
        return _json({key: list(pair) for key, pair in terminal_models.differences(one, other).items()})
    console.print(terminal_models.difference(one, other))
    return None


@app.command()
def promote(
    version: Version,
    registry: Where = "",
    name: Name = "",
    config: Config = None,
    mix: Mix = "",
    judged: Annotated[
        Path | None,
        typer.Option(
            help="Judged listings (judged.npz) to measure by; those of the current version if not given."
        ),
    ] = None,
    bounds: Annotated[
        Path | None,
        typer.Option(
            help="YAML with bounds of the gate, null to switch a check off; `--bounds-help` lists them."
        ),
    ] = None,
    bounds_help: Annotated[
        bool,
        typer.Option(
            "--bounds-help",
            help="Print the bounds and their defaults as YAML, and stop.",
            is_eager=True,
            callback=lambda asked: _print_bounds() if asked else None,
        ),
    ] = False,
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Run the gate on a version; make it current if every check passes, and say which failed and by how much if not.

    The checks: the manifest, the checksums, the schema, a load in a process of its own, the golden queries; enough
    judged queries; finite scores that tell candidates apart; features in the units of the training; an NDCG floor,
    better than the fused order, no drop against the current version, over all and by slice; and a latency budget.
    What was decided is kept in the registry. There is no way round the gate: change a bound, and the decision says so.
    """
    from models import promotion

    with _told():
        place = place_of(registry, name, config, mix)
        candidate = promotion.Candidate(
            place.name, place.version(version), place.features, place.slices, judged
        )
        current = place.registry.current(place.name)
        if current and current.version == candidate.version:
            raise RegistryError(f"{candidate.version} is current already")
        keeping = read_as(Bounds, bounds) if bounds else Bounds()
        with errors.status(f"the gate looks at {candidate.version}"):
            decision, pointer = promotion.promote(place.registry, candidate, keeping, why)
    if as_json:
        _json(
            {
                "decision": {**decision.model_dump(mode="json"), "passed": decision.passed},
                "current": _dump(pointer),
            }
        )
    else:
        console.print(terminal_models.decision(decision))
    if not pointer:
        raise failure("\n".join(f"refused by {refusal}" for refusal in decision.refusals))
    return (
        None
        if as_json
        else say(f"{place.name}: {pointer.version} is current; before it: {pointer.previous or 'nothing'}")
    )


@app.command()
def rollback(
    registry: Where = "",
    name: Name = "",
    config: Config = None,
    mix: Mix = "",
    to: Annotated[
        str, typer.Option(help="A version that was current once; the one before where not given.")
    ] = "",
    why: Why = "",
    as_json: Json = False,
) -> None:
    """Make the version before current again, at once: no gate runs, only the files' hashes are compared."""
    with _told():
        place = place_of(registry, name, config, mix)
        was, current = place.registry.rollback(place.name, why, place.version(to) if to else "")
    if as_json:
        return _json({"was": _dump(was), "current": _dump(current)})
    return say(f"{place.name}: {current.version} is current again, no longer {was.version}")


app.command()(reaches_a_server(cli_drift.decay))
app.command()(cli_drift.skew)


def _print_bounds() -> None:
    typer.echo(yaml.safe_dump(Bounds().model_dump(), sort_keys=False).rstrip())
    raise typer.Exit


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong is said in its own words, and ends the command with status 1."""
    try:
        yield
    except (RegistryError, SettingsError, OSError, ValueError) as error:
        raise failure(str(error)) from error


def _dump(pointer: Any) -> Any:
    return pointer.model_dump(mode="json") if pointer else None


def _json(told: Any) -> None:
    console.print_json(json.dumps(told))
