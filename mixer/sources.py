"""Where a mix's model comes from: its own folder, or a registry: what is current there, or one version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mixer import model, pull
from mixer.model import LightGbmModel, ModelRefused
from mixer.model_settings import FolderModelSettings, RegistryModelSettings
from mixer.proof import RegistryError
from mixer.registry import Pointer, Registry
from mixer.schema import Feature


def load(declared: FolderModelSettings | RegistryModelSettings, features: Sequence[Feature]) -> LightGbmModel:
    """Load a model after all its checks, for a mix that declares these features. Takes seconds.

    Raises: ModelRefused, naming the check that failed; `registry` where nothing sound could be had from it.
    """
    return model.load(folder_of(declared), features)


def folder_of(declared: FolderModelSettings | RegistryModelSettings) -> Path:
    """The model's folder on this machine, pulled where it comes from a registry. Raises: ModelRefused."""
    if isinstance(declared, FolderModelSettings):
        return declared.path
    source = Registered(declared)
    return source.folder(source.current())


class Registered:
    """One model of a registry. Every method blocks, and raises ModelRefused, naming the check that failed."""

    def __init__(self, declared: RegistryModelSettings) -> None:
        """Opens nothing yet."""
        self._declared = declared
        self._pinned: Pointer | None = None

    def current(self) -> Pointer:
        """What is to serve now: the version of the settings, else what is current."""
        name = self._declared.name
        if self._pinned:
            return self._pinned
        try:
            registry = Registry(self._declared.registry)
            if version := self._declared.version:
                self._pinned = registry.pointer_to(name, version)
            pointer = self._pinned or registry.current(name)
        except (RegistryError, OSError) as error:
            raise ModelRefused("registry", str(error)) from error
        if pointer is None:
            raise ModelRefused("registry", f"{name} has no current version in {registry.url}: promote one")
        return pointer

    def folder(self, pointer: Pointer) -> Path:
        """The version that the pointer names, pulled to this machine."""
        declared = self._declared
        try:
            return pull.pull(Registry(declared.registry), declared.name, pointer, declared.cache)
        except (RegistryError, OSError) as error:
            raise ModelRefused("registry", str(error)) from error

    def load(self, pointer: Pointer, features: Sequence[Feature]) -> LightGbmModel:
        """That version, all checks passed. Takes seconds."""
        return model.load(self.folder(pointer), features)
