"""Puts the models that the settings name to work, and follows the registries that they come from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mixer import ensemble, sources
from mixer.ensemble import Ensemble, Member, refused
from mixer.model import LightGbmModel, ModelRefused
from mixer.model_settings import (
    EnsembleModelSettings,
    FolderModelSettings,
    MemberSettings,
    ModelSettings,
    RegistryModelSettings,
)
from mixer.rollout import Loaded, Loading, Slot, Watcher
from mixer.schema import Feature
from mixer.sources import Registered

Watch = Callable[[], Coroutine[Any, Any, None]]
"""What runs beside the searches, until it is cancelled."""


class Follow:
    """The models of one mix."""

    def __init__(self, models: Mapping[str, ModelSettings], features: Sequence[Feature]) -> None:
        """Takes the models of the settings, and the features that the mix declares."""
        self._models, self._features = models, features

    async def __call__(self, key: str, slot: Slot, loading: Loading) -> tuple[Watch, ...]:
        """Fill the slot with the model of this key, with none for an empty one; returns what keeps it so."""
        declared = self._models.get(key)
        if isinstance(declared, EnsembleModelSettings):
            return await self._together(key, declared, slot, loading)
        return await self._one(declared, slot, loading)

    async def _one(
        self, declared: FolderModelSettings | RegistryModelSettings | None, slot: Slot, loading: Loading
    ) -> tuple[Watch, ...]:
        if not isinstance(declared, RegistryModelSettings):
            slot.put(await asyncio.to_thread(self._load, declared))
            return ()
        watcher = Watcher(Registered(declared), self._features, slot, declared.poll_s, loading)
        await watcher.first()
        return (watcher.watch,)

    async def _together(
        self, name: str, declared: EnsembleModelSettings, slot: Slot, loading: Loading
    ) -> tuple[Watch, ...]:
        """Every member by itself; what is prepared for a model that ranks alone is of no use to it."""
        table = _Table(name, declared.members, slot)
        alone = replace(loading, prepare=_unprepared)
        watches: list[Watch] = []
        for member in declared.members:
            model = ensemble.alone(member.model, self._models)
            seat = _Seat(table, member.model)
            told = {**loading.told, "member": member.model}
            watches += await self._one(model, seat, replace(alone, told=told))
        return tuple(watches)

    def _load(self, declared: FolderModelSettings | None) -> Loaded:
        try:
            return sources.load(declared, self._features) if declared else None
        except ModelRefused as refusal:
            return refusal


def _unprepared(loaded: LightGbmModel) -> None:
    """Nothing is prepared."""


class _Table:
    """An ensemble that is put together once all its members are there, and anew with every one that changes."""

    def __init__(self, name: str, members: Sequence[MemberSettings], slot: Slot) -> None:
        self._name, self._members, self._slot = name, members, slot
        self._loaded: dict[str, Loaded] = {}

    def seat(self, member: str, loaded: Loaded) -> None:
        """This is the member from now on."""
        self._loaded[member] = loaded
        if len(self._loaded) == len(self._members):
            self._slot.put(self._together())

    def _together(self) -> Ensemble | ModelRefused:
        members: list[Member] = []
        for declared in self._members:
            loaded = self._loaded[declared.model]
            if isinstance(loaded, ModelRefused):
                return refused(declared.model, loaded)
            if isinstance(loaded, LightGbmModel):
                members.append(Member(declared.model, declared.weight, loaded))
        return Ensemble(self._name, members)


@dataclass(frozen=True, slots=True)
class _Seat:
    """One member's place."""

    table: _Table
    member: str

    def put(self, loaded: Loaded) -> None:
        self.table.seat(self.member, loaded)
