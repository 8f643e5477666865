"""Where a mix's model comes from: its own folder, or what a registry says is current."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixer import model, pull
from mixer.model import LightGbmModel, ModelRefused
from mixer.proof import RegistryError
from mixer.registry import Registry
from mixer.schema import Feature
from mixer.settings import FolderModelSettings, RegistryModelSettings


def load(declared: FolderModelSettings | RegistryModelSettings, features: Sequence[Feature]) -> LightGbmModel:
    """Load a model after all its checks, for a mix that declares these features. Takes seconds.

    Raises: ModelRefused, naming the check that failed; `registry` where nothing sound could be had from it.
    """
    return model.load(folder_of(declared), features)


def folder_of(declared: FolderModelSettings | RegistryModelSettings) -> Path:
    """The model's folder on this machine, pulled where it comes from a registry. Raises: ModelRefused."""
    if isinstance(declared, FolderModelSettings):
        return declared.path
    try:
        return pull.pull_current(Registry(declared.registry), declared.name, declared.cache)
    except (RegistryError, OSError) as error:
        raise ModelRefused("registry", str(error)) from error
