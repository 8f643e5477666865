"""What the commands that look into rankings share: which model, which logged searches, and how faults are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mixer.cli_words import errors, failure
from mixer.settings import SettingsError

if TYPE_CHECKING:
    from mixer.model import LightGbmModel
    from models.logs import Served
    from models.replay import Wanted

MODEL = "Model folder; or a version of a registry, as much of its start as only it has, or `current`."

Registry = Annotated[
    str,
    typer.Option(
        "--registry",
        "-r",
        envvar="MIXER_REGISTRY",
        help="Registry of the version: a folder or fsspec URL.",
        show_default=False,
    ),
]
Name = Annotated[
    str, typer.Option("--name", "-n", help="Its model in the registry; the only one where not given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a log; a limit of 0 is none."""

    wanted: Wanted
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 0


def searches(log: Path, part: Part) -> Iterator[Served]:
    """The part's searches, with progress; files that cannot be read are told."""
    from models import logs

    since, until = (time and time.replace(tzinfo=time.tzinfo or UTC) for time in (part.since, part.until))
    window = logs.Window(since, until)
    files = logs.files(log, window)
    for path in files.torn:
        errors.print(f"{path} cannot be read and is left out", markup=False, highlight=False, soft_wrap=True)
    columns = (TextColumn("files"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task("", total=len(files.sound))
        batches = logs.read(files.sound, None, window, lambda done, of: progress.update(bar, completed=done))
        yield from islice(logs.searches(part.wanted.of(batches)), part.limit or None)


def load(folder: Path) -> LightGbmModel:
    """The model of a folder, with all its checks passed. Raises: ModelRefused."""
    from mixer.model import load, read_manifest

    return load(folder, read_manifest(folder).features)


def model_meant(text: str, registry: str, name: str) -> LightGbmModel:
    """The model of a folder or of a registry, with all its checks passed. Raises: ModelRefused, RegistryError."""
    from mixer.place import folder_of

    return load(folder_of(text, registry, name))


@contextmanager
def told() -> Iterator[None]:
    """What goes wrong in it is said in a line, and the status is 1."""
    from mixer.model import ModelRefused
    from mixer.proof import RegistryError

    try:
        yield
    except ModelRefused as refusal:
        raise failure(f"{refusal.check} check: {refusal}") from refusal
    except (OSError, ValueError, SettingsError, RegistryError) as error:
        raise failure(str(error)) from error
