"""`mixer keys`: API keys for callers."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from mixer.caller import Scope
from mixer.cli_words import failure, say
from mixer.faults import describe

app = typer.Typer(no_args_is_help=True, help="API keys, of which the server knows hashes only.")


@app.callback()
def _group() -> None:
    """API keys, of which the server knows hashes only."""


@app.command()
def new(
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    scopes: Annotated[
        str, typer.Option(help=f"What it allows, apart by commas: {', '.join(Scope)}.")
    ] = Scope.SEARCH.value,
) -> None:
    """Make a key: printed once, with the line for the file that `auth.keys` names."""
    from mixer import keys

    try:
        wanted = [Scope(word.strip()) for word in scopes.split(",")]
        made = keys.new(tenant, wanted)
    except ValidationError as error:
        raise failure("; ".join(f"--{fault.path}: {fault.message}" for fault in describe(error))) from error
    except ValueError as error:
        raise failure(f"--scopes {scopes}: take {', '.join(Scope)}, apart by commas") from error
    say(f"key, for the caller, not shown again: {made.key}")
    say(f"line, for the file of auth.keys: {made.line}")
