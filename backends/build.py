"""Builds an index from JSON Lines: any engine, published whole or not at all.

schema:
  id: id
  fields:
    title: {type: text}
    year: {type: number}
engine:
  kind: tantivy
  stemming: english
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

import backends
from backends.base import EngineSettings
from backends.embedding import VectorsOptions
from backends.folders import swap
from backends.index import MANIFEST, IndexFault, Manifest
from backends.schema import BadLine, Document, Progress, Schema, read
from backends.sqlite import SqliteOptions
from backends.tantivy import TantivyOptions

EngineOptions = Annotated[TantivyOptions | VectorsOptions | SqliteOptions, Field(discriminator="kind")]


class Definition(EngineSettings):
    """What documents hold, and the engine to index them with."""

    declared: Schema = Field(alias="schema")
    engine: EngineOptions

    @classmethod
    def load(cls, path: Path) -> Definition:
        """Read a YAML file. Raises: OSError, yaml.YAMLError, pydantic.ValidationError."""
        return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@dataclass(frozen=True, slots=True)
class Report:
    """How a build went."""

    indexed: int
    """Documents in the index; those that would have been, where it was not published."""
    bad_lines: tuple[BadLine, ...]
    published: bool
    version: str = ""


def build(
    definition: Definition,
    source: Path,
    folder: Path,
    progress: Progress | None = None,
    allowed_bad_lines: int = 0,
) -> Report:
    """Index a `.jsonl` or `.jsonl.gz` file into a folder, in place of the index that was there.

    With more bad lines than allowed nothing is written. `progress` follows the reading; the engine's own work
    comes after it. Raises: IndexFault where the options name unknown fields, or the folder holds something else
    than an index; OSError.
    """
    read_lines = list(read(source, definition.declared, progress))
    documents = [line for line in read_lines if isinstance(line, Document)]
    bad_lines = tuple(line for line in read_lines if isinstance(line, BadLine))
    if len(bad_lines) > allowed_bad_lines:
        return Report(len(documents), bad_lines, published=False)
    manifest = write(definition, documents, folder)
    return Report(len(documents), bad_lines, published=True, version=manifest.version)


def write(definition: Definition, documents: Sequence[Document], folder: Path) -> Manifest:
    """Index documents into a folder, whole or not at all. Raises: as `build`."""
    options = definition.engine
    manifest = Manifest(
        version=_version(definition, documents),
        count=len(documents),
        built_at_s=time.time(),
        schema=definition.declared,
        options=options.model_dump(),
    )
    with _published(folder) as draft:
        backends.ENGINES[options.kind].build(documents, definition.declared, options, draft)
        (draft / MANIFEST).write_text(manifest.model_dump_json(by_alias=True, indent=2), encoding="utf-8")
    return manifest


def _version(definition: Definition, documents: Sequence[Document]) -> str:
    digest = hashlib.sha256(definition.model_dump_json().encode())
    for document in documents:
        content = [document.id, sorted(document.texts.items()), sorted(document.numbers.items())]
        digest.update(json.dumps(content).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _published(folder: Path) -> Iterator[Path]:
    """A draft folder beside the real one, put in its place at the end, or thrown away after a failure."""
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise IndexFault(f"{folder} holds something else than an index")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        draft, replaced = Path(scratch, "draft"), Path(scratch, "replaced")
        draft.mkdir()
        yield draft
        swap(draft, folder, replaced)
