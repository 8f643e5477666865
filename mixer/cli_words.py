"""What every command says, and how: plain words on standard output, what went wrong in red on standard error."""

from __future__ import annotations

import typer
from rich.console import Console

from mixer.mask import masked

console = Console()
errors = Console(stderr=True)


def say(message: str) -> None:
    """A line of words, with nothing in it taken for markup."""
    console.print(message, markup=False, highlight=False, soft_wrap=True)


def failure(message: str, status: int = 1) -> typer.Exit:
    """Say what went wrong, without secrets; raise what this returns to end the command."""
    errors.print(masked(message), style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(status)
