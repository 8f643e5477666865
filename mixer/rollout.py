"""Models that change while they serve: a lane that holds the one at work, and a watcher that puts another there.

A version comes to serve in this order: the pointer names it, it is fetched and passes every check of `mixer.model` on
a thread, and one reference is replaced. A request reads that reference once, so it is answered by one model from its
first stage to its last; whatever fails on the way leaves the model before at work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Protocol

from mixer.ensemble import Ensemble
from mixer.model import LightGbmModel, ModelRefused
from mixer.rank import Rank, RankByFusion
from mixer.registry import Pointer
from mixer.schema import Feature
from mixer.sources import Registered
from mixer.values import Answer, Request

log = logging.getLogger(__name__)

Loaded = LightGbmModel | Ensemble | ModelRefused | None
"""A model, why there is none, or None where none is configured."""
LONGEST_PAUSE_S = 60.0
"""Between two tries to load a version that was refused; it may have been half-written."""


class Slot(Protocol):
    """Where models are put, one after another."""

    def put(self, loaded: Loaded) -> None:
        """This one is at work from now on, or why there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Deployed:
    """A model at work: the whole search with it, and why it should not be at work, where a check failed."""

    search: Callable[[Request], Awaitable[Answer]]
    loaded: Loaded
    fault: str = ""
    rank: Rank = field(default_factory=RankByFusion)
    """Its ranking alone, unwatched."""


class Lane:
    """The place of one model in a mix. What stands in it never changes; another can be put in its place."""

    def __init__(self, deploy: Callable[[Loaded], Deployed], changed: Callable[[], None]) -> None:
        """`deploy` makes a model ready to be asked; `changed` hears that another one stands here. Empty at first."""
        self._deploy, self._changed = deploy, changed
        self.stands = Deployed(_nobody, None, "no model was put to work yet")

    def search(self, request: Request) -> Awaitable[Answer]:
        """Ask the model at work."""
        return self.stands.search(request)

    def put(self, loaded: Loaded) -> None:
        """This one answers every request that begins from now on."""
        self.stands = self._deploy(loaded)
        self._changed()


async def _nobody(request: Request) -> Answer:
    raise RuntimeError("a lane was asked before a model was put into it")


@dataclass(frozen=True, slots=True)
class _Refused:
    """A pointer that could not be followed: how often it was tried, and when to try again."""

    pointer: Pointer | None
    tries: int = 0
    again_s: float = 0.0

    def once_more(self, poll_s: float) -> _Refused:
        pause_s = min(poll_s * 2.0 ** min(self.tries, 30), LONGEST_PAUSE_S)
        return replace(self, tries=self.tries + 1, again_s=monotonic() + pause_s)


_NONE = _Refused(None)


@dataclass(frozen=True, slots=True)
class Loading:
    """What goes on around a load."""

    turn: asyncio.Lock
    """One load at a time: what serves keeps the rest of the machine."""
    prepare: Callable[[LightGbmModel], None]
    """Called on the loading thread, before the swap."""
    count: Callable[[str], None]
    """Hears how every try ended: swapped, refused, unreadable, failed."""
    told: Mapping[str, str]
    """What log lines name it by."""


class Watcher:
    """Follows the pointer of one model for one slot."""

    def __init__(
        self,
        source: Registered,
        features: Sequence[Feature],
        slot: Slot,
        poll_s: float,
        loading: Loading,
    ) -> None:
        """Follows nothing until told to."""
        self._source, self._features, self._slot, self._poll_s = source, features, slot, poll_s
        self._loading = loading
        self._refused = _NONE
        self._followed: list[tuple[Pointer, LightGbmModel]] = []

    async def first(self) -> None:
        """Put the current version to work, or why there is none."""
        try:
            await self._follow(await asyncio.to_thread(self._source.current))
        except ModelRefused as refusal:
            self._slot.put(refusal)

    async def watch(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self.look()
            except Exception:
                self._loading.count("failed")
                log.exception(
                    "a look at the pointer failed; the model at work stays", extra=self._loading.told
                )

    async def look(self) -> None:
        """Follow the pointer where it moved; a version that is refused leaves the one at work where it is."""
        pointer = None
        try:
            pointer = await asyncio.to_thread(self._source.current)
            if self._stands(pointer) or (pointer == self._refused.pointer and not self._due()):
                return
            await self._follow(pointer)
        except ModelRefused as refusal:
            self._keep(pointer, refusal)
        else:
            self._loading.count("swapped")

    async def _follow(self, pointer: Pointer) -> None:
        loaded = self._kept(pointer)
        if loaded is None:  # who goes back waits for nobody's load
            async with self._loading.turn:
                loaded = await asyncio.to_thread(self._load, pointer)
        self._slot.put(loaded)
        self._followed = [(pointer, loaded), *self._followed[:1]]
        self._refused = _NONE
        told = {"model": loaded.ref.name, "version": loaded.ref.version, "sha256": loaded.ref.sha256}
        log.info("model at work", extra={**self._loading.told, **told, "why": pointer.why})

    def _load(self, pointer: Pointer) -> LightGbmModel:
        loaded = self._source.load(pointer, self._features)
        self._loading.prepare(loaded)
        return loaded

    def _kept(self, pointer: Pointer) -> LightGbmModel | None:
        """The model that was at work before the one that is, where it is asked back: that takes no time."""
        return next((kept for followed, kept in self._followed if _same(followed, pointer)), None)

    def _stands(self, pointer: Pointer) -> bool:
        if not self._followed or not _same(self._followed[0][0], pointer):
            return False
        self._refused = _NONE
        return True

    def _due(self) -> bool:
        return monotonic() >= self._refused.again_s

    def _keep(self, pointer: Pointer | None, refusal: ModelRefused) -> None:
        """The model at work stays; a fault is logged once, a refused version at every try."""
        new = pointer != self._refused.pointer or not self._refused.tries
        if pointer is None and not new:
            return
        self._refused = (_Refused(pointer) if new else self._refused).once_more(self._poll_s)
        self._loading.count("unreadable" if pointer is None else "refused")
        told = {"version": pointer.version if pointer else "", "check": refusal.check, "why": str(refusal)}
        log.error("model refused; the one at work stays", extra={**self._loading.told, **told})


def _same(one: Pointer, other: Pointer) -> bool:
    return (one.version, one.sha256) == (other.version, other.sha256)
