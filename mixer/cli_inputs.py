"""What commands are given: options that several take, and files read; a fault in one is said and ends the command."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixer import settings
from mixer.cli_server import HERE, Reach
from mixer.cli_words import failure
from mixer.far_folder import folder_at
from mixer.faults import FileFault, M, read_as
from mixer.settings import Settings, SettingsError
from mixer.store import StoreFailed

if TYPE_CHECKING:
    from models.collection import Pool
    from models.learn import Learn
    from models.training import Recipe
    from models.work import Job


def read_from(text: str) -> Path:
    """Where a log lies, here or behind a URL."""
    try:
        return folder_at(text)
    except StoreFailed as error:
        raise typer.BadParameter(str(error)) from error


FeatureLog = Annotated[
    Path, typer.Argument(help="Folder or fsspec URL of the feature log.", parser=read_from, metavar="LOG")
]
EventLog = Annotated[
    Path,
    typer.Argument(
        help="Folder or fsspec URL of the event log (settings: feedback).", parser=read_from, metavar="EVENTS"
    ),
]
Config = Annotated[Path, typer.Option("--config", "-c", help="Settings file (YAML).")]
Mix = Annotated[str, typer.Option(help="Mix; the default one where not given.")]
Judged = Annotated[Path, typer.Option("--judgements", "-j", help="Judged queries (JSON Lines).")]
RecipeFile = Annotated[Path | None, typer.Option("--recipe", help="YAML with parameters of the training.")]
Asked = Annotated[
    str, typer.Option("--target", help="A running Mixer to ask; one is started where not given.")
]


def settings_of(config: Path) -> Settings:
    """The settings of a file."""
    try:
        return settings.load(config)
    except SettingsError as error:
        raise failure(str(error)) from error
    except OSError as error:
        raise failure(f"{config}: {error.strerror}; name a settings file with --config") from error


def job_of(config: Path, mix: str, judgements: Path, pools: str, target: str, reach: Reach = HERE) -> Job:
    """Judged queries, and the mix that they are for."""
    from models import judgements as judged
    from models import work

    loaded = settings_of(config)
    name = mix_of(loaded, mix)
    taken: dict[str, tuple[Pool, ...]] = {
        "open": ("open",),
        "judged": ("judged",),
        "open,judged": ("open", "judged"),
    }
    if pools not in taken:
        raise failure(f"--pools {pools}: take {' or '.join(taken)}")
    try:
        options = reach.options if target else {}
        return work.Job(loaded, name, judged.read(judgements), taken[pools], target, options)
    except (OSError, judged.JudgementsError) as error:
        raise failure(str(error)) from error


def mix_of(loaded: Settings, mix: str) -> str:
    """The name of the mix that was asked for."""
    try:
        return loaded.mix_called(mix)
    except ValueError as error:
        raise failure(str(error)) from error


def recipe_of(path: Path | None) -> Recipe:
    """How to train; as ever where no file says so."""
    from models.training import Recipe

    return read_of(Recipe, path) if path else Recipe()


def learner(dask: str) -> AbstractContextManager[Learn]:
    """Where to learn: on a Dask cluster, or in this process. Raises, once entered: ValueError."""
    from models.learn import here

    if not dask:
        return nullcontext(here)
    from models import distributed

    return distributed.cluster(dask)


def read_of(kind: type[M], path: Path) -> M:
    """What a YAML file declares."""
    try:
        return read_as(kind, path)
    except FileFault as error:
        raise failure(str(error)) from error
    except OSError as error:
        raise failure(f"{path}: {error.strerror}") from error
