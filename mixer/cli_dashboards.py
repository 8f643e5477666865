"""The command that writes Grafana dashboards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixer.cli_words import failure


def dashboards(
    out: Annotated[Path, typer.Argument(help="Folder to write into.")],
) -> None:
    """Write Grafana dashboards, a JSON file each: overview, backends, models, experiments, process."""
    from models import dashboard_files

    try:
        for path in dashboard_files.write(out):
            typer.echo(path)
    except OSError as error:
        raise failure(f"{error.filename}: {error.strerror}") from error
