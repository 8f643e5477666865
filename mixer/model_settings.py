"""Settings of models: a folder, a registry's model, or several as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    PositiveFloat,
    Tag,
    field_validator,
)

from mixer.frozen import Frozen, beside_the_file, beside_the_file_if_any, named_once, url_beside_the_file


class FolderModelSettings(Frozen):
    """A model folder: manifest.json, model.txt, golden.json."""

    path: Annotated[Path, AfterValidator(beside_the_file)]


_RegistryName = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$")]


class RegistryModelSettings(Frozen):
    """What a registry says is current of a model, or one version of it; see `mixer models`."""

    registry: Annotated[str, Field(min_length=1), AfterValidator(url_beside_the_file)]
    """A folder, or any URL that fsspec can open: s3://…, gs://…"""
    name: _RegistryName
    version: _RegistryName | None = None
    """This one, whatever is current: who changes it changes the settings. None follows what is current."""
    poll_s: PositiveFloat = 2.0
    """How often to look for a change."""
    cache: Annotated[Path | None, AfterValidator(beside_the_file_if_any)] = None
    """Where versions are kept on this machine; a folder of this user's for temporary files where not given."""


class MemberSettings(Frozen):
    """A model's part in an ensemble."""

    model: Annotated[str, Field(min_length=1)]
    """A key of `models` that is no ensemble itself."""
    weight: PositiveFloat = 1.0


class EnsembleModelSettings(Frozen):
    """The weighted sum of several models' scores."""

    members: Annotated[tuple[MemberSettings, ...], Field(min_length=1, max_length=16)]

    @field_validator("members")
    @classmethod
    def _each_once(cls, members: tuple[MemberSettings, ...]) -> tuple[MemberSettings, ...]:
        named_once(member.model for member in members)
        return members


def _kind_of_model(raw: Any) -> str:
    keys = raw if isinstance(raw, dict) else getattr(raw, "__dict__", {})
    kinds = {"members": "(ensemble)", "registry": "(registry)"}
    return next((kind for key, kind in kinds.items() if key in keys), "(folder)")


ModelSettings = Annotated[
    Annotated[FolderModelSettings, Tag("(folder)")]
    | Annotated[RegistryModelSettings, Tag("(registry)")]
    | Annotated[EnsembleModelSettings, Tag("(ensemble)")],
    Discriminator(_kind_of_model),
]
"""A tag in brackets is no part of the file: a fault's path leaves it out."""
