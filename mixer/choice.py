"""The models of the settings as one mix can use them: those at work in it, others loaded when somebody asks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixer import ensemble
from mixer.ensemble import Ensemble
from mixer.errors import UnfitModel
from mixer.model import LightGbmModel, ModelRefused
from mixer.model_settings import ModelSettings
from mixer.rollout import Lane
from mixer.schema import Feature

log = logging.getLogger(__name__)


class Choice:
    """Finds them by name; for one thread at a time."""

    def __init__(
        self, declared: Mapping[str, ModelSettings], features: Sequence[Feature], lanes: Mapping[str, Lane]
    ) -> None:
        """Takes the mix's features, and the lanes of its models by their names in the settings."""
        self._declared, self._features, self._lanes = declared, features, lanes
        self._loaded: dict[str, tuple[list[Path], LightGbmModel | Ensemble]] = {}

    def called(self, name: str) -> LightGbmModel | Ensemble:
        """The model of that name in the settings; takes seconds where it must be loaded. Raises: UnfitModel."""
        lane = self._lanes.get(name)
        at_work = lane.stands.loaded if lane else None
        if isinstance(at_work, LightGbmModel | Ensemble):
            return at_work
        try:
            return self._load(name)
        except ModelRefused as refusal:
            log.warning(
                "model cannot explain", extra={"model": name, "check": refusal.check, "why": str(refusal)}
            )
            why = str(refusal) if refusal.check == "schema" else "the server's log tells more"
            raise UnfitModel(
                f"model: {name!r} does not pass its {refusal.check} check here; {why}"
            ) from refusal

    def _load(self, name: str) -> LightGbmModel | Ensemble:
        """As it is now: a registry may have another version than when it was asked for last."""
        folders = ensemble.folders(name, self._declared)
        if name not in self._loaded or self._loaded[name][0] != folders:
            self._loaded[name] = folders, ensemble.load(name, self._declared, self._features)
        return self._loaded[name][1]
