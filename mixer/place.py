"""Which registry, which model and which version a person means, from options and settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mixer import pull, settings
from mixer.model_settings import RegistryModelSettings
from mixer.proof import RegistryError
from mixer.registry import Pointer, Registry
from mixer.schema import Feature
from mixer.settings import Settings
from mixer.slices import Slices


@dataclass(frozen=True, slots=True)
class Place:
    """One model of a registry, and features and slices of the mix that it is for where a settings file says so."""

    registry: Registry
    name: str
    features: tuple[Feature, ...] | None = None
    slices: Slices | None = None
    """None where it declares none."""

    def version(self, text: str) -> str:
        """The one version that starts so. Raises: RegistryError."""
        held = [manifest.version for manifest in self.registry.versions(self.name)]
        found = [version for version in held if version == text] or [v for v in held if v.startswith(text)]
        if len(found) == 1:
            return found[0]
        several = f"several versions start with {text!r}" if found else f"{self.name} has no version {text!r}"
        raise RegistryError(f"{several}; there are: {', '.join(found or held) or 'none'}")


def place_of(registry: str, name: str, config: Path | None, mix: str) -> Place:
    """The one model meant. Raises: as `somewhere`."""
    place = somewhere(registry, config, mix)
    if wanted := name or place.name:
        return replace(place, name=wanted)
    names = place.registry.names()
    if len(names) != 1:
        raise RegistryError(
            f"say which model with --name; {place.registry.url} holds: {', '.join(names) or 'none'}"
        )
    return replace(place, name=names[0])


def somewhere(registry: str, config: Path | None, mix: str) -> Place:
    """The registry meant, and the model where the settings name one. Raises: RegistryError; ValueError, no such mix."""
    if not config:
        return Place(Registry(given(registry)), "")
    loaded = _settings(config)
    rules = loaded.mixes[loaded.mix_called(mix)]
    declared = loaded.models.get(rules.model)
    slices = Slices(rules.slices, list(rules.backends)) if rules.slices else None
    if isinstance(declared, RegistryModelSettings):
        return Place(Registry(registry or declared.registry), declared.name, rules.features, slices)
    return Place(Registry(given(registry)), "", rules.features, slices)


def folder_of(text: str, registry: str, name: str) -> Path:
    """The model folder meant: a folder as it is, or a version of a registry, or its `current` one, brought here.

    Raises: RegistryError; OSError.
    """
    if (folder := Path(text)).is_dir():
        return folder
    if not registry:
        raise RegistryError(
            f"{text} is not a folder; for a version of a registry, name that with --registry or MIXER_REGISTRY"
        )
    place = place_of(registry, name, None, "")
    return pull.pull(place.registry, place.name, _pointer(place, text))


def _pointer(place: Place, text: str) -> Pointer:
    if text != "current":
        return place.registry.pointer_to(place.name, place.version(text))
    if current := place.registry.current(place.name):
        return current
    raise RegistryError(f"{place.name} has no current version in {place.registry.url}: name one")


def given(registry: str) -> str:
    """The registry that was named. Raises: RegistryError where none was."""
    if not registry:
        raise RegistryError(
            "which registry? name one with --registry or MIXER_REGISTRY, or a --config whose mix has one"
        )
    return registry


def _settings(config: Path) -> Settings:
    try:
        return settings.load(config)
    except OSError as error:
        raise RegistryError(f"{config}: {error.strerror}; name a settings file with --config") from error
