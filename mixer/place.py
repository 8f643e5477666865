"""Which registry and which model a person means, from options and settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixer import settings
from mixer.proof import RegistryError
from mixer.registry import Registry
from mixer.schema import Feature
from mixer.settings import RegistryModelSettings, Settings


@dataclass(frozen=True, slots=True)
class Place:
    """One model of a registry, and the features of the mix that it is for where a settings file says so."""

    registry: Registry
    name: str
    features: tuple[Feature, ...] | None = None

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
        return Place(place.registry, wanted, place.features)
    names = place.registry.names()
    if len(names) != 1:
        raise RegistryError(
            f"say which model with --name; {place.registry.url} holds: {', '.join(names) or 'none'}"
        )
    return Place(place.registry, names[0], place.features)


def somewhere(registry: str, config: Path | None, mix: str) -> Place:
    """The registry meant, and the model where the settings name one. Raises: RegistryError; ValueError, no such mix."""
    if not config:
        return Place(Registry(given(registry)), "")
    loaded = _settings(config)
    rules = loaded.mixes[loaded.mix_called(mix)]
    declared = loaded.models.get(rules.model)
    if isinstance(declared, RegistryModelSettings):
        return Place(Registry(registry or declared.registry), declared.name, rules.features)
    return Place(Registry(given(registry)), "", rules.features)


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
