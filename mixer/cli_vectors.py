"""`mixer golden-vectors`: inputs, features and scores for other languages to verify their own by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixer import settings
from mixer.cli_looks import MODEL, Name, Registry, load, told
from mixer.cli_words import failure, say
from mixer.place import folder_of
from mixer.settings import MixSettings


def golden_vectors(
    model: Annotated[str, typer.Argument(help=MODEL)],
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    check: Annotated[Path | None, typer.Option(help="JSON file to hold against this code and model.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings file: fusion and backends of the mix.")
    ] = None,
    mix: Annotated[str, typer.Option(help="Mix of the settings file; the default one if empty.")] = "",
    registry: Registry = "",
    name: Name = "",
) -> None:
    """Write inputs with the features and scores that must come of them, for other languages to verify their own.

    `--check FILE` verifies this code instead: status 1 and a line for each difference.
    """
    from models import golden_vectors, vector_inputs

    if (out is None) == (check is None):
        raise failure("pass --out FILE to write vectors, or --check FILE to verify")
    with told():
        folder = folder_of(model, registry, name)
        loaded = load(folder)
        if check:
            vectors = golden_vectors.read(check)
            if faults := list(golden_vectors.faults(vectors, loaded)):
                raise failure("\n".join(f"{check}: {fault}" for fault in faults))
        elif out:
            vectors = vector_inputs.vectors(folder, loaded, _mix(config, mix) if config else None)
            golden_vectors.write(vectors, out)
    say(
        f"{check or out}: {len(vectors.vectors)} requests and {len(vectors.rows)} rows "
        f"of {loaded.ref.name} {loaded.ref.version}{', all as expected' if check else ''}"
    )


def _mix(config: Path, name: str) -> MixSettings:
    loaded = settings.load(config)
    return loaded.mixes[loaded.mix_called(name)]
