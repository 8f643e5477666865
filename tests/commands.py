"""Runs commands of `mixer` as a terminal would."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from mixer import cli


def run(*argv: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in argv])


def said(result: Result, status: int = 0) -> str:
    """What a command prints that ends so."""
    assert result.exit_code == status, result.stderr
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stdout
