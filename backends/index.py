"""What an index folder says of itself, and how an engine opens one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, ValidationError, ValidationInfo

from backends.base import EngineSettings, Index
from backends.schema import Schema

MANIFEST = "index.json"


class IndexFault(Exception):
    """An index cannot be opened or built as the settings want it; the message says why, for an operator."""


def beside_settings(path: Path, info: ValidationInfo) -> Path:
    """Relative paths start at the folder of the settings file, where the reader of one says which that is."""
    folder = (info.context or {}).get("folder")
    return folder / path if folder is not None else path


class IndexSettings(EngineSettings):
    """What all engines over an index folder have in common."""

    index: Annotated[Path, AfterValidator(beside_settings)]
    """Folder that `backends.build` wrote."""
    threads: PositiveInt = 2
    """Queries answered at once; more wait in line."""


class Manifest(EngineSettings):
    """`index.json`: what the index was made from."""

    format: Literal[1] = 1
    version: str
    """Hash of documents, schema and options: the same input makes the same version."""
    count: int
    built_at_s: float
    declared: Schema = Field(alias="schema")
    options: dict[str, Any]
    """The engine's options, its kind among them."""

    def served(self, settings: IndexSettings, server_version: str) -> Index:
        """The index as answers name it; settings that change an answer change the version too."""
        chosen = settings.model_dump_json(exclude={"index", "threads"})
        suffix = hashlib.sha256(f"{chosen} {server_version}".encode()).hexdigest()[:8]
        return Index(f"{self.version}-{suffix}", self.built_at_s, server_version, self.declared.digest)


def open_manifest(folder: Path, kind: str) -> Manifest:
    """The manifest of an index of this kind. Raises: IndexFault."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise IndexFault(f"{folder} holds no index that can be read: {error.strerror}") from error
    except ValidationError as error:
        raise IndexFault(f"{folder / MANIFEST} is not a manifest this version knows") from error
    found = manifest.options.get("kind")
    if found != kind:
        raise IndexFault(f"{folder} is an index of kind {found}, not {kind}")
    return manifest


def check_fields(named: Iterable[str], held: Iterable[str], setting: str) -> None:
    """Hold field names in a setting against those an index has. Raises: IndexFault."""
    unknown = sorted(set(named) - set(held))
    if unknown:
        raise IndexFault(f"{setting} names fields the index does not have for it: {', '.join(unknown)}")
